"""A reader of MATLAB's MAT-files, as much of them as annotations need: arrays of numbers, text and cells.

Source: "MAT-File Format", The MathWorks, chapter 1 (Level 5 MAT-files). Files come from anywhere: every length is
checked against what is left of the file, what is packed may unpack to `LARGEST` bytes at most in all, and nothing in a
file is ever run.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.errors import PosezooError

LARGEST = 1 << 28  # bytes; the largest annotation file of the seeds has about 2 million
DEEPEST = 8  # cells within cells

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _PACKED = 14, 15
_CELL, _CHAR, _NUMERIC = 1, 4, range(6, 16)


class _Broken(Exception):
    """The bytes are not what the format says."""


@dataclass
class _Reader:
    order: str  # "<" or ">"
    budget: int = LARGEST

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The (type, bytes) of each element of `data`."""
        at = 0
        while at < len(data):
            if len(data) - at < 8:
                if any(data[at:]):
                    raise _Broken("it ends within an element")
                return
            kind, length = struct.unpack_from(self.order + "II", data, at)
            if kind >> 16:  # the short form: type, length and up to four bytes in eight
                kind, length, start, size = kind & 0xFFFF, kind >> 16, at + 4, 8
                if length > 4:
                    raise _Broken("a short element is longer than four bytes")
            else:
                start = at + 8
                size = 8 + (length if kind == _PACKED else -(-length // 8) * 8)
            if start + length > len(data):
                raise _Broken("it is cut short")
            yield kind, data[start : start + length]
            at += size

    def unpack(self, data: memoryview) -> memoryview:
        """What a compressed element holds."""
        engine = zlib.decompressobj()
        try:
            plain = engine.decompress(data, max(self.budget, 1))  # 0 would mean no limit
        except zlib.error as err:
            raise _Broken(str(err)) from None
        if not engine.eof:
            large = bool(engine.unconsumed_tail)
            raise _Broken(f"it unpacks to more than {LARGEST >> 20} MB" if large else "it is cut short")
        self.budget -= len(plain)
        return memoryview(plain)

    def matrix(self, data: memoryview, depth: int = 0) -> tuple[str, Any]:
        """A variable's name and value: an array, a text, a list of such for a cell; None for any other class."""
        if not len(data):
            return "", np.zeros((0, 0))
        parts = self.elements(data)
        flags, shape, name = (next(parts, None) for _ in range(3))
        if flags is None or shape is None or name is None or flags[0] != 6 or len(flags[1]) != 8 or shape[0] != 5:
            raise _Broken("a variable has no head")
        kind = int(self.numbers(*flags)[0]) & 0xFF
        title = bytes(name[1]).decode("latin-1")
        dims = tuple(int(n) for n in self.numbers(*shape))
        if min(dims, default=-1) < 0:
            raise _Broken(f"'{title}' has the shape {dims}")
        if kind == _CELL:
            return title, self.cells(title, dims, parts, depth)
        if kind != _CHAR and kind not in _NUMERIC:
            return title, None
        values = next(parts, None)
        if values is None:
            raise _Broken(f"'{title}' has no values")
        if kind == _CHAR:
            return title, self.text(*values)
        numbers = self.numbers(*values)
        if len(numbers) != math.prod(dims) or len(dims) > DEEPEST:
            raise _Broken(f"'{title}' has {len(numbers)} values for the shape {dims}")
        return title, numbers.reshape(dims if len(numbers) else (0,) * len(dims), order="F")

    def cells(self, title: str, dims: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        if depth >= DEEPEST:
            raise _Broken(f"'{title}' has cells within cells more than {DEEPEST} deep")
        values = [self.matrix(data, depth + 1)[1] for kind, data in parts if kind == _MATRIX]
        if len(values) != math.prod(dims):
            raise _Broken(f"'{title}' has {len(values)} cells for the shape {dims}")
        return values

    def numbers(self, kind: int, data: memoryview) -> np.ndarray:
        if kind not in _NUMBERS:
            raise _Broken(f"there are numbers of type {kind}")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise _Broken("it ends within a number")
        return np.frombuffer(data, dtype)

    def text(self, kind: int, data: memoryview) -> str:
        if kind in _TEXT:
            ending = {"<": "-le", ">": "-be"}[self.order] if kind != 16 else ""
            return bytes(data).decode(_TEXT[kind] + ending, "replace")
        return "".join(chr(c) if 0 <= c < 0x110000 else "\ufffd" for c in self.numbers(kind, data).tolist())


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MAT-file of version 5 or 7, compressed or not.

    Args:
        path: the file. One of version 7.3, which is HDF5, or 4 is refused.

    Returns:
        Arrays with the shape that MATLAB shows; a text (or matrix of letters, column by column) as one string; a cell
        array as a flat list, column by column. Variables of another class (structs, objects, sparse arrays) are None.

    Raises:
        PosezooError: the file cannot be read, is no such file, or is damaged.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise PosezooError(f"{path} has more than {LARGEST >> 20} MB, too much for a file of annotations")
        content = path.read_bytes()
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise PosezooError(f"{path} is not a MATLAB file of version 5 or 7; save it with save(..., '-v7')")
    if struct.unpack_from(order + "H", content, 124)[0] != 0x0100:
        raise PosezooError(f"{path} is a MATLAB file of version 7.3; save it with save(..., '-v7')")
    reader = _Reader(order)
    variables: dict[str, Any] = {}
    try:
        for kind, data in reader.elements(memoryview(content)[128:]):
            if kind == _PACKED:
                kind, data = next(reader.elements(reader.unpack(data)), (0, data))
            if kind == _MATRIX:
                name, value = reader.matrix(data)
                variables[name] = value
    except _Broken as err:
        raise PosezooError(f"{path} is a damaged MATLAB file: {err}") from None
    return variables
