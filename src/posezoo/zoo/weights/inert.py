"""PyTorch checkpoints that hold more than arrays, read without running or importing anything that they name.

Training checkpoints keep loggers, configs and NumPy numbers beside the weights, and then PyTorch's own safe reader
refuses the whole file. Allowing it NumPy's types (`torch.serialization.safe_globals`) would not be safe: a pickle may
hand any state to `numpy.dtype.__setstate__`, C code that trusts it. So here a pickle reaches nothing at all (see
`posezoo.zoo.pickles`), and of what it tells only the arrays asked for are then read.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from posezoo.zoo.pickles import Storage, Stored, unpickle, unpickle_plain

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def load(path: Path, find: Callable[[Any], Mapping[Any, Any]]) -> dict[Any, Tensor]:
    """The arrays of a PyTorch checkpoint, zipped (1.6 and later) or not.

    Args:
        path: the file.
        find: picks, from what the file holds, the mapping whose arrays are wanted.

    Returns:
        Those values of the mapping that are arrays.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return _load_zipped(archive, find)
        file.seek(0)
        return _load_plain(file, find)


def _load_zipped(archive: zipfile.ZipFile, find: Callable[[Any], Mapping[Any, Any]]) -> dict[Any, Tensor]:
    """A folder with "data.pkl" and a file of raw numbers for each storage."""
    names = archive.namelist()
    pickled = next(name for name in names if name.rpartition("/")[2] == "data.pkl")
    root = pickled.removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("written on a big-endian machine")
    content, _ = unpickle(io.BytesIO(archive.read(pickled)))
    return _tensors(find(content), lambda storage: archive.read(f"{root}data/{storage.key}"))


def _load_plain(file: BinaryIO, find: Callable[[Any], Mapping[Any, Any]]) -> dict[Any, Tensor]:
    """Pickles, and the raw numbers after them."""
    content, places = unpickle_plain(file)

    def read(storage: Storage) -> bytes:
        start, size = places[storage.key]
        file.seek(start)
        return file.read(size)

    return _tensors(find(content), read)


def _tensors(wanted: Mapping[Any, Any], read: Callable[[Storage], bytes]) -> dict[Any, Tensor]:
    """The arrays of `wanted`, each storage read once."""
    storages: dict[str, bytearray] = {}
    tensors = {}
    for name, stored in wanted.items():
        if not isinstance(stored, Stored):
            continue
        storage = stored.storage
        dtype = _STORAGES[storage.kind]
        if storage.key not in storages:
            storages[storage.key] = bytearray(read(storage))
        if storage.length:
            start = storage.start * dtype.itemsize
            flat = torch.frombuffer(storages[storage.key], dtype=dtype, count=storage.length, offset=start)
        else:
            flat = torch.empty(0, dtype=dtype)
        tensors[name] = torch.as_strided(flat, stored.size, stored.stride, stored.offset)
    return tensors
