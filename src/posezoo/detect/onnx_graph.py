"""What an ONNX file does, read from the file itself: the operators of its graph, without the onnx package.

A session says which inputs and outputs a graph has, not what happens between them; and of two detectors with the same
outputs, that tells them apart. The file is a protocol buffer: `model.graph` is its field 7, `graph.node` and
`graph.input` fields 1 and 11, `node.input` and `node.op_type` fields 1 and 4.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from posezoo.errors import PosezooError

Bytes = memoryview
_GRAPH, _NODE, _NODE_INPUT, _NODE_KIND = 7, 1, 1, 4
_VARINT, _LONG, _BLOCK, _SHORT = 0, 1, 2, 5  # how a field is written


@dataclass(frozen=True)
class Graph:
    """The operators of a graph.

    Attributes:
        kinds: of all, such as "Conv".
        first: of those that take an input of the graph.
    """

    kinds: frozenset[str]
    first: frozenset[str]


def read_graph(path: Path, inputs: set[str]) -> Graph:
    """The operators in a file.

    Args:
        path: an .onnx file.
        inputs: the names of its graph's inputs.

    Raises:
        PosezooError: it is no whole ONNX file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = memoryview(mapped)
        try:
            return _graph(content, inputs)
        except (IndexError, ValueError, UnicodeDecodeError):
            raise PosezooError(f"{path} is not a whole ONNX file") from None
        finally:
            content.release()


def _graph(content: Bytes, inputs: set[str]) -> Graph:
    kinds, first = set(), set()
    for graph in _blocks(content, _GRAPH):
        for node in _blocks(graph, _NODE):
            (kind,) = [_text(block) for block in _blocks(node, _NODE_KIND)]
            kinds.add(kind)
            if not inputs.isdisjoint([_text(block) for block in _blocks(node, _NODE_INPUT)]):
                first.add(kind)
    return Graph(frozenset(kinds), frozenset(first))


def _text(block: Bytes) -> str:
    return bytes(block).decode()


def _blocks(message: Bytes, wanted: int) -> Iterator[Bytes]:
    """The fields of a message that have this number and are blocks of bytes; all others are stepped over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        written = key & 7
        if written == _VARINT:
            _, at = _varint(message, at)
            continue
        if written == _BLOCK:
            length, at = _varint(message, at)
        elif written in (_LONG, _SHORT):
            length = 8 if written == _LONG else 4
        else:
            raise ValueError("an unknown kind of field")
        if at + length > len(message):
            raise ValueError("a field beyond the end")
        if written == _BLOCK and key >> 3 == wanted:
            yield message[at : at + length]
        at += length


def _varint(message: Bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
