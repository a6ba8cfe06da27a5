"""Darknet's `.weights` files, and the names that PyTorch ports of its detectors give their arrays.

A `.weights` file is a head and then numbers without names: whose they are, only the network's order of layers says.
Head: int32 major, minor and revision of darknet, then how many images it has seen (int64 from version 0.2 on, int32
before). Then float32, little endian: of each convolution the BatchNorm's bias, weight, mean and variance, or without
BatchNorm the convolution's bias; then the convolution's weight.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from posezoo.errors import PosezooError
from posezoo.zoo.weights.layout import KeyMap

if TYPE_CHECKING:
    from torch import nn

NUMBERS = "darknet's numbers"  # the one name under which all numbers of a file are read
_NEWEST = 1000  # a greater version number is darknet's own mark of transposed arrays, or the file is another kind's
_NORM = ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.weight")
_PLAIN = ("conv.bias", "conv.weight")

# the first port's names, which others took over
LAYOUTS: tuple[KeyMap, ...] = (
    KeyMap(
        "PyTorch YOLOv3",
        ("module_list.0.conv_0.weight",),
        (("module_list.{i}.conv_{i}", "layers.{i}.conv"), ("module_list.{i}.batch_norm_{i}", "layers.{i}.bn")),
    ),
)


class _Unnamed:
    """The layout of a file's numbers before they are split."""

    name = "darknet"

    def recognise(self, keys: Sequence[str]) -> bool:
        return list(keys) == [NUMBERS]

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        return {key: key for key in keys}


UNNAMED = _Unnamed()


def read_numbers(path: str | os.PathLike[str]) -> Tensor:
    """All numbers of a `.weights` file, (N,) float32.

    Raises:
        PosezooError: the file cannot be read, or is not laid out as above.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    if len(data) < 16:
        raise PosezooError(f"{path} is no darknet weights file: {len(data)} bytes are less than its head")
    major, minor, revision = struct.unpack("<3i", data[:12])
    if not all(0 <= number < _NEWEST for number in (major, minor, revision)):
        raise PosezooError(f"{path} is no darknet weights file: it begins with version {major}.{minor}.{revision}")
    head = 20 if major * 10 + minor >= 2 else 16
    if len(data) < head or (len(data) - head) % 4:
        raise PosezooError(f"{path} is not a whole darknet weights file: {len(data)} bytes end within a number")
    # a copy: PyTorch shares no read-only memory
    return torch.from_numpy(np.frombuffer(data, "<f4", offset=head).astype(np.float32))


def order(model: nn.Module) -> list[str]:
    """The keys of `model` in the order of a `.weights` file; empty where it is no darknet network."""
    from posezoo.models.darknet import Darknet

    if not isinstance(model, Darknet):
        return []
    state = model.state_dict()
    parts = {i: _NORM if f"layers.{i}.bn.weight" in state else _PLAIN for i in range(len(model.layers))}
    return [key for i, names in parts.items() for name in names if (key := f"layers.{i}.{name}") in state]


def count(model: nn.Module) -> int:
    """How many numbers a `.weights` file of `model` holds; 0 where it is no darknet network."""
    state = model.state_dict()
    return sum(state[key].numel() for key in order(model))


def problem(numbers: Tensor, model: nn.Module) -> str | None:
    """Why `numbers` are not those of `model`, or None where they may be."""
    wanted = count(model)
    if not wanted:
        return "a darknet file has numbers without names, which only a darknet network can tell apart"
    if (more := len(numbers) - wanted) == 0:
        return None
    difference = f"{more} are left over" if more > 0 else f"{-more} are missing"
    return f"it has {len(numbers)} numbers where the network takes {wanted}: {difference}"


def split(numbers: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """`numbers`, of which there is no `problem`, under the names of `model`."""
    keys, state = order(model), model.state_dict()
    parts = torch.split(numbers, [state[key].numel() for key in keys])
    return {key: part.view(state[key].shape) for key, part in zip(keys, parts, strict=True)}
