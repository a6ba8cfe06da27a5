"""A folder for one run alone: two that write to it at once would leave a mixture of both."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from posezoo.errors import PosezooError
from posezoo.files import make_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, option: str, who: str = "run", name: str = LOCK, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other runs out of a folder; the system lets go of it with the process, however that ends.

    Folders that were made for this and in which nothing was written are removed again. Where the disk knows no locks,
    as some that many machines share do not, nobody is kept out.

    Args:
        folder: made where it does not exist.
        option: that another folder is chosen by, for messages.
        who: what another one would be, for messages.
        name: of the file that is locked, which stays.
        patience_s: how long to wait for another run to let go.

    Raises:
        PosezooError: another run is at work in it, or it cannot be written.
    """
    from filelock import Timeout

    if os.path.exists(folder) and not os.path.isdir(folder):
        raise PosezooError(f"cannot write to {folder}: it is a file; choose a folder with {option}")
    made = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    lock = _lock(folder / name)
    try:
        _acquire(lock, folder, patience_s)
    except Timeout:
        raise PosezooError(f"another {who} is at work in {folder}: wait for it, or choose another {option}") from None
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise PosezooError(f"cannot write to the folder {folder}: {err.strerror or err}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # before it is let go of: who waits for it would hold a file that is gone
            if made and all(each.name == name for each in folder.iterdir()):
                (folder / name).unlink(missing_ok=True)
                for each in made:
                    each.rmdir()
        lock.release()


def _lock(path: Path) -> BaseFileLock:
    """A lock of the system's, never a file whose mere presence is one: nobody would remove that after a kill."""
    from filelock import FileLock

    try:
        return FileLock(path, fallback_to_soft=False)
    except TypeError:  # filelock before 4 has none but the system's
        return FileLock(path)


def _acquire(lock: BaseFileLock, folder: Path, patience_s: float) -> None:
    """Make the folder and get the lock; another run may remove the folder, as it does what it made for nothing."""
    until = time.monotonic() + patience_s
    while True:
        make_folder(folder)
        try:
            lock.acquire(timeout=max(0.0, until - time.monotonic()))
            return
        except FileNotFoundError:
            if time.monotonic() >= until:
                raise
        except NotImplementedError as err:  # filelock before 4, where there are no locks
            raise OSError(errno.ENOSYS, str(err)) from None
