"""The benchmarks that are for machines with a GPU, rehearsed without one: what is seldom run breaks unseen."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from train_fixtures import people

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def rows_of(script: str, output: Path, *more: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *more, "-o", str(output)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_throughput(people: Callable[[str], Path], tmp_path: Path) -> None:
    folder = people("coco17")
    rows = rows_of(
        "training_throughput.py", tmp_path / "a.csv", "simplebaselines_coco_resnet50_256x192_d256x3_adam_lr1e-3",
        "model.arch=mobile_pose_mobilenetv2_1.0", f"data.root={folder}", "data.train.annotations=people.json",
        "data.train.images=.", "optimiser.batch_size=2", "run.device=cpu", "run.workers=1", "--steps=2", "--rounds=1",
        "--stages=3",
    )  # fmt: skip
    found = {row["what"]: row for row in rows}
    for what in ("the loader alone", "the step alone", "both together"):
        assert float(found[what]["ours"]) > 0 and float(found[what]["the zoos' way"]) > 0
    assert found["both together, of the step alone"]["unit"] == "share"


def test_gpu_throughput(tmp_path: Path) -> None:
    rows = rows_of("gpu_throughput.py", tmp_path / "b.csv", "--device=cpu", "--quick", "--no-compile", "--models",
                   "simple_pose_resnet18_v1b")  # fmt: skip
    found = {row["what"]: row for row in rows}
    assert {"matrix product", "network", "device", "pictures", "files"} <= found.keys()
    assert all(float(found[what]["persons_per_second"]) > 0 for what in ("network", "device", "pictures", "files"))
