"""A folder that one run has for itself."""

from __future__ import annotations

import errno
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest

from posezoo.errors import PosezooError
from posezoo.lock import LOCK, locked


def test_others_are_kept_out_and_told_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    told = re.escape(f"another evaluation is at work in {folder}: wait for it, or choose another -o")
    with locked(folder, "-o"):
        with pytest.raises(PosezooError, match=f"^{told}$"), locked(folder, "-o", "evaluation"):
            pass
        with locked(folder, "-o", name=".lock.1"):  # another process of the same run
            pass
    with locked(folder, "-o"):
        (folder / "result").write_text("found")
    with locked(folder, "-o"):
        pass
    assert {path.name for path in folder.iterdir() if not path.name.startswith(LOCK)} == {"result"}


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    (there := tmp_path / "there").mkdir()
    for folder in (there, tmp_path / "new", there / "a" / "b"):
        with pytest.raises(PosezooError, match="wrong recipe"), locked(folder, "-o"):
            raise PosezooError("wrong recipe")
    assert there.is_dir() and not (tmp_path / "new").exists() and not (there / "a").exists()


def test_who_waits_for_a_folder_that_goes_has_it_then(tmp_path: Path) -> None:
    folder, inside = tmp_path / "new", threading.Event()

    def first() -> None:
        with locked(folder, "-o"):
            inside.set()
            time.sleep(0.3)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(first)
        assert inside.wait(10)
        with locked(folder, "-o", patience_s=20):
            ended.result()
            (folder / "result").write_text("found")
            with pytest.raises(PosezooError, match="another run is at work"), locked(folder, "-o"):
                pass
    assert (folder / "result").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(PosezooError, match=r"out: it is a file; choose a folder with run\.folder$"):
        with locked(tmp_path / "out", "run.folder"):
            pass
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, number: int
) -> None:
    monkeypatch.setattr("fcntl.flock", raising(OSError(number, "none here")))
    with locked(tmp_path, "-o"), locked(tmp_path, "-o"):
        (tmp_path / "result").write_text("found")
    assert not recwarn.list


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(PosezooError, match=r"cannot write to the folder .*: No space left on device$"):
        with locked(tmp_path, "-o"):
            pass


def raising(error: Exception) -> Any:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    return fails
