"""PyTorch checkpoints that hold more than arrays, read without running or importing anything that they name.

Training checkpoints keep loggers, configs and NumPy numbers beside the weights, and then PyTorch's own safe reader
refuses the whole file. Allowing it NumPy's types (`torch.serialization.safe_globals`) would not be safe: a pickle may
hand any state to `numpy.dtype.__setstate__`, C code that trusts it. So here a pickle reaches nothing at all: each
class or function it names becomes `Inert`, which swallows whatever is done to it, but for the few that make up a state
dict, and those become plain records of where an array's numbers lie. Only the arrays asked for are then read.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a file from before PyTorch 1.6
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


def _nothing(*args: Any) -> None:
    """Takes anything, does nothing."""


class Inert:
    """Stands for a class or function that a pickle names, for what it makes, and for what that makes."""

    __slots__ = ()  # nothing can be set on it

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """An object without content, whatever it is made of."""
        return object.__new__(cls)

    def __call__(self, *args: Any) -> Inert:
        """What an unknown object gives when called is as unknown."""
        return self

    # what the unpickler calls to fill an object; static, so that the class itself swallows it too
    __setstate__ = __setitem__ = append = extend = add = staticmethod(_nothing)


class _Dict(dict[Any, Any]):
    """Stands for OrderedDict; attributes that a pickle would set on it are dropped."""

    __slots__ = ()
    __setstate__ = staticmethod(_nothing)


class Storage(NamedTuple):
    """Numbers in the file: `length` of them, in the storage `key`, from its element `start`."""

    dtype: torch.dtype
    key: str
    start: int
    length: int


class Stored(NamedTuple):
    """A tensor: a view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Rebuild:
    """Stands for the functions that make a tensor of a storage."""

    __slots__ = ()
    __setstate__ = staticmethod(_nothing)

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *unused: Any) -> Stored | Inert:
        numbers = [offset, *size, *stride]
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            return Inert()
        return Stored(storage, offset, tuple(size), tuple(stride))


class _Unwrap:
    """Stands for the functions that make a parameter of a tensor."""

    __slots__ = ()
    __setstate__ = staticmethod(_nothing)

    def __call__(self, tensor: Any, *unused: Any) -> Any:
        return tensor


_KNOWN = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Unwrap(),
    ("torch._utils", "_rebuild_parameter_with_state"): _Unwrap(),
    **{("torch", name): name for name in _STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every name leads to one of the classes above."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: a name is known here or inert."""
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        """What a pickle says of a storage: ("storage", type, key, device, length) and, in old files, a part of it."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            return Inert()
        _, kind, key, _, length, *part = pid
        start = 0
        if part and part[0] is not None:
            _, start, length = part[0]
        if kind not in _STORAGES or type(key) is not str or not all(type(n) is int and n >= 0 for n in (start, length)):
            raise pickle.UnpicklingError("a storage that PyTorch does not write")
        storage = Storage(_STORAGES[kind], key, start, length)
        self.storages.setdefault(key, storage)
        return storage


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """The next pickle of `file`, and the storages it speaks of.

    Its codes are looked over first: a length beyond the file is found there, before anything is allocated for it.
    """
    start = file.tell()
    for count, (code, argument, _) in enumerate(pickletools.genops(file)):
        # a memo's place far beyond the number of codes would cost memory for all places before it
        if code.name.startswith("EXT") or ("PUT" in code.name and int(argument or 0) > count):
            raise pickle.UnpicklingError(f"a code that PyTorch does not write ({code.name})")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(end - start)))
    return unpickler.load(), unpickler.storages


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
    content, _ = _unpickle(io.BytesIO(archive.read(pickled)))
    return _tensors(find(content), lambda storage: archive.read(f"{root}data/{storage.key}"))


def _load_plain(file: BinaryIO, find: Callable[[Any], Mapping[Any, Any]]) -> dict[Any, Tensor]:
    """Magic number, protocol, machine, content, keys of the storages; then for each its length and raw numbers."""
    for expected in (_MAGIC, _PROTOCOL):
        if _unpickle(file)[0] != expected:
            raise pickle.UnpicklingError("it begins differently")
    _unpickle(file)
    content, storages = _unpickle(file)
    keys, _ = _unpickle(file)
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        (length,) = struct.unpack("<q", file.read(8))
        size = length * storages[key].dtype.itemsize
        places[key] = (file.tell(), size)
        file.seek(max(size, 0), io.SEEK_CUR)

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
        if storage.key not in storages:
            storages[storage.key] = bytearray(read(storage))
        if storage.length:
            start = storage.start * storage.dtype.itemsize
            flat = torch.frombuffer(storages[storage.key], dtype=storage.dtype, count=storage.length, offset=start)
        else:
            flat = torch.empty(0, dtype=storage.dtype)
        tensors[name] = torch.as_strided(flat, stored.size, stored.stride, stored.offset)
    return tensors
