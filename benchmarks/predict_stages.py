"""CPU time of each step of `posezoo predict` on one core.

    python benchmarks/predict_stages.py examples [--rounds 20] [-o results/predict_stages.csv]

Medians of one thread's process CPU time, per picture and per person; the last column is the share of the pose network's
own time. It is what `posezoo benchmark embedded --images examples --threads 1 --stages` prints.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from posezoo.bench.run import Request, run
from posezoo.files import atomic_path

COLUMNS = ["stage", "ms a picture", "ms a person", "share of the network"]


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    report = run(Request([arguments.model], images=arguments.source, threads=1, rounds=arguments.rounds))
    if report.failed:
        parser.error(report.failed[0])
    (row,) = report.rows
    assert row.stages and row.images and row.people, "nobody is in the pictures"
    each = row.people / row.images
    spent = {stage: took.cpu_ms for stage, took in row.stages.items()}
    lines = [[stage, *(f"{v:.3f}" for v in (ms, ms / each, ms / spent["network"]))] for stage, ms in spent.items()]
    table = Table(*COLUMNS, title=f"{row.images} pictures, {row.people} people, {row.model}, {row.runtime}, one thread")
    for line in lines:
        table.add_row(*line)
    Console(width=100).print(table)
    if arguments.output:
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *lines])


if __name__ == "__main__":
    main()
