"""Whether something is what it was: files by what is in them, runs by their settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError


def hash_of(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, read in pieces.

    Raises:
        PosezooError: it cannot be read.
    """
    digest = hashlib.new(algorithm)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    return digest.hexdigest()


def digest_of(path: Path, pattern: str = "**/*") -> str:
    """SHA-256 of a file, or of the names and contents of those files in a folder that fit a pattern.

    Raises:
        PosezooError: something in it cannot be read.
    """
    if not path.is_dir():
        return hash_of(path)
    try:
        files = sorted(file for file in path.glob(pattern) if file.is_file())
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    each = "".join(f"{file.relative_to(path)} {hash_of(file)}\n" for file in files)
    return hashlib.sha256(each.encode(errors="surrogateescape")).hexdigest()


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], where: Path, mend: str) -> None:
    """See that an earlier run had the settings of this one.

    Args:
        before: its settings, by the names that a user knows.
        now: those of this run.
        where: what it left behind.
        mend: what to do where they differ.

    Raises:
        PosezooError: it had others; the line names them.
    """
    differ = [
        f"{name} was {_shown(before.get(name))}, now {_shown(value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if differ:
        raise PosezooError(f"{where} is of another run: {'; '.join(differ)}. {mend}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "not given"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
