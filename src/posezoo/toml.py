"""TOML on every supported Python: the standard library's reader, or its twin on 3.10."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posezoo.errors import PosezooError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def load(path: Path | Traversable) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        PosezooError: the file is missing, or is not TOML; the message has the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PosezooError(f"no such file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise PosezooError(f"{path} is not valid TOML: {err}") from None
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None


def value(text: str) -> Any:
    """One TOML value, as in `3`, `[1, 2]`, `true` or `"name"`; anything else is taken as the text it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
