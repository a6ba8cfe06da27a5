"""Pickles of PyTorch, read without running or importing anything that they name, and without PyTorch.

Each class or function that a pickle names becomes `Inert`, which swallows whatever is done to it, but for the few that
make up a state dict, and those become plain records of where an array's numbers lie.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from typing import Any, BinaryIO, NamedTuple

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a file from before PyTorch 1.6
STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""What numbers lie in, by PyTorch's names, and the bytes of each number."""


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
    """`length` numbers of a `kind` (see `STORAGES`), in the storage `key` of the file, from its element `start`."""

    kind: str
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
    **{("torch", name): name for name in STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every name leads to one of the classes above."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")  # Python 2 has bytes for text
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
        if kind not in STORAGES or type(key) is not str or not all(type(n) is int and n >= 0 for n in (start, length)):
            raise pickle.UnpicklingError("a storage that PyTorch does not write")
        storage = Storage(kind, key, start, length)
        self.storages.setdefault(key, storage)
        return storage


def unpickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
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


class Place(NamedTuple):
    """Where a storage's numbers lie in a file, in bytes."""

    start: int
    size: int


def unpickle_plain(file: BinaryIO) -> tuple[Any, dict[str, Place]]:
    """What a checkpoint from before PyTorch 1.6 holds, and where its storages lie, maybe beyond the end of the file.

    It has a magic number, protocol, machine, content, keys of the storages; then for each its length and raw numbers.

    Raises:
        Exception: of any kind, where the file is damaged or none of PyTorch's; one of `CUT` where it ends too early.
    """
    for expected in (_MAGIC, _PROTOCOL):
        if unpickle(file)[0] != expected:
            raise pickle.UnpicklingError("it begins differently")
    unpickle(file)
    content, storages = unpickle(file)
    keys, _ = unpickle(file)
    places: dict[str, Place] = {}
    for key in keys:
        (length,) = struct.unpack("<q", file.read(8))
        places[key] = Place(file.tell(), length * STORAGES[storages[key].kind])
        file.seek(max(places[key].size, 0), io.SEEK_CUR)
    return content, places


CUT = (EOFError, ValueError, struct.error)
"""What reading a pickle raises at the end of a file that is cut off."""
