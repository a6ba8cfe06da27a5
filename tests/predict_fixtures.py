"""Fixtures of the tests of the command line: tiny networks, photographs for them, and the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import Ran
from posezoo import cli
from posezoo.media import write_image
from tiny_networks import detector_network, picture, pose_network


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("networks")
    pose, detector = pose_network(folder / "pose.onnx"), detector_network(folder / "detector.onnx")
    return ["-m", str(pose), "--detector", str(detector), "--device", "cpu"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def runner(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Ran(ended.value.code or 0, out, err)  # type: ignore[arg-type]

    return runner


def photographs(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"p{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        write_image(path, picture(640, 480, [(2, 2), (6, 3), (8, 1)][:n]))
    return paths


def no_leftovers(folder: Path) -> bool:
    return not [p for p in folder.rglob("*") if p.name.startswith(".")]


def errors(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith("error: ")]
