"""The beginning of a run: its folder is its own as long as it is at work, and no longer."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from loop_fixtures import _tiny_networks, folder_is, people, recipe, state_of  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.lock import LOCK  # noqa: E402
from posezoo.train import begin, run  # noqa: E402
from test_loop_devices import in_two_processes  # noqa: E402
from tiny_runs import write_recipe  # noqa: E402

AT_WORK = r"another run is at work in .*: wait for it, or choose another run\.folder$"
# a run that stays in its first step, with a process that reads for it
STAYS = """
import sys, time
from pathlib import Path
from posezoo.models.build import ARCHS
from posezoo.train import run
from posezoo.train.pose import PoseTask
from tiny_runs import TINY

def stays(*_):
    Path(sys.argv[1]).touch()
    time.sleep(600)

ARCHS.update(TINY)
PoseTask.loss = stays
run(sys.argv[2], sys.argv[3:])
"""


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_runs_do_not_share_a_folder(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, note = tmp_path / "run", tmp_path / "at work"
    how = [folder_is(folder), "run.workers=1"]
    with python("-c", STAYS, str(note), str(recipe), *how) as first:
        wait_for(note.exists)
        half = folder / ".last.0123abcd.pt"
        half.write_bytes(b"half")  # as it might be writing
        monkeypatch.setattr(begin, "_LETS_GO_S", 0.1)
        for resume in (False, True):
            with pytest.raises(PosezooError, match=AT_WORK):
                run(recipe, how, resume)
        assert half.exists() and not (folder / "last.pt").exists()
        monkeypatch.undo()
        first.send_signal(signal.SIGKILL)
        first.wait()
        run(recipe, how, resume=True)
    assert state_of(folder)["step"] == 4 and not half.exists()


def test_what_is_refused_leaves_no_folder(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(PosezooError, match="nothing to resume"):
        run(recipe, [folder_is(tmp_path / "run")], resume=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").write_text("a file")
    with pytest.raises(PosezooError, match=r"cannot write to .*run: it is a file; choose a folder with run\.folder"):
        run(recipe, [folder_is(tmp_path / "run")])


@pytest.mark.slow
def test_every_process_of_a_run_hears_that_the_folder_is_taken(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tmp_path)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "posezoo", "train", str(path), "run.device=cpu"]
        for code, told in in_two_processes(command):
            assert code == 2, told
            assert told.count("another run is at work in") == 1, told
