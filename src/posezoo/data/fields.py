"""Kinds of values that recipes have: files, and what can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator


def at_home(value: Any) -> Any:
    """A path as text or number; "~" is the home, which a shell does not fill in behind `key=`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | Path) or not str(value).startswith("~"):
        return value
    try:
        return type(value)(Path(value).expanduser())
    except RuntimeError:  # nobody of that name: then it is a file's
        return value


def empty_is_none(value: Any) -> Any:
    """`model.weights=` takes back what a row says."""
    return None if isinstance(value, str) and value == "" else value


File = Annotated[Path, BeforeValidator(at_home)]
NoText = Annotated[str | None, BeforeValidator(empty_is_none)]
NoFile = Annotated[File | None, BeforeValidator(empty_is_none)]
