"""`load_weights`: put a checkpoint of any zoo into one of our networks, or say exactly why it does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from posezoo.errors import PosezooError
from posezoo.zoo.weights import alphapose, darknet, gluoncv, hourglass, hrnet, mmpose
from posezoo.zoo.weights.layout import KeyMap, Layout
from posezoo.zoo.weights.read import read_weights

if TYPE_CHECKING:
    from posezoo.zoo import Entry

Source = str | os.PathLike[str] | Mapping[str, Any]
_LONGEST_KEY = 512
_COUNTER = "num_batches_tracked"  # BatchNorm's, unused in inference, absent from most zoos' files
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.int32, torch.int64)
# what data parallel, compiled and (as Princeton's) trained networks put before every key
_WRAPPERS = ("module.", "_orig_mod.", "model.")
# what averaged models count beside their "module.": PyTorch's and MMEngine's
_AVERAGE_COUNTERS = ("n_averaged", "steps")
# MMPose 1.x may keep the numbers of its config here; ours are the entry's
_PREPROCESSING = ("data_preprocessor.mean", "data_preprocessor.std")


# in this order; what none recognises is taken as ours
LAYOUTS: tuple[Layout, ...] = (
    gluoncv.STRUCTURAL,
    gluoncv.PREFIX_NAMES,
    *mmpose.LAYOUTS,
    *alphapose.LAYOUTS,
    *hourglass.LAYOUTS,
    *hrnet.LAYOUTS,
    *darknet.LAYOUTS,
    darknet.UNNAMED,
)
OURS = KeyMap("posezoo", (), ())


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A source's arrays, under its own names.

    Attributes:
        arrays: name to tensor.
        layout: whose names these are.
        where: the source, for messages.
    """

    arrays: Mapping[str, Tensor]
    layout: Layout
    where: str


def load_weights(model: nn.Module, source: Source) -> nn.Module:
    """See `posezoo.zoo.load_weights`."""
    named = match(read_checkpoint(source), model)
    state = model.state_dict()
    with torch.no_grad():
        for key, array in named.items():
            state[key].copy_(array)
    return model


def read_checkpoint(source: Source) -> Checkpoint:
    """The weights of a source, without what training keeps beside them, and whose names they have.

    Raises:
        PosezooError: the source cannot be read.
    """
    where = "the given arrays" if isinstance(source, Mapping) else os.fspath(source)
    arrays = _plain_keys(_as_tensors(source) if isinstance(source, Mapping) else read_weights(source), where)
    return Checkpoint(arrays, layout_of(list(arrays)), where)


def layout_of(keys: Sequence[str]) -> Layout:
    """Whose names `keys`, of a whole file, are."""
    return next((layout for layout in LAYOUTS if layout.recognise(keys)), OURS)


def match(checkpoint: Checkpoint, model: nn.Module, name: str = "this network") -> dict[str, Tensor]:
    """The checkpoint's arrays under their names in `model`, in the order of the checkpoint.

    Args:
        checkpoint: the arrays.
        model: one of our networks.
        name: what to call it in messages.

    Raises:
        PosezooError: they are not the whole of `model` and no more; as for `load_weights`.
    """
    arrays, layout = checkpoint.arrays, checkpoint.layout
    if layout is darknet.UNNAMED:
        numbers = arrays[darknet.NUMBERS]
        if problem := darknet.problem(numbers, model):
            raise PosezooError(f"{checkpoint.where} does not fit {name}{_advice(checkpoint)}: {problem}")
        named = darknet.split(numbers, model)
        check_finite(named, checkpoint.where)
        return named
    renamed, state = layout.rename(list(arrays), model), model.state_dict()
    if problems := _problems(arrays, renamed, state):
        advice = _advice(checkpoint)
        if layout is OURS and not advice and arrays and not set(arrays) & set(state):
            known = ", ".join(dict.fromkeys(each.name for each in LAYOUTS))
            raise PosezooError(
                f"{checkpoint.where} holds no network known here: its names ({_shorten(list(arrays))}) are neither "
                f"posezoo's nor of {known}"
            )
        raise PosezooError(
            f"{checkpoint.where} ({layout.name} names) does not fit {name}{advice}: {'; '.join(problems)}"
        )
    check_finite(arrays, checkpoint.where)
    return {renamed[key]: array for key, array in arrays.items()}


def check_finite(arrays: Mapping[str, Tensor], where: str) -> None:
    """See that all numbers are finite as float32, in which networks compute.

    Raises:
        PosezooError: some are not; the error lists their arrays.
    """
    if wrong := [key for key, array in arrays.items() if not _is_finite(array)]:
        what = "1 array is" if len(wrong) == 1 else f"{len(wrong)} arrays are"
        raise PosezooError(
            f"{where}: {what} not finite ({_shorten(wrong)}): it was saved after a training had diverged, or is damaged"
        )


def _is_finite(array: Tensor) -> bool:
    """Whether all numbers are finite as float32; those that only count always are."""
    if not array.is_floating_point():
        return True
    numbers = array.detach().float()
    # a sum with one that is not finite is not finite either, and takes a tenth of the time of a look at each
    return math.isfinite(numbers.sum().item()) or bool(torch.isfinite(numbers).all())


def _advice(checkpoint: Checkpoint) -> str:
    """Which networks the checkpoint would fit, and which models have them; empty where none does."""
    fits = []
    for arch, joints in fitting(checkpoint):
        names = [entry.name for entry in entries_of(arch, joints)]
        fits.append(describe(arch, joints) + (f": {_shorten(names)}" if names else ""))
    return f" (it fits {'; or '.join(fits)})" if fits else ""


def describe(arch: str, joints: int) -> str:
    """A network in messages."""
    return f"{arch} with {joints} joints" if joints else arch


def entries_of(arch: str, joints: int) -> list[Entry]:
    """The zoo's entries of this architecture that predict so many joints (0 for a detector)."""
    from posezoo.skeletons import get_skeleton
    from posezoo.zoo import get_entry, list_models
    from posezoo.zoo.entry import TASKS

    entries = [get_entry(name) for task in TASKS for name in list_models(task=task)]
    same = [entry for entry in entries if entry.arch == arch]
    return [e for e in same if (len(get_skeleton(e.skeleton).joints) if e.skeleton else 0) == joints]


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """A mapping's values as tensors."""
    tensors = {}
    for key, array in arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
            # PyTorch shares no read-only memory and knows native byte order only
            array = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
        if not isinstance(key, str) or not isinstance(array, Tensor):
            raise PosezooError(f"weights must map names to arrays, but {key!r} is {type(array).__name__}")
        tensors[key] = array
    return tensors


def _plain_keys(arrays: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Without what wrappers put before their keys, and without what is no weight."""
    if any(len(key) > _LONGEST_KEY for key in arrays):
        raise PosezooError(f"{where} has names of more than {_LONGEST_KEY} characters: no network's")
    arrays = {key: array for key, array in arrays.items() if key not in _AVERAGE_COUNTERS}
    keys = list(arrays)
    while prefix := next((p for p in _WRAPPERS if keys and all(key.startswith(p) for key in keys)), None):
        keys = [key.removeprefix(prefix) for key in keys]
    keys = [key.removeprefix("arg:").removeprefix("aux:") for key in keys]
    if len(set(keys)) != len(keys):
        raise PosezooError(f"{where} has two arrays of one name")
    plain = dict(zip(keys, arrays.values(), strict=True))
    # MMCV's averaging keeps, when it saves, the last step's weights in such buffers, and the averages under the names
    last_step = {"ema_" + key.replace(".", "_") for key in keys}
    return {key: array for key, array in plain.items() if key not in _PREPROCESSING and key not in last_step}


def _problems(arrays: Mapping[str, Tensor], renamed: Mapping[str, str], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `arrays` from being the whole of `state`; empty where nothing does."""
    given: dict[str, list[str]] = {}
    for key in arrays:
        given.setdefault(renamed[key], []).append(key)
    missing = [key for key in state if key not in given and not key.endswith(_COUNTER)]
    unexpected = [key for ours, keys in given.items() for key in keys if ours not in state]
    doubled = [key for ours, keys in given.items() for key in keys[1:] if ours in state]
    wrong_shape, wrong_type = [], []
    for ours, (key, *_) in given.items():
        if ours not in state:
            continue
        array, wanted = arrays[key], state[ours]
        if array.shape != wanted.shape:
            wrong_shape.append(f"{key} {tuple(array.shape)} instead of {tuple(wanted.shape)}")
        elif array.dtype not in (_FLOATS if wanted.is_floating_point() else _COUNTS) or not _is_plain(array):
            wrong_type.append(f"{key} {array.dtype}")
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "given twice": doubled,
        "of another shape": wrong_shape,
        "of another type": wrong_type,
    }
    return [f"{len(keys)} {what} ({_shorten(keys)})" for what, keys in found.items() if keys]


def _is_plain(array: Tensor) -> bool:
    """Whether `array` is an ordinary dense one that holds values."""
    return array.layout == torch.strided and not array.is_meta


def _shorten(keys: Sequence[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def fitting(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """Every (architecture, joints) that takes just these arrays; joints is 0 for a detector."""
    from posezoo.models.build import ARCHS, outline
    from posezoo.models.darknet import ARCHS as DARKNETS
    from posezoo.zoo.costs import arrays_of_archs

    arrays, layout = checkpoint.arrays, checkpoint.layout
    if layout is darknet.UNNAMED:
        numbers = arrays[darknet.NUMBERS]
        yield from ((arch, 0) for arch in DARKNETS if not darknet.problem(numbers, outline(arch, 0)))
        return
    count, counts = sum(not key.endswith(_COUNTER) for key in arrays), arrays_of_archs()
    for arch in ARCHS:
        if counts.get(arch, count) != count:
            continue  # known without building it, which takes long for all
        model = outline(arch, 17)
        state = model.state_dict()
        wanted = {key for key in state if not key.endswith(_COUNTER)}
        if len(wanted) != count:
            continue
        renamed = layout.rename(list(arrays), model)
        if not wanted <= set(renamed.values()) <= set(state):
            continue
        sizes = _joints(checkpoint, renamed, arch)
        if len(sizes) > 1 or 0 in sizes:
            continue
        joints = sizes.pop() if sizes else 0
        if not _problems(arrays, renamed, outline(arch, joints).state_dict()):
            yield arch, joints


def _joints(checkpoint: Checkpoint, renamed: Mapping[str, str], arch: str) -> set[int]:
    """How many joints the arrays are made for: the sizes that another number of joints changes in the network."""
    from posezoo.models.build import outline

    first, second = (outline(arch, joints).state_dict() for joints in (17, 18))
    return {
        size
        for key, ours in renamed.items()
        if ours in first
        for size, a, b in zip(checkpoint.arrays[key].shape, first[ours].shape, second[ours].shape, strict=False)
        if a != b
    }


def nearest(checkpoint: Checkpoint) -> tuple[str, int]:
    """The (architecture, joints) that has most in common with a checkpoint which fits none."""
    from posezoo.models.build import ARCHS, outline
    from posezoo.models.darknet import ARCHS as DARKNETS
    from posezoo.zoo.costs import arrays_of_archs

    if checkpoint.layout is darknet.UNNAMED:
        count = len(checkpoint.arrays[darknet.NUMBERS])
        return min(DARKNETS, key=lambda arch: abs(darknet.count(outline(arch, 0)) - count)), 0
    keys = [key for key in checkpoint.arrays if not key.endswith(_COUNTER)]
    counts = arrays_of_archs()

    def at_most(arch: str) -> int:
        count = counts.get(arch, len(keys))
        return 2 * min(count, len(keys)) - count

    def common(arch: str) -> int:
        model = outline(arch, 17)
        state = {key: value for key, value in model.state_dict().items() if not key.endswith(_COUNTER)}
        renamed = checkpoint.layout.rename(keys, model)
        shapes = [(checkpoint.arrays[key].shape, state[ours].shape) for key, ours in renamed.items() if ours in state]
        return 2 * sum(theirs == ours for theirs, ours in shapes) - len(state)

    arch, most = "", -math.inf
    for other in sorted(ARCHS, key=at_most, reverse=True):
        if at_most(other) <= most:
            break  # neither it nor those after it can have more, and to build every network takes long
        if (shared := common(other)) > most:
            arch, most = other, shared
    sizes = _joints(checkpoint, checkpoint.layout.rename(keys, outline(arch, 17)), arch) - {0}
    return arch, sizes.pop() if len(sizes) == 1 else 17


def identify(source: Source) -> list[tuple[str, int]]:
    """Every (architecture, joints) that a checkpoint fits, by its names and shapes; joints is 0 for a detector.

    Several may: what has no weights, such as a stride, does not show in a checkpoint.

    Raises:
        PosezooError: the source cannot be read.
    """
    return list(fitting(read_checkpoint(source)))
