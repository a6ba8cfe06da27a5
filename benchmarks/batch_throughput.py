"""Throughput of `posezoo batch` against one `posezoo predict` process, and what one picture costs.

    python benchmarks/batch_throughput.py [--pictures 2000] [--images SOURCE ...] [--workers 2] \
        [-o results/batch_throughput.csv]

The folder holds a few photographs under many names (hard links), and a tar shard the same. Each way is one process with
one thread for every network, as a user starts it: its time from start to end, and its own pictures a second, which
leave out the start of Python, of Ray and of the networks for predict, and of Python and Ray for batch. The rest of a
row is what a million or a billion pictures cost on as many cores as one likes: seconds of a worker, bytes read and
bytes written a picture.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from posezoo.files import atomic_path
from posezoo.media.images import find_images

COLUMNS = (
    "way",
    "workers",
    "pictures",
    "people",
    "seconds in all",
    "pictures/s",
    "worker seconds a picture",
    "bytes read a picture",
    "bytes written a picture",
)


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    few = ["examples/astronaut.png", "examples/basketball.png", "examples/grace_hopper.jpg"]
    parser.add_argument("--images", nargs="+", default=few, metavar="SOURCE")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fill(folder, arguments.images, arguments.pictures, shards=2 * arguments.workers)
        rows.append(predict(folder))
        for workers in dict.fromkeys((1, arguments.workers)):
            rows.append(batch(folder, "in", f"batch, folder, {workers}", workers))
        rows.append(batch(folder, "shards", f"batch, tar shards, {arguments.workers}", arguments.workers))
    table = Table(*COLUMNS, title=f"{arguments.pictures} pictures, {os.cpu_count()} cores")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=160).print(table)
    if arguments.output:
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


def fill(folder: Path, sources: list[str], pictures: int, shards: int) -> None:
    """Make the folder `in` of links, and the folder `shards` of as many pictures in tar shards."""
    originals = find_images(sources)
    (folder / "in").mkdir()
    (folder / "shards").mkdir()
    copies = []
    for number, path in enumerate(originals):
        copies.append(folder / f"{number}{path.suffix}")
        copies[-1].write_bytes(path.read_bytes())
    for number in range(pictures):
        copy = copies[number % len(copies)]
        os.link(copy, folder / "in" / f"{number:07d}{copy.suffix}")
    for shard in range(shards):
        with tarfile.open(folder / "shards" / f"{shard:05d}.tar", "w", dereference=True) as archive:
            for number in range(shard, pictures, shards):
                copy = copies[number % len(copies)]
                archive.add(copy, f"{number:07d}{copy.suffix}")


def posezoo(folder: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """The seconds that a command takes, and its summary."""
    command = [sys.executable, "-m", "posezoo", *arguments, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started, json.loads(done.stdout)


def predict(folder: Path) -> list[Any]:
    """One process, one thread for the networks; the files that it writes are a JSON file a picture."""
    seconds, said = posezoo(folder, "predict", "in", "--no-images", "-o", "predicted", "--threads", "1")
    images = said["images"]
    read, written = size(folder / "in"), size(folder / "predicted")
    cost = f"{said['seconds'] / images:.5f}"
    return [
        "predict, folder",
        1,
        images,
        said["people"],
        f"{seconds:.1f}",
        f"{said['images_per_second']:.2f}",
        cost,
        round(read / images),
        round(written / images),
    ]


def batch(folder: Path, source: str, way: str, workers: int) -> list[Any]:
    """One run on Ray, workers of one thread."""
    output = f"out-{source}-{workers}"
    seconds, said = posezoo(folder, "batch", source, "-o", output, "--workers", str(workers))
    images, now = said["images"], said["this_run"]
    written = sum(size(folder / output / name) for name in ("people", "images", "errors"))
    return [
        way,
        workers,
        images,
        said["people"],
        f"{seconds:.1f}",
        f"{now['images_per_second']:.2f}",
        f"{now['worker_seconds'] / images:.5f}",
        round(now["bytes_read"] / images),
        round(written / images),
    ]


def size(folder: Path) -> int:
    """Of the files in a folder, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


if __name__ == "__main__":
    main()
