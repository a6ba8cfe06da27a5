"""The options that judges take beside predictions and annotations, checked before anything is read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from posezoo.errors import PosezooError, unknown_name

_GIVEN = {"predictions", "annotations", "dataset"}  # what every judge is given


def check_options(judge: Callable[..., Any], dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the judge takes them.

    Args:
        judge: whose parameters they are.
        dataset: its name, for messages.
        given: name to value.

    Raises:
        PosezooError: an option that this judge has not, with the nearest one that it has; or a value that cannot be.
    """
    known = {name: str(p.annotation) for name, p in inspect.signature(judge).parameters.items() if name not in _GIVEN}
    for option in given:
        if option not in known:
            raise unknown_name(f"option of {dataset}", option, known)
    return {option: _checked(option, value, known[option]) for option, value in given.items()}


def _checked(option: str, value: Any, kind: str) -> Any:
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise PosezooError(f"{option} must be true or false, but is {value!r}")
    if option == "crowd_index":
        borders = list(map(_number, value)) if isinstance(value, list | tuple) else []
        if value is None or (len(borders) == 2 and 0 <= borders[0] < borders[1] <= 1):
            return None if value is None else tuple(borders)
        raise PosezooError(f"{option} must be two numbers in 0..1 that rise, such as [0.1, 0.8], but is {value!r}")
    number = _number(value)
    if math.isfinite(number) and (number > 0 or option == "offset"):
        return number
    wanted = "a finite number" if option == "offset" else "a number above 0"
    raise PosezooError(f"{option} must be {wanted}, but is {value!r}")


def _number(value: Any) -> float:
    """NaN for what is none."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan
