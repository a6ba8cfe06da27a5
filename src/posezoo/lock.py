"""A folder for one run alone: two that write to it at once would leave a mixture of both."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.files import make_folder

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, option: str, who: str = "run", name: str = LOCK, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other runs out of a folder; the system lets go of it with the process, however that ends.

    A folder that was made for this and in which nothing was written is removed again. Where the disk knows no locks, as
    some that many machines share do not, nobody is kept out.

    Args:
        folder: made where it does not exist.
        option: that another folder is chosen by, for messages.
        who: what another one would be, for messages.
        name: of the file that is locked, which stays.
        patience_s: how long to wait for another run to let go.

    Raises:
        PosezooError: another run is at work in it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    is_new = not os.path.exists(folder)
    if not is_new and not os.path.isdir(folder):
        raise PosezooError(f"cannot write to {folder}: it is a file; choose a folder with {option}")
    lock = FileLock(folder / name)
    try:
        make_folder(folder)
        lock.acquire(timeout=patience_s)
    except Timeout:
        raise PosezooError(f"another {who} is at work in {folder}: wait for it, or choose another {option}") from None
    except NotImplementedError:
        pass
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise PosezooError(f"cannot write to the folder {folder}: {err.strerror or err}") from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            if is_new and all(each.name == name for each in folder.iterdir()):
                (folder / name).unlink(missing_ok=True)
                folder.rmdir()
