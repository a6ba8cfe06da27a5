"""Reader of MXNet's `.params` files (a list of arrays, little endian), every variant, without MXNet.

A file: u64 0x112, u64 0, u64 count, the arrays, u64 number of names (0 or count), the names. Every size is compared
with what is left of the file before anything is allocated, so a damaged or hostile file costs an error and no memory.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError

MAGIC = struct.pack("<Q", 0x112)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_BFLOAT16 = 12
_DTYPES = {
    0: np.float32,
    1: np.float64,
    2: np.float16,
    3: np.uint8,
    4: np.int32,
    5: np.int8,
    6: np.int64,
    7: np.bool_,
    8: np.int16,
    9: np.uint16,
    10: np.uint32,
    11: np.uint64,
    _BFLOAT16: np.uint16,
}
_MAX_DIMENSIONS = 32  # MXNet's own limit
_SMALLEST_ARRAY = 4  # bytes: the oldest layout's "no array"


def read_params(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """The arrays of a `.params` file, in the order of the file.

    Args:
        path: the file.

    Returns:
        Name to array; "0", "1", ... where the file has no names. bfloat16 becomes float32, every other type stays. What
        the file marks as holding no array is left out.

    Raises:
        PosezooError: the file cannot be read, is cut short, or is not laid out as above.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path).file()
    except ValueError:
        raise PosezooError(f"{path} is empty") from None
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None


class _Reader:
    """A cursor over the file's bytes."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def fail(self, why: str) -> PosezooError:
        where = f"at byte {self.at} of {len(self.data)}"
        return PosezooError(f"{self.path} is not a whole MXNet .params file: {why} ({where})")

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes."""
        left = len(self.data) - self.at
        if size > left:
            raise self.fail(f"{what} needs {size} bytes, {left} are left")
        start, self.at = self.at, self.at + size
        return self.data[start : self.at]

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}"), what))

    def count(self, smallest: int, what: str) -> int:
        """A u64 count of things of at least `smallest` bytes each."""
        (count,) = self.numbers("Q", f"the number of {what}")
        if count > (len(self.data) - self.at) // smallest:
            raise self.fail(f"{count} {what} cannot fit")
        return count

    def file(self) -> dict[str, NDArray]:
        if self.take(16, "the head") != MAGIC + bytes(8):
            raise self.fail("it begins differently")
        arrays = [self.array() for _ in range(self.count(_SMALLEST_ARRAY, "arrays"))]
        names = [self.name() for _ in range(self.count(8, "names"))] or [str(n) for n in range(len(arrays))]
        if len(names) != len(arrays):
            raise self.fail(f"{len(names)} names for {len(arrays)} arrays")
        if len(set(names)) != len(names):
            raise self.fail("two arrays have one name")
        if self.at != len(self.data):
            raise self.fail("something follows the last name")
        return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}

    def name(self) -> str:
        (size,) = self.numbers("Q", "a name's length")
        try:
            return self.take(size, "a name").decode()
        except UnicodeDecodeError:
            raise self.fail("a name is not UTF-8") from None

    def array(self) -> NDArray | None:
        """The next array, or None where the file says that there is none."""
        shape = self.shape()
        if shape is None:
            return None
        _device, _device_id, flag = self.numbers("iii", "an array's type")
        if flag not in _DTYPES:
            raise self.fail(f"unknown type of array {flag}")
        dtype = np.dtype(_DTYPES[flag]).newbyteorder("<")
        raw = self.take(math.prod(shape) * dtype.itemsize, f"an array of shape {shape}")
        try:
            array = np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))
        except ValueError:  # zero elements, but other sizes beyond what numpy can address
            raise self.fail(f"impossible shape {shape}") from None
        if flag == _BFLOAT16:  # the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def shape(self) -> tuple[int, ...] | None:
        """The next array's shape; what says "no array" differs between the layouts."""
        (magic,) = self.numbers("I", "an array")
        if magic in (_V2, _V3):
            storage, dimensions = self.numbers("ii", "an array's shape")
            if storage != 0:
                raise self.fail("sparse arrays are no network's weights")
            none = -1 if magic == _V3 else 0
            layout = "q"
        elif magic == _V1:
            (dimensions,) = self.numbers("I", "an array's shape")
            none, layout = 0, "q"
        else:  # the oldest layout: the first word is itself the number of dimensions
            dimensions, none, layout = magic, 0, "I"
        if dimensions == none:
            return None
        if not 0 <= dimensions <= _MAX_DIMENSIONS:
            raise self.fail(f"an array of {dimensions} dimensions")
        shape = self.numbers(layout * dimensions, "an array's shape")
        if min(shape, default=0) < 0:
            raise self.fail(f"negative size in shape {shape}")
        return shape
