"""`load_weights`: put a checkpoint of any zoo into one of our networks, or say exactly why it does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from posezoo.errors import PosezooError
from posezoo.zoo.weights import gluoncv
from posezoo.zoo.weights.read import read_weights

Source = str | os.PathLike[str] | Mapping[str, Any]
_LONGEST_KEY = 512
_COUNTER = "num_batches_tracked"  # BatchNorm's, unused in inference, absent from most zoos' files
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.int32, torch.int64)


@dataclass(frozen=True)
class Layout:
    """How one zoo names its arrays.

    Attributes:
        name: for messages.
        recognise: whether these keys are of this layout.
        rename: the keys of a whole file, in its order, and the network to their names in that network.
    """

    name: str
    recognise: Callable[[Sequence[str]], bool]
    rename: Callable[[Sequence[str], nn.Module], dict[str, str]]


# in this order; what none recognises is taken as ours
LAYOUTS = (
    Layout("GluonCV", gluoncv.is_structural, lambda keys, model: gluoncv.rename(keys)),
    Layout("GluonCV (old)", gluoncv.is_prefix_names, gluoncv.rename_by_order),
)
OURS = Layout("posezoo", lambda keys: True, lambda keys, model: {key: key for key in keys})


def load_weights(model: nn.Module, source: Source) -> nn.Module:
    """Set every weight of `model` from `source`; the model is unchanged if any does not fit.

    Args:
        model: one of our networks.
        source: a file (.params, .pth, .pth.tar, .pt, .safetensors) or {key: array}. Whose names it uses is recognised
            from its keys. Half precision is widened to the model's own.

    Returns:
        `model`.

    Raises:
        PosezooError: the source cannot be read; or keys are missing, unexpected, or of another shape: the error lists
            them, and names an architecture that the source would fit.
    """
    where = "the given arrays" if isinstance(source, Mapping) else os.fspath(source)
    arrays = _plain_keys(_as_tensors(source) if isinstance(source, Mapping) else read_weights(source), where)
    layout = next((one for one in LAYOUTS if one.recognise(list(arrays))), OURS)
    renamed = layout.rename(list(arrays), model)
    state = model.state_dict()
    problems = _problems(arrays, renamed, state)
    if problems:
        fits = [f"{arch} with {joints} joints" if joints else arch for arch, joints in fitting(arrays, layout)]
        advice = f" (it fits {' or '.join(fits)})" if fits else ""
        raise PosezooError(f"{where} ({layout.name} names) does not fit this network{advice}: {'; '.join(problems)}")
    with torch.no_grad():
        for key, array in arrays.items():
            state[renamed[key]].copy_(array)
    return model


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
    """Without what wrappers put before a key: "module." (data parallel), "_orig_mod." (compiled), "arg:", "aux:"."""
    if any(len(key) > _LONGEST_KEY for key in arrays):
        raise PosezooError(f"{where} has names of more than {_LONGEST_KEY} characters: no network's")
    # torch's AveragedModel keeps a counter beside its "module."
    arrays = {key: array for key, array in arrays.items() if key != "n_averaged"}
    keys = list(arrays)
    for prefix in ("module.", "_orig_mod."):
        if keys and all(key.startswith(prefix) for key in keys):
            keys = [key.removeprefix(prefix) for key in keys]
    keys = [key.removeprefix("arg:").removeprefix("aux:") for key in keys]
    if len(set(keys)) != len(keys):
        raise PosezooError(f"{where} has two arrays of one name")
    return dict(zip(keys, arrays.values(), strict=True))


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


class _Undrawn(TorchFunctionMode):
    """Leaves random weights undrawn: on the meta device there is nothing to fill, and pretending to is slow."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@cache
def _outline(arch: str, joints: int) -> nn.Module:
    """The network on the meta device, where it takes no memory."""
    from posezoo.models.build import build

    with torch.device("meta"), _Undrawn():
        return build(arch, joints)


def fitting(arrays: Mapping[str, Tensor], layout: Layout) -> Iterator[tuple[str, int]]:
    """Every (architecture, joints) whose arrays have just these names and shapes; joints is 0 for a detector."""
    from posezoo.models.build import ARCHS

    for arch in ARCHS:
        outline = _outline(arch, 17)
        renamed, state = layout.rename(list(arrays), outline), outline.state_dict()
        if not {key for key in state if not key.endswith(_COUNTER)} <= set(renamed.values()) <= set(state):
            continue
        # the layers whose size follows the number of joints are those that another number changes
        other = _outline(arch, 18).state_dict()
        sizes = {arrays[k].shape[:1] for k, ours in renamed.items() if state[ours].shape != other[ours].shape}
        if len(sizes) > 1 or () in sizes or (0,) in sizes:
            continue
        joints = sizes.pop()[0] if sizes else 0
        if not _problems(arrays, renamed, _outline(arch, joints).state_dict()):
            yield arch, joints
