"""One heatmap per joint: Gaussian targets one way, peaks refined below a pixel the other.

Everything is batched over people and joints. A Gaussian target is separable, so it is two short exponentials and an
outer product; DARK's blur is needed at a few pixels around each peak only, and is two small matrix products there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.crop import Grid
from posezoo.errors import PosezooError, unknown_name

Floats = NDArray[np.float32]
Refine = Literal["none", "quarter", "dark", "megvii"]
REFINES = ("none", "quarter", "dark", "megvii")
GRIDS = ("legacy", "unbiased")

DARK_FLOOR = 1e-10  # before the logarithm, of the map scaled back to its height before the blur
UDP_FLOOR, UDP_CEILING = 1e-3, 50.0  # the same clip as UDP's code, of the blurred map as it is
UDP_RIDGE = float(np.finfo(np.float32).eps)
MEGVII_PEAK = 255.0
FAR_OUTSIDE = -1e6


@dataclass(frozen=True)
class HeatmapCodec:
    """How joints become heatmaps and heatmaps become joints.

    Attributes:
        refine: what happens to the highest pixel.
            "none": nothing (GluonCV's heatmap_to_coord);
            "quarter": a quarter pixel towards the higher neighbour (Newell et al. 2016, HRNet, Simple Baselines);
            "dark": a Taylor step on the logarithm of the blurred map (Zhang et al. 2020, "Distribution-Aware
            Coordinate Representation", section 3.2), on the unbiased grid as UDP's code does it (Huang et al. 2020);
            "megvii": the peak of the blurred map, a quarter and then half a pixel on (Chen et al. 2018, CPN).
        grid: how heatmap pixels lie on crop pixels; the crop must be cut on the same grid, see `posezoo.crop`.
        stride: crop pixels per heatmap pixel, of what `encode` makes, and of what `decode` reads where it is not told
            the crop's size.
        sigma: of the target Gaussian, in heatmap pixels.
        blur_kernel: odd width of the blur of "dark" and "megvii", in heatmap pixels; 11 goes with sigma 2, 17 with 3.
    """

    refine: Refine = "quarter"
    stride: int = 4
    sigma: float = 2.0
    blur_kernel: int = 11
    grid: Grid = "legacy"

    def __post_init__(self) -> None:
        if self.refine not in REFINES:
            raise unknown_name("heatmap refinement", str(self.refine), REFINES)
        if self.grid not in GRIDS:
            raise unknown_name("crop grid", str(self.grid), GRIDS)
        if self.stride < 1 or self.sigma <= 0 or self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise PosezooError(
                "a heatmap codec needs stride >= 1, sigma > 0 and an odd blur_kernel, "
                f"but has {self.stride}, {self.sigma} and {self.blur_kernel}"
            )

    def heatmap_size(self, size_wh: Sequence[int]) -> tuple[int, int]:
        """Width and height of the heatmaps of a crop of `size_wh`."""
        width, height = int(size_wh[0]), int(size_wh[1])
        if min(width, height) < 1 or width % self.stride or height % self.stride:
            raise PosezooError(
                f"a crop of {width}x{height} has no heatmap of stride {self.stride}: use a multiple of it"
            )
        return width // self.stride, height // self.stride

    def factors(self, width: int, height: int, size_wh: Sequence[int] | None = None) -> tuple[float, float]:
        """Crop pixels per heatmap pixel, in x and y, for heatmaps of `width` x `height` of a crop of `size_wh`."""
        crop = (width * self.stride, height * self.stride) if size_wh is None else size_wh
        if self.grid == "legacy":
            return crop[0] / width, crop[1] / height
        return (crop[0] - 1) / max(width - 1, 1), (crop[1] - 1) / max(height - 1, 1)

    def decode(self, heatmaps: ArrayLike, size_wh: Sequence[int] | None = None) -> tuple[Floats, Floats]:
        """Joints and scores.

        Args:
            heatmaps: (N, K, h, w) float.
            size_wh: the crop's width and height; None: `stride` times those of the maps.

        Returns:
            crop_xy (N, K, 2) float32 in crop pixels, and scores (N, K) float32 in [0, 1]. A map that is nowhere
            positive gives the crop's first pixel and score 0.
        """
        maps = np.asarray(heatmaps, np.float32)
        height, width = maps.shape[2:]
        if self.refine == "megvii":
            maps = _blur(maps, self.blur_kernel)
        pixels, values = peaks(maps)
        if self.refine == "dark":
            pixels = _dark(self, maps, pixels, values)
        elif self.refine != "none":
            pixels = _quarter(maps, pixels, values, 0.5 if self.refine == "megvii" else 0.0)
        if self.refine == "megvii":
            values = values / MEGVII_PEAK + np.float32(0.5)
        scores = np.fmin(np.fmax(values, np.float32(0)), np.float32(1))  # 0 for what is not a number
        return pixels * np.array(self.factors(width, height, size_wh), np.float32), scores

    def encode(self, crop_xy: ArrayLike, visible: ArrayLike, size_wh: Sequence[int]) -> tuple[Floats, Floats]:
        """Gaussian targets and their weights.

        "none" and "quarter" round the joint to a heatmap pixel as HRNet does; "dark" keeps the exact place, over the
        whole map (section 3.3 of the paper), on the unbiased grid within three sigma of the rounded place (UDP);
        "megvii" is the blur of one pixel, 255 high.

        Args:
            crop_xy: (N, K, 2) in crop pixels.
            visible: (N, K), 0 for a joint without a label; other values are kept as weights.
                A joint whose place is not finite counts as unlabelled.
            size_wh: the crop's width and height.

        Returns:
            targets (N, K, h, w) and weights (N, K), float32; a joint too far outside the crop has weight 0.
        """
        width, height = self.heatmap_size(size_wh)
        place = np.asarray(crop_xy, np.float64) / self.factors(width, height)
        place = np.where(np.isfinite(place), place, FAR_OUTSIDE)  # else a joint without a place would spoil its map
        seen = np.asarray(visible, np.float32)
        column, inside_x = self._profile(place[..., 0], width)
        row, inside_y = self._profile(place[..., 1], height)
        weights = np.where(inside_x & inside_y, seen, np.float32(0))
        targets = (row * (weights > 0)[..., None])[..., :, None] * column[..., None, :]
        return targets, weights

    def flip_back(self, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool) -> Floats:
        """See `flip_back`."""
        return flip_back(flipped_heatmaps, mirror_index, shift)

    def average_flip(
        self, heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool
    ) -> Floats:
        """See `average_flip`."""
        return average_flip(heatmaps, flipped_heatmaps, mirror_index, shift)

    def _profile(self, place: NDArray[np.float64], size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """One axis of the target, (N, K, size), and whether the joint reaches the map at all, (N, K)."""
        rounded = np.trunc(place + 0.5)  # towards zero, as the int() of every zoo's code
        pixel = np.arange(size)
        if self.refine == "megvii":
            rounded = np.trunc(place)
            inside = (rounded >= 0) & (rounded < size)
            hit = np.clip(rounded, 0, size - 1).astype(np.intp)
            spread = blur_matrix(size, self.blur_kernel, "reflect").T[hit]
            peak = np.take_along_axis(spread, hit[..., None], axis=-1)
            return (spread / peak * np.sqrt(MEGVII_PEAK)).astype(np.float32), inside
        reach = 3 * self.sigma
        whole = self.refine == "dark" and self.grid == "legacy"
        first, last = (place - reach, place + reach) if whole else (rounded - reach, rounded + reach)
        inside = (first < size) & (last + 1 >= 0)
        center = place if self.refine == "dark" or self.grid == "unbiased" else rounded
        value = np.exp(-((pixel - center[..., None]) ** 2) / (2 * self.sigma**2))
        if not whole:
            value *= np.abs(pixel - rounded[..., None]) <= reach
        return value.astype(np.float32), inside


def peaks(heatmaps: ArrayLike) -> tuple[Floats, Floats]:
    """The highest pixel of each map, and its raw value.

    Args:
        heatmaps: (N, K, h, w).

    Returns:
        pixels (N, K, 2) float32, x and y; 0, 0 where no value is positive. values (N, K) float32, not clipped.
    """
    maps = np.asarray(heatmaps, np.float32)
    people, joints, height, width = maps.shape
    flat = maps.reshape(people * joints, height * width)
    where = flat.argmax(axis=1)
    values = flat[np.arange(len(flat)), where]
    where[~(values > 0)] = 0  # nor of those that are not a number
    row = where // width
    pixels = np.stack([where - row * width, row], axis=1).astype(np.float32)
    return pixels.reshape(people, joints, 2), values.reshape(people, joints)


def flip_back(flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool) -> Floats:
    """Heatmaps of the mirrored crop, in the order and direction of the crop itself.

    Args:
        flipped_heatmaps: (N, K, h, w), of the crop mirrored left to right.
        mirror_index: (K,) the joint on the other side; `Skeleton.mirror_index`.
        shift: move the maps one pixel to the right, as networks of the legacy grid need (column 0 keeps its value).
    """
    maps = np.asarray(flipped_heatmaps, np.float32)[:, np.asarray(mirror_index, np.intp), :, ::-1]
    if not shift:
        return np.ascontiguousarray(maps)
    moved = np.empty_like(maps, order="C")
    moved[..., 1:] = maps[..., :-1]
    moved[..., :1] = maps[..., :1]
    return moved


def average_flip(heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool) -> Floats:
    """The mean of the heatmaps and of those of the mirrored crop, see `flip_back`."""
    return (np.asarray(heatmaps, np.float32) + flip_back(flipped_heatmaps, mirror_index, shift)) * np.float32(0.5)


def _quarter(maps: Floats, pixels: Floats, values: Floats, extra: float) -> Floats:
    """A quarter pixel towards the higher neighbour, for peaks at least two pixels inside the map."""
    height, width = maps.shape[2:]
    flat = maps.reshape(-1)
    x, y = pixels.reshape(-1, 2).T.astype(np.intp)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1) & (values.ravel() > 0)
    here = np.arange(0, maps.size, height * width) + y * width + x
    strides = np.array([[1], [width]])
    # beside a peak at an edge these are of another row or map, which does not count: it is not inside
    after, before = flat.take(here + strides, mode="clip"), flat.take(here - strides, mode="clip")
    step = np.subtract(after > before, after < before, dtype=np.float32)  # 0 too where one is not a number
    step = (step * np.float32(0.25) + np.float32(extra)) * inside
    return pixels + step.T.reshape(pixels.shape)


def _dark(codec: HeatmapCodec, maps: Floats, pixels: Floats, values: Floats) -> Floats:
    """One Newton step on the logarithm of the blurred maps from each peak."""
    people, joints, height, width = maps.shape
    reach, border = (1, "reflect") if codec.grid == "unbiased" else (2, "zero")
    x, y = pixels[..., 0].astype(np.intp).ravel(), pixels[..., 1].astype(np.intp).ravel()
    usable = values.ravel() > 0
    if codec.grid == "legacy":
        usable &= (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return pixels
    chosen = maps.reshape(people * joints, height, width)[rows]
    near = np.arange(-reach, reach + 1)
    # the blur is linear and separable: the patch around a peak is (rows of the blur) @ map @ (columns of the blur)
    down = blur_matrix(height, codec.blur_kernel, border)[np.clip(y[rows, None] + near, 0, height - 1)]
    across = blur_matrix(width, codec.blur_kernel, border)[np.clip(x[rows, None] + near, 0, width - 1)]
    patch = (down @ chosen @ across.transpose(0, 2, 1)).astype(np.float64)
    if codec.grid == "unbiased":
        step = udp_step(np.log(np.clip(patch, UDP_FLOOR, UDP_CEILING)))
    else:
        step = dark_step(np.log(np.maximum(patch * _rescale(codec, chosen, patch), DARK_FLOOR)))
    moved = pixels.reshape(-1, 2).copy()
    moved[rows] += np.where(np.isfinite(step), step, 0).astype(np.float32)
    return moved.reshape(people, joints, 2)


def _rescale(codec: HeatmapCodec, maps: Floats, patch: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factor that gives a blurred map its former height, (M, 1, 1).

    It vanishes in the derivatives of a logarithm unless a value of the patch meets the floor, so that only the maps
    where one may do so are blurred as a whole; elsewhere it is 1.
    """
    factor = np.ones((len(maps), 1, 1))
    low = np.flatnonzero(patch.min(axis=(1, 2)) < DARK_FLOOR * 1e6)
    if len(low):
        blurred = _blur_plain(maps[low], codec.blur_kernel)
        factor[low, 0, 0] = maps[low].max(axis=(1, 2)) / blurred.max(axis=(1, 2))
    return factor


def dark_step(patch: Any) -> Any:
    """DARK's step from the middle of (M, 5, 5) logarithms, numpy or torch: (M, 2) as x, y."""
    dx, dy = (patch[:, 2, 3] - patch[:, 2, 1]) * 0.5, (patch[:, 3, 2] - patch[:, 1, 2]) * 0.5
    middle = patch[:, 2, 2] * 2
    dxx = (patch[:, 2, 4] - middle + patch[:, 2, 0]) * 0.25
    dyy = (patch[:, 4, 2] - middle + patch[:, 0, 2]) * 0.25
    dxy = (patch[:, 3, 3] - patch[:, 1, 3] - patch[:, 3, 1] + patch[:, 1, 1]) * 0.25
    return _newton(dx, dy, dxx, dyy, dxy)


def udp_step(patch: Any) -> Any:
    """UDP's step from the middle of (M, 3, 3) logarithms, numpy or torch: (M, 2) as x, y."""
    dx, dy = (patch[:, 1, 2] - patch[:, 1, 0]) * 0.5, (patch[:, 2, 1] - patch[:, 0, 1]) * 0.5
    middle = patch[:, 1, 1] * 2
    dxx = patch[:, 1, 2] - middle + patch[:, 1, 0]
    dyy = patch[:, 2, 1] - middle + patch[:, 0, 1]
    cross = patch[:, 2, 2] - patch[:, 1, 2] - patch[:, 2, 1] + middle
    dxy = (cross - patch[:, 1, 0] - patch[:, 0, 1] + patch[:, 0, 0]) * 0.5
    return _newton(dx, dy, dxx + UDP_RIDGE, dyy + UDP_RIDGE, dxy)


def _newton(dx: Any, dy: Any, dxx: Any, dyy: Any, dxy: Any) -> Any:
    """Minus the inverse Hessian times the gradient, 0 where the Hessian has no inverse. Numpy or torch."""
    determinant = dxx * dyy - dxy * dxy
    flat = determinant == 0
    scale = ~flat / (determinant + flat)
    step = [(dxy * dy - dyy * dx) * scale, (dxy * dx - dxx * dy) * scale]
    if isinstance(dx, np.ndarray):
        return np.stack(step, axis=-1)
    import torch

    return torch.stack(step, dim=-1)


@functools.cache
def blur_matrix(size: int, kernel: int, border: str) -> Floats:
    """A Gaussian blur along an axis of `size` pixels as a (size, size) matrix; `matrix @ column` blurs a column.

    The Gaussian has OpenCV's sigma for the width, 0.3 * ((kernel - 1) / 2 - 1) + 0.8. Outside the axis is "zero", or
    "reflect": the pixels mirrored about the first and the last.
    """
    reach = (kernel - 1) // 2
    sigma = 0.3 * (reach - 1) + 0.8
    near = np.arange(-reach, reach + 1)
    weight = np.exp(-(near**2) / (2 * sigma**2))
    weight /= weight.sum()
    target = np.broadcast_to(np.arange(size)[:, None], (size, kernel))
    source = target + near
    if border == "reflect":
        period = max(2 * (size - 1), 1)
        source = np.abs((source + size - 1) % period - (size - 1)) if size > 1 else np.zeros_like(source)
    valid = (source >= 0) & (source < size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (target[valid], source[valid]), np.broadcast_to(weight, source.shape)[valid])
    result = matrix.astype(np.float32)
    result.flags.writeable = False
    return result


def _blur_plain(maps: Floats, kernel: int) -> Floats:
    """Every map blurred, zero outside."""
    height, width = maps.shape[-2:]
    blurred = blur_matrix(height, kernel, "zero") @ maps @ blur_matrix(width, kernel, "zero").T
    return blurred.astype(np.float32, copy=False)


def _blur(maps: Floats, kernel: int) -> Floats:
    """Every map blurred, zero outside, and given its former height."""
    blurred = _blur_plain(maps, kernel)
    top = blurred.max(axis=(2, 3), keepdims=True)
    former = maps.max(axis=(2, 3), keepdims=True)
    blurred *= np.divide(former, top, out=np.ones_like(top), where=top != 0)
    return blurred
