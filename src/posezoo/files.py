"""Writing that leaves either the whole file or nothing: to a temporary neighbour, then one rename. And globs.

Whether there is such a file as a user names is asked of `os.path`, which says no to a name that none can have; `Path`
raises where it is too long.
"""

from __future__ import annotations

import glob
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from posezoo.errors import PosezooError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        PosezooError: the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    # the name is known before the file exists, so that no Ctrl-C can come between the two and leave it behind
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        make_folder(target.parent)
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(target)
    except OSError as err:
        raise PosezooError(f"cannot write {target}: {err.strerror or err}") from err
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before the work rather than after it whether a file can be written.

    Raises:
        PosezooError: it is a folder, or nothing can be written beside it.
    """
    target = Path(path)
    if target.is_dir():
        raise PosezooError(f"{target} is a folder: name a file in it")
    try:
        make_folder(target.parent)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as err:
        raise PosezooError(f"cannot write {target}: {err.strerror or err}") from None


def make_folder(folder: Path) -> None:
    """Make a folder and those that it is in.

    Raises:
        PosezooError: a file stands where one of them should be.
        OSError: any other reason why it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        taken = next((each for each in (folder, *folder.parents) if each.exists() and not each.is_dir()), folder)
        raise PosezooError(f"cannot write to the folder {folder}: {taken} is a file") from None


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path` as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def matching(pattern: str | os.PathLike[str]) -> list[str]:
    """The paths that a glob matches, `**` in any depth; none where no file can have such a name."""
    try:
        return glob.glob(os.fspath(pattern), recursive=True)
    except ValueError:
        return []
