"""What every test may ask for: the command, and the shared folder of fixtures and photographs, where there is one."""

from __future__ import annotations

import copy
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Ran
from posezoo import cli

REPOSITORY = Path(__file__).resolve().parents[1]

# OpenCV asks for it once, when a test's own clip is made as well as when the command reads one
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# a million objects outlive the whole run; looking through them again and again took a seventh of its time
gc.disable()


def pytest_collection_finish() -> None:
    """From here on there is garbage; what is there now is none."""
    _list_translations_once()
    # pytest listens to every logger that keeps its messages to itself, six times a test, and torch has forty of them
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "torch":
            logger.propagate = True
    gc.freeze()
    gc.enable()


def _list_translations_once() -> None:
    """torch's ONNX exporter lists its translations anew for every network: most of the time that a tiny one takes."""
    if "onnxscript" not in sys.modules:
        return
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        whole = functools.cache(ONNXRegistry.from_torchlib)
    except (ImportError, AttributeError):
        return  # another torch: only slower

    def of_their_own(**opset: int) -> ONNXRegistry:
        registry = copy.copy(whole(**opset))
        registry.functions = {target: [*found] for target, found in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(of_their_own)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of peers' outputs and annotated photographs; the test is skipped where it is absent."""
    folder = Path(os.environ.get("POSEZOO_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared fixtures, and {folder} does not exist (set POSEZOO_SHARED)")
    return folder


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    """The folder of what each zoo's own code computed; makes its `fill` module importable."""
    folder = shared / "parity"
    if not folder.is_dir():
        pytest.skip(f"needs the parity fixtures, and {folder} does not exist")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches for the network; those of downloads have a server of their own."""
    monkeypatch.setenv("POSEZOO_OFFLINE", "1")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`posezoo` in the test's own folder, with all that the process prints, also what libraries do past Python."""
    monkeypatch.chdir(tmp_path)

    def runner(*words: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return Ran(int(ended.value.code or 0), *capfd.readouterr())

    return runner
