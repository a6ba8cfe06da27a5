"""Poses to files and back, always by joint name: one module a format, each with `to_json` and `from_json`.

What is written is strict JSON, rounded to 0.01 pixels and 0.0001 of a score, never NaN; what is read is checked, and a
wrong file is an error that has the place and the value. The helpers for both are here.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

from posezoo.errors import PosezooError


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
            with open(text, encoding="utf-8") as file:
                text = file.read()
        except OSError as err:
            raise PosezooError(f"cannot read {what}: {err.strerror or err}") from None
        except UnicodeDecodeError:
            raise PosezooError(f"{what} is not JSON: not text") from None

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number that JSON knows")

    try:
        return json.loads(text, parse_constant=refuse), what
    except (ValueError, RecursionError) as err:
        raise PosezooError(f"{what} is not valid JSON: {err}") from None


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


def rounded(value: float, digits: int = 2) -> float:
    """Rounded for a file; -0.0 becomes 0.0.

    Raises:
        PosezooError: `value` is not finite, so JSON cannot hold it.
    """
    if not math.isfinite(value):
        raise PosezooError(f"cannot write {value} to JSON: box, score and joint must be finite")
    return round(float(value), digits) + 0.0
