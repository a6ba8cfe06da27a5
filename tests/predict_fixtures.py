"""Fixtures of the tests of the command line: tiny networks, and photographs for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Ran
from posezoo.media import write_image
from tiny_networks import detector_network, picture, pose_network


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("networks")
    pose, detector = pose_network(folder / "pose.onnx"), detector_network(folder / "detector.onnx")
    return ["-m", str(pose), "--detector", str(detector), "--device", "cpu"]


def photographs(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"p{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        write_image(path, picture(640, 480, [(2, 2), (6, 3), (8, 1)][:n]))
    return paths


def no_leftovers(folder: Path) -> bool:
    return not [p for p in folder.rglob("*") if p.name.startswith(".")]


def errors(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith("error: ")]
