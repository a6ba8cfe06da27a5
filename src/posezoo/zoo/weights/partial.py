"""Parts of a network from a checkpoint: its backbone from a network that classifies, or all that fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posezoo.errors import PosezooError
from posezoo.models.build import ARCHS, outline
from posezoo.zoo.weights import darknet, imagenet
from posezoo.zoo.weights.gluoncv import PREFIX_NAMES
from posezoo.zoo.weights.imagenet import BODY
from posezoo.zoo.weights.layout import Layout
from posezoo.zoo.weights.load import (
    Checkpoint,
    Source,
    check_finite,
    fitting,
    layout_of,
    match,
    read_checkpoint,
)

_COUNTER = "num_batches_tracked"
# what FastPose adds to a plain ResNet: its gates, its offsets, and the convolutions behind its unshuffles
_ADDED = tuple(re.compile(rf"layer\d+\.\d+\.{part}\..*") for part in ("se", r"conv\d\.offset", r"conv2\.1"))
_UNSHUFFLED = (".conv2.weight", ".conv2.1.weight")


@dataclass(frozen=True)
class Taken:
    """What a network took from a checkpoint.

    Attributes:
        layout: whose names the checkpoint has.
        taken: how many of the network's arrays are the checkpoint's.
        fresh: the others, by name, which are as they were; counters of BatchNorm are not listed.
        unused: arrays of the checkpoint that found no place, under its own names; of a classifier's, those of its body.
    """

    layout: str
    taken: int
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _Body:
    """The names of a checkpoint inside the backbone alone; a `Layout`."""

    name: str
    renamed: Mapping[str, str]

    def recognise(self, keys: Sequence[str]) -> bool:
        return set(keys) <= set(self.renamed)

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        return {key: self.renamed.get(key, key).removeprefix(BODY) for key in keys}


def load_backbone(model: nn.Module, source: Source, arch: str = "this network") -> Taken:
    """Set the backbone of `model` from a network that was trained to classify, or from another pose network.

    All of the backbone must be there, and no other one's layers; the rest of the file is left out. What FastPose adds
    to a plain ResNet may be missing as a whole: it stays as it is.

    Args:
        model: one of our networks; left as it is if anything does not fit.
        source: a file or arrays, as for `load_weights`: torchvision's, OpenMMLab's, HRNet's or GluonCV's names, or
            those of any pose network known here.
        arch: what to call the network in messages.

    Raises:
        PosezooError: the source cannot be read, or does not fit: the error lists what is missing or too much, and
            names the architectures whose backbones it fits.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise PosezooError(f"{arch} has no backbone that could be loaded: model.weights takes a whole network")
    checkpoint = read_checkpoint(source)
    layout = _layout(list(checkpoint.arrays))
    renamed = layout.rename(list(checkpoint.arrays), backbone)
    state = backbone.state_dict()
    kept = {key: array for key, array in checkpoint.arrays.items() if not _is_left_out(renamed[key], state)}
    fresh = _fresh(state, [renamed[key] for key in kept])
    body = Checkpoint({**kept, **{key: state[key] for key in fresh}}, _Body(layout.name, renamed), checkpoint.where)
    try:
        named = match(body, backbone, f"the backbone of {arch}")
    except PosezooError as err:
        raise PosezooError(f"{err}{_advice(checkpoint, layout)}") from None
    with torch.no_grad():
        for key, array in named.items():
            state[key].copy_(array)
    swapped = [key for key in checkpoint.arrays if _is_unshuffled(renamed[key], state)]
    return Taken(layout.name, _count(kept), tuple(BODY + key for key in fresh), tuple(swapped))


def _layout(keys: Sequence[str]) -> Layout:
    """Whose names these are: a classifier's, else a pose network's."""
    return next((layout for layout in imagenet.LAYOUTS if layout.recognise(keys)), None) or layout_of(keys)


def _is_left_out(ours: str, state: Mapping[str, Tensor]) -> bool:
    """Whether an array, by its name among ours, is none that the backbone should have."""
    inner = ours.removeprefix(BODY)
    return inner not in state and (imagenet.is_beyond(ours) or _is_unshuffled(ours, state))


def _is_unshuffled(ours: str, state: Mapping[str, Tensor]) -> bool:
    """Whether the backbone has, in place of this convolution, one behind an unshuffle."""
    plain, behind = _UNSHUFFLED
    return ours.endswith(plain) and ours.removeprefix(BODY).removesuffix(plain) + behind in state


def _fresh(state: Mapping[str, Tensor], given: Sequence[str]) -> list[str]:
    """What the backbone adds to a plain ResNet, of the kinds of which the checkpoint has nothing at all."""
    inner = [key.removeprefix(BODY) for key in given]
    absent = [kind for kind in _ADDED if not any(map(kind.fullmatch, inner))]
    return [key for key in state if any(kind.fullmatch(key) for kind in absent)]


def _advice(checkpoint: Checkpoint, layout: Layout) -> str:
    """The architectures whose backbones the checkpoint fits."""
    fits = [arch for arch in ARCHS if _fits(checkpoint, layout, getattr(outline(arch, 17), "backbone", None))]
    more = f" and {len(fits) - 4} more" if len(fits) > 4 else ""
    return f". It fits the backbone of {', '.join(fits[:4])}{more}" if fits else ""


def _fits(checkpoint: Checkpoint, layout: Layout, backbone: nn.Module | None) -> bool:
    if backbone is None:
        return False
    state, renamed = backbone.state_dict(), layout.rename(list(checkpoint.arrays), backbone)
    kept = {
        renamed[key].removeprefix(BODY): array.shape
        for key, array in checkpoint.arrays.items()
        if not _is_left_out(renamed[key], state) and not key.endswith(_COUNTER)
    }
    fresh = set(_fresh(state, list(kept)))
    return kept == {key: a.shape for key, a in state.items() if key not in fresh and not key.endswith(_COUNTER)}


def load_fitting(model: nn.Module, source: Source, arch: str, joints: int, like: nn.Module | None = None) -> Taken:
    """Set all of `model` that a checkpoint has under the same name and of the same shape, but for what predicts joints.

    Args:
        model: one of our networks.
        source: a file or arrays, as for `load_weights`.
        arch: of the model, a key of `ARCHS`.
        joints: how many it predicts.
        like: a network that the checkpoint fits as a whole, where it is known.

    Raises:
        PosezooError: the source cannot be read, or nothing of it fits.
    """
    checkpoint = read_checkpoint(source)
    if checkpoint.layout is darknet.UNNAMED:
        raise PosezooError(f"{checkpoint.where} has no names to go by: it can only be loaded whole")
    renamed = checkpoint.layout.rename(list(checkpoint.arrays), like or _network_of(checkpoint, model))
    state, last = model.state_dict(), _of_joints(arch, joints)
    named = {renamed[key]: array for key, array in checkpoint.arrays.items()}
    taken = {
        key: named[key]
        for key, mine in state.items()
        if key in named
        and key not in last
        and named[key].shape == mine.shape
        and named[key].is_floating_point() == mine.is_floating_point()
    }
    # BatchNorm knows nothing without its convolution, though it may fit by chance
    taken = {key: array for key, array in taken.items() if _convolution(key) not in state.keys() - taken.keys()}
    if not taken:
        raise PosezooError(f"nothing of {checkpoint.where} ({checkpoint.layout.name} names) fits {arch}")
    check_finite(taken, checkpoint.where)
    with torch.no_grad():
        for key, array in taken.items():
            state[key].copy_(array)
    fresh = tuple(key for key in state if key not in taken and not key.endswith(_COUNTER))
    unused = tuple(key for key in checkpoint.arrays if renamed[key] not in taken)
    return Taken(checkpoint.layout.name, _count(taken), fresh, unused)


def _convolution(key: str) -> str:
    """Of an array of BatchNorm the weight that it goes with, where names tell; of others itself."""
    return re.sub(r"\.bn(\d*)\.\w+$", r".conv\1.weight", key)


def _count(keys: Iterable[str]) -> int:
    return sum(not key.endswith(_COUNTER) for key in keys)


def _network_of(checkpoint: Checkpoint, model: nn.Module) -> nn.Module:
    """A network that the checkpoint fits; the model itself where its names do not depend on it."""
    if checkpoint.layout is not PREFIX_NAMES:
        return model
    arch, joints = next(iter(fitting(checkpoint)), ("", 0))
    return outline(arch, joints) if arch else model


def _of_joints(arch: str, joints: int) -> set[str]:
    """The arrays whose shape depends on how many joints there are."""
    here, other = (outline(arch, count).state_dict() for count in (joints, joints + 1))
    return {key for key, array in here.items() if array.shape != other[key].shape}
