"""CPU time of deployed networks as a ratio to torch eager in float32: one run, one thread, in turns.

    python benchmarks/deploy_speed.py [--only NAME ...] [--rounds 15] [--files DIR] [-o results/deploy_speed.csv]

The contestants of a network take turns; the figure is the median process CPU time of a batch. "torch eager" is the
module as the zoo builds it, nothing folded and in torch's own memory format. The weights are random, and INT8 is
calibrated with noise and leaves nothing in floating point: that is for speed alone and says nothing of accuracy. Some
ratios have floors; the exit code is 1 where one is missed. The lines of other processors in the CSV stay as they are,
and with `--only` those of other networks; `--files` keeps the weights and the quantised networks for the next run, on
the same machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from posezoo.bench.entrants import alone
from posezoo.bench.measure import Contestant, Timing, race, time_call
from posezoo.bench.random_weights import random_weights
from posezoo.bench.rows import merge_csv
from posezoo.deploy.quantize import SUFFIXES, prepare, quantize
from posezoo.estimator import open_network
from posezoo.terminal import print_table
from posezoo.zoo import Entry, get_entry, get_model

BASE = ("torch eager", "fp32")
RUNTIMES = ("onnx", "openvino")
# (precision, batch size) -> how many times as fast as the base it must be in either runtime
FLOORS: dict[str, dict[tuple[str, int], float]] = {
    "simple_pose_resnet50_v1b.gluoncv_coco_256x192": {("int8", 1): 3.0, ("fp32", 1): 1.45},
    "pose_hrnet_w32.hrnet_coco_256x192": {("int8", 1): 2.8},
    "mobile_pose_mobilenetv2_1.0.gluoncv_coco_256x192": {("int8", 1): 3.3, ("int8", 8): 5.0, ("fp32", 1): 2.2},
    # the rest of the networks that GluonCV's page on INT8 has
    "simple_pose_resnet18_v1b.gluoncv_coco_256x192": {},
    "simple_pose_resnet50_v1d.gluoncv_coco_256x192": {},
    "simple_pose_resnet101_v1b.gluoncv_coco_256x192": {},
    "simple_pose_resnet101_v1d.gluoncv_coco_256x192": {},
}
CALIBRATION, CALIBRATION_BATCH = 4, 4  # batches of noise, and crops in each


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="models, by any name they go by")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--files", type=Path, help="a folder for what is made on the way")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    names = [get_entry(name).name for name in arguments.only or FLOORS]
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with a_folder(arguments.files) as folder:
        for name in names:
            rows += measure(get_entry(name), folder, arguments.rounds)
    show(rows)
    if arguments.output:
        merge_csv(arguments.output, rows)
    sys.exit(any(row["holds"] == "no" for row in rows))


@contextmanager
def a_folder(given: Path | None) -> Iterator[Path]:
    """The folder that is given, made where it does not exist; else one that vanishes."""
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given


def measure(entry: Entry, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A line for every contestant of one network at every batch size, the base first."""
    weights = random_weights(entry, folder)
    module = get_model(entry.name, weights)
    networks = {(r, "fp32"): open_network(entry.name, weights, r, "cpu", 1) for r in ("torch", *RUNTIMES)}
    files = quantised(entry, weights)
    networks |= {(r, "int8"): open_network(file, None, r, "cpu", 1) for r, file in files.items()}
    width, height = entry.input_size_wh
    lines = []
    for size in sorted({1, *(size for _, size in FLOORS.get(entry.name, {}))}):
        batch = torch.randn(size, 3, height, width)
        contestants = {BASE: Contestant(partial(eager, module, batch), time_call)}
        contestants |= {key: alone(*network, size) for key, network in networks.items()}
        timings = dict(zip(contestants, race(list(contestants.values()), rounds, warmup=2), strict=True))
        lines += [line(entry.name, size, *key, timing, timings[BASE]) for key, timing in timings.items()]
    return lines


def line(model: str, size: int, runtime: str, precision: str, timing: Timing, base: Timing) -> dict[str, Any]:
    """What there is to tell of a contestant."""
    floor = FLOORS.get(model, {}).get((precision, size)) if runtime in RUNTIMES else None
    times = base.cpu / timing.cpu
    return {
        "model": model,
        "batch_size": size,
        "runtime": runtime,
        "precision": precision,
        "cpu_ms": round(1e3 * timing.cpu, 3),
        "wall_ms": round(1e3 * timing.wall, 3),
        "spread": "" if timing.spread is None else round(timing.spread, 3),
        "times": round(times, 2),
        "floor": "" if floor is None else floor,
        "holds": "" if floor is None else "yes" if times >= floor else "no",
        "weights": "random",
    }


def quantised(entry: Entry, weights: Path) -> dict[str, Path]:
    """The network in INT8 for each runtime, beside its weights."""
    files = {runtime: weights.with_name(f"{entry.name}.int8{SUFFIXES[runtime]}") for runtime in RUNTIMES}
    if all(file.is_file() for file in files.values()):
        return files
    network = prepare(entry.name, weights)
    for runtime, file in files.items():
        quantize(network, noise(entry), file, runtime=runtime, max_error=None)
    return files


def eager(module: Any, batch: Any) -> None:
    """One forward pass."""
    with torch.inference_mode():
        module(batch)


def noise(entry: Entry) -> Iterator[np.ndarray]:
    """Crops to calibrate with."""
    width, height = entry.input_size_wh
    rng = np.random.default_rng(0)
    for _ in range(CALIBRATION):
        yield rng.integers(0, 256, (CALIBRATION_BATCH, height, width, 3), np.uint8)


def show(rows: list[dict[str, Any]]) -> None:
    """The lines as a table."""
    cells = [
        [
            get_entry(row["model"]).arch,
            *(str(row[key]) for key in ("batch_size", "runtime", "precision")),
            *(f"{row['cpu_ms']:.1f}", f"{row['times']:.2f}", str(row["floor"]), row["holds"]),
        ]
        for row in rows
    ]
    print_table(["model", "batch", "runtime", "precision", "CPU ms", "times", "floor", "holds"], cells)


if __name__ == "__main__":
    main()
