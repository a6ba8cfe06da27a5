"""Changes that make a good file a bad one: cut, flipped, spliced, with odd numbers and words in it."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Sequence

_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[A-Za-z_]+|[^\sA-Za-z0-9"_]')
_ODD_WORDS = (
    b"", b"null", b"true", b"false", b"{}", b"[]", b"[[]]", b"[{}]", b'""', b'"x"', b'"\\ud800"', b'"coco17"', b"0",
    b"-1", b"1", b"0.5", b"1e308", b"-1e308", b"1e999", b"NaN", b"nan", b"-Infinity", b"inf", b"9" * 20, b"9" * 400,
    b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b'"', b",", b";", b":", b"\n", b"\r", b"\0", b"\xff", b"=", b"[yolo]",
    b"\xef\xbb\xbf", b"1_0", "٣".encode(), b'"a"' * 50, b"[1, 2, 3, 4]", b"[0, 0, 0]", b"/", b"9223372036854775808",
)  # fmt: skip
_ODD_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
)


def mutate(data: bytes, others: Sequence[bytes], text: bool, rng: random.Random) -> bytes:
    """`data` with one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice(_TEXT_CHANGES if text and rng.random() < 0.8 else _BYTE_CHANGES)
        data = change(data, others, rng)
    return data


def _cut(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3) if data else 0):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _place(data: bytes, rng: random.Random) -> int:
    """More often near the begin, where lengths stand."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.4 else len(data))


def _length(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Some bytes become a number such as a length has that is wrong."""
    if not data:
        return data
    at, code = _place(data, rng), rng.choice("BHHIIIIQQ")
    number = (rng.choice(_ODD_NUMBERS) + rng.randint(-1, 1)) % (1 << 8 * struct.calcsize(f"<{code}"))
    word = struct.pack(rng.choice("<>") + code, number)
    return data[:at] + word + data[at + len(word) :]


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    start, end = sorted((rng.randrange(len(other) + 1), rng.randrange(len(other) + 1)))
    return data[: rng.randrange(len(data) + 1)] + other[start:end] + data[rng.randrange(len(data) + 1) :]


def _drop(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randint(1, 16) :]


def _word(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    words = list(_WORD.finditer(data))
    if not words:
        return data
    chosen = rng.choice(words)
    return data[: chosen.start()] + rng.choice(_ODD_WORDS) + data[chosen.end() :]


def _other_word(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    words, more = list(_WORD.finditer(data)), _WORD.findall(rng.choice(others))
    if not words or not more:
        return data
    chosen = rng.choice(words)
    return data[: chosen.start()] + rng.choice(more) + data[chosen.end() :]


def _value(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A value of JSON, maybe a whole list or object, becomes something else, and the file stays JSON."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _word(data, others, rng)
    places: list[tuple[dict | list, str | int]] = []
    waiting = [content]
    while waiting:
        each = waiting.pop()
        inside = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for key, value in inside:
            places.append((each, key))
            waiting.append(value)
    if not places:
        return _word(data, others, rng)
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]  # type: ignore[arg-type]
    else:
        deep: object = []
        for _ in range(rng.choice((2, 100, 900))):
            deep = [deep]
        odd = (
            None,
            True,
            {},
            [],
            [[]],
            [{}],
            "",
            "x",
            "\ud800",
            0,
            -1,
            1.5,
            1e308,
            float("nan"),
            10**400,
            deep,
            holder,
        )
        holder[key] = rng.choice(odd)  # type: ignore[index]
    try:
        return json.dumps(content).encode()
    except (ValueError, RecursionError):  # it holds itself
        return _word(data, others, rng)


_BYTE_CHANGES = (_cut, _flip, _length, _length, _splice, _drop)
_TEXT_CHANGES = (_word, _word, _other_word, _value, _value, _value)
