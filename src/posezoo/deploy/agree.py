"""Whether an exported file computes what torch does: on random crops, one alone and three together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posezoo.crop import normalise
from posezoo.errors import PosezooError

if TYPE_CHECKING:
    from posezoo.deploy.graph import Deployed
    from posezoo.deploy.runtimes import Runtime

_BATCHES = (1, 3)
_TRIES = 16
_APART = 10  # times torch's own error: both are wrong, each in its own way, and few values show how far


@dataclass(frozen=True)
class Limits:
    """How far an export may be from torch.

    Attributes:
        outputs: of any output, in its standard deviations.
        pixels: of a joint, where the file decodes.
    """

    outputs: float
    pixels: float


SINGLE = Limits(2e-4, 1e-3)  # the order of summation differs, nothing else does
HALF = Limits(5e-2, 0.25)  # weights are rounded to 11 bits


@dataclass(frozen=True)
class Agreement:
    """What a comparison found.

    Attributes:
        error: the largest difference, in `unit`.
        unit: "standard deviations" of the output; or "px", of the crop.
        unsure: how many joints were left out of the error, because an allowed error of the maps moves them as far.
        joints: of how many, in all.
        rounding: torch's own error, in standard deviations of the output, where that is what let them differ so far.
    """

    error: float
    unit: str = "standard deviations"
    unsure: int = 0
    joints: int = 0
    rounding: float = 0.0


def check_network(network: Deployed, runtime: Runtime, limits: Limits = SINGLE) -> Agreement:
    """Compare a pose network in torch with the file that was made of it.

    Where torch itself is not that exact, as double precision shows, ten times its own error is the limit.

    Args:
        network: in torch, as it was loaded.
        runtime: computes the file.
        limits: the largest errors.

    Raises:
        PosezooError: they differ; it says by how much.
    """
    spec = network.spec
    compare = _compare_joints if spec.output == "joints" else _compare_maps
    found = []
    for count in _BATCHES:
        crops = random_crops(count, spec.input_size_wh)
        batch = crops if spec.input == "crops" else normalise(crops, spec.mean, spec.std, spec.channels)
        given = torch.from_numpy(runtime(batch)[0])
        with torch.no_grad():
            planes = network.planes(torch.from_numpy(batch))
            maps = network.network(planes)
        try:
            found.append(compare(network, maps, given, limits))
        except PosezooError:
            rounding = _rounding(network.network, planes, [maps])
            if rounding * _APART <= limits.outputs:
                raise
            wider = replace(limits, outputs=rounding * _APART)
            found.append(replace(compare(network, maps, given, wider), rounding=rounding))
    unsure, joints = (sum(getattr(each, name) for each in found) for name in ("unsure", "joints"))
    error, rounding = (max(getattr(each, name) for each in found) for name in ("error", "rounding"))
    return Agreement(error, found[0].unit, unsure, joints, rounding)


def check_outputs(
    module: nn.Module, runtime: Runtime, sizes_wh: Sequence[tuple[int, int]], tolerance: float
) -> Agreement:
    """Compare any network with the file that was made of it, on inputs of these sizes.

    Args:
        module: in torch; takes (N, 3, h, w) float32 and gives a tensor, or several.
        runtime: computes the file.
        sizes_wh: widths and heights.
        tolerance: the largest error of an output, in its standard deviations.

    Raises:
        PosezooError: they differ; it says by how much.
    """
    worst, rounding = 0.0, 0.0
    for seed, (count, (width, height)) in enumerate(zip((*_BATCHES, 1), (sizes_wh[0], *sizes_wh), strict=False)):
        x = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)
        with torch.no_grad():
            wanted = _listed(module(x))
        given = [torch.from_numpy(each) for each in runtime(x.numpy())]
        error = max(_difference(ours, theirs)[1] for ours, theirs in zip(wanted, given, strict=True))
        if not error <= tolerance:
            rounding = max(rounding, _rounding(module, x, wanted))
        worst = max(worst, _within(error, max(tolerance, rounding * _APART)))
    return Agreement(worst, rounding=rounding)


def _listed(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


def _rounding(module: nn.Module, x: Tensor, outputs: Sequence[Tensor]) -> float:
    """How far torch itself is from what double precision gives, in standard deviations of an output.

    Through gates and deformed kernels a network can be so steep that the order of its sums decides what it gives.
    """
    exact = copy.deepcopy(module).double()
    with torch.no_grad():
        wanted = _listed(exact(x.double()))
    return max(_difference(truth.float(), ours)[1] for truth, ours in zip(wanted, outputs, strict=True))


def random_crops(count: int, size_wh: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Crops (count, h, w, 3) uint8 of soft blobs and a little noise, of all colours: nearer to a picture than noise."""
    import cv2

    rng = np.random.default_rng((seed, count))
    blobs = [cv2.resize(each, size_wh, interpolation=cv2.INTER_CUBIC) for each in rng.uniform(0, 255, (count, 8, 6, 3))]
    noisy = np.stack(blobs) + rng.normal(0, 8, (count, size_wh[1], size_wh[0], 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _difference(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference of two tensors, as it is and as a share of the standard deviation; infinite if none."""
    if ours.shape != theirs.shape:
        raise PosezooError(f"it gives {tuple(theirs.shape)}, and torch {tuple(ours.shape)}")
    largest = float((ours - theirs).abs().max())
    largest = largest if largest == largest else float("inf")  # NaN: one of them has one
    return largest, largest / (float(ours.std()) or 1.0)


def _within(error: float, tolerance: float) -> float:
    if not error <= tolerance:
        raise PosezooError(
            f"it differs from torch by {error:.1e} standard deviations of the output, over {tolerance:.0e}"
        )
    return error


def _compare_maps(network: Deployed, maps: Tensor, given: Tensor, limits: Limits) -> Agreement:
    """Heatmaps: every value, and the highest pixel wherever it stands out by more than the error."""
    largest, share = _difference(maps, given)
    _within(share, limits.outputs)
    top, where = maps.flatten(2).topk(2, dim=2)
    stands_out = top[..., 0] - top[..., 1] > largest
    moved = stands_out & (given.flatten(2).argmax(2) != where[..., 0])
    if moved.any():
        raise PosezooError(f"of {moved.numel()} peaks {int(moved.sum())} are elsewhere than in torch")
    return Agreement(share, joints=moved.numel())


def _compare_joints(network: Deployed, maps: Tensor, given: Tensor, limits: Limits) -> Agreement:
    """Joints: each to the pixels allowed, or as far as an allowed error of the maps moves it.

    Of two pixels that are all but equally high either may be the highest; and where a map is flat, its curvature, by
    which DARK divides, is all rounding.
    """
    with torch.no_grad():
        wanted = network.read(maps)
    if wanted.shape != given.shape:
        raise PosezooError(f"it gives {tuple(given.shape)}, and torch {tuple(wanted.shape)}")
    allowed = limits.outputs * (float(maps.std()) or 1.0)
    scores = float((wanted - given)[..., 2].abs().max())
    if not scores <= allowed + 1e-6:
        raise PosezooError(f"its scores differ from torch by {scores:.1e}")
    apart = (wanted - given)[..., :2].abs().amax(2)
    sure = apart <= limits.pixels
    if not sure.all():
        movable = _movable(network, maps, wanted, allowed)
        if not (apart <= limits.pixels + movable).all():
            raise PosezooError(f"its joints differ from torch by {float(apart.max()):.1e} px, over {limits.pixels} px")
    error = float(apart[sure].max()) if sure.any() else 0.0
    return Agreement(error, "px", int((~sure).sum()), sure.numel())


def _movable(network: Deployed, maps: Tensor, wanted: Tensor, allowed: float) -> Any:
    """How far each joint (N, K) goes when every value of the maps is up to `allowed` wrong, in pixels."""
    generator = torch.Generator().manual_seed(0)
    farthest = torch.zeros(wanted.shape[:2])
    for attempt in range(_TRIES):
        coarse = 1 + attempt % 4  # an error may be the same over several pixels
        size = [-(-side // coarse) for side in maps.shape[2:]]
        noise = torch.rand((*maps.shape[:2], *size), generator=generator) * 2 - 1
        with torch.no_grad():
            moved = network.read(maps + nn.functional.interpolate(noise, maps.shape[2:]) * allowed)
        farthest = torch.maximum(farthest, (moved - wanted)[..., :2].abs().amax(2))
    return farthest
