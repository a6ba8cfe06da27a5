"""What the formats share: numbers and JSON, strict in both directions, and a JSON list read entry by entry."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError

CHUNK = 1 << 20  # characters of a long file that are parsed at a time


def parse_json(text: str | bytes | os.PathLike[str], what: str = "JSON") -> tuple[Any, str]:
    """Strictly parsed JSON, and what to call its source in an error.

    Args:
        text: the JSON itself, or the path of a file as a `Path`.
        what: the name of the source where it has no path.

    Raises:
        PosezooError: the file cannot be read, or is not JSON, or has NaN or infinity in it.
    """
    if isinstance(text, os.PathLike):
        what = os.fspath(text)
        try:
            with open(text, encoding="utf-8-sig") as file:
                text = file.read()
        except OSError as err:
            raise PosezooError(f"cannot read {what}: {err.strerror or err}") from None
        except UnicodeDecodeError:
            raise PosezooError(f"{what} is not JSON: not text") from None
    try:
        return json.loads(text, parse_constant=_refuse), what
    except (ValueError, RecursionError) as err:
        raise PosezooError(f"{what} is not valid JSON: {err}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number that JSON knows")


def list_items(path: Path, chunk: int = CHUNK) -> Iterator[Any]:
    """The entries of a JSON list, one after the other: never the whole file is in memory.

    Args:
        path: the file.
        chunk: how many characters to read at a time.

    Raises:
        PosezooError: the file cannot be read, is cut off, or is not a JSON list.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _items(_Ahead(file.read, chunk), path)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    except UnicodeDecodeError:
        raise PosezooError(f"{path} is not JSON: not text") from None


class _Ahead:
    """Text of which a part is there, from `at` on."""

    def __init__(self, read: Any, chunk: int) -> None:
        self._read, self._chunk = read, chunk
        self.text, self.at = "", 0
        self.more()

    def more(self) -> bool:
        """Read on; False at the end. At least as much again as is left, so that a long entry is parsed a few times."""
        left = self.text[self.at :]
        read = self._read(max(self._chunk, len(left)))
        self.text, self.at = left + read, 0
        return bool(read)

    def next(self) -> str:
        """The next character that is no space, not taken; "" at the end."""
        while True:
            self.at = WHITESPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]


def _items(ahead: _Ahead, path: Path) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    if ahead.next() != "[":
        raise PosezooError(f"{path} is not a JSON list" if ahead.next() else f"{path} is empty")
    ahead.at += 1
    count = 0
    while (found := ahead.next()) != "]":
        if count:
            if found != ",":
                raise _broken(path, count, found)
            ahead.at += 1
            found = ahead.next()
        while True:
            try:
                value, end = decoder.raw_decode(ahead.text, ahead.at)
            except (ValueError, RecursionError) as err:
                if isinstance(err, json.JSONDecodeError) and ahead.more():
                    continue
                raise _broken(path, count, found, err) from None
            after = WHITESPACE.match(ahead.text, end).end()
            # else it may be a number of which a part is still to come
            if ahead.text[after : after + 1] in (",", "]") or not ahead.more():
                break
        ahead.at = end
        yield value
        count += 1
    ahead.at += 1
    if ahead.next():
        raise PosezooError(f"{path} is not valid JSON: something follows the list of {count}")


def _broken(path: Path, count: int, found: str, err: Exception | None = None) -> PosezooError:
    if not found or (isinstance(err, json.JSONDecodeError) and err.pos >= len(err.doc.rstrip())):
        return PosezooError(f"{path} is not valid JSON: it is cut off after {count} entries")
    # the place within a part would mislead
    reason = err.msg if isinstance(err, json.JSONDecodeError) else str(err or f"'{found}' where a comma should be")
    return PosezooError(f"{path} is not valid JSON: entry {count}: {reason}")


def json_line(value: Any) -> str:
    """`value` as JSON on one line; text stays readable, save names that are no Unicode, which are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name in some old encoding
        return json.dumps(value, allow_nan=False)
    return text


def number(value: Any, where: str) -> float:
    """`value` as a finite float, or an error that says where it stands."""
    # a float32 must hold it: 1e300 is a number, but not a pixel
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 3e38 or math.isnan(value):
        raise PosezooError(f"{where} is {value!r}, expected a number")
    return float(value)


def numbers(value: Any, count: int | None, where: str) -> list[float]:
    """`value` as a list of `count` finite floats (None: any number of them)."""
    if not isinstance(value, list) or (count is not None and len(value) != count):
        got = f"has {len(value)} values" if isinstance(value, list) else f"is {type(value).__name__}"
        raise PosezooError(f"{where} {got}, expected {'a list' if count is None else f'{count} numbers'}")
    return [number(v, where) for v in value]


def whole(value: Any, where: str, least: int = -(1 << 63)) -> int:
    """`value` as a whole number of 64 bits, `least` or more, or an error that says where it stands."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what some tools make of a column or a tracker's ids
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
        raise PosezooError(f"{where} is {value!r}, expected a whole number")
    return value


def optional(check: Any, value: Any, where: str, *more: Any) -> Any:
    """`check(value, where, ...)`, but None stays None."""
    return None if value is None else check(value, where, *more)


def rounded_xys(xys: NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., 3) x, y and score rounded for a file; x and y may be NaN, for a joint that was not placed.

    Raises:
        PosezooError: a score is not finite.
    """
    values = np.asarray(xys, np.float64)
    for value in values[..., 2][~np.isfinite(values[..., 2])][:1].tolist():
        rounded(value)  # which says what is wrong
    return np.concatenate([values[..., :2].round(2), values[..., 2:].round(4)], axis=-1) + 0.0


def rounded(value: float, digits: int = 2) -> float:
    """Rounded for a file; -0.0 becomes 0.0.

    Raises:
        PosezooError: `value` is not finite, so that no file may hold it.
    """
    if not math.isfinite(value):
        raise PosezooError(f"cannot write {value}: box, score and joint must be finite")
    return round(float(value), digits) + 0.0
