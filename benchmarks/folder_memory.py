"""Memory of `posezoo predict` over a large folder, from its first pictures to its last.

    python benchmarks/folder_memory.py [--pictures 5000] [--images SOURCE ...] [-m MODEL] [-o results/folder_memory.csv]

The folder holds a few photographs, made small, under many names (hard links). Each way of calling predict runs in a
process of its own, which notes the memory that it holds (resident set, Linux) every few pictures. What is said at the
end compares the mean over the last pictures with that over the first: a pipeline that keeps pictures, or whose queues
grow, shows there.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean

import cv2
from rich.console import Console
from rich.table import Table

from posezoo.estimator import Estimator
from posezoo.files import atomic_path
from posezoo.media.images import find_images, read_image, write_image
from posezoo.predict import Request, predict

WAYS = {"--no-images": ("posezoo", False), "with pictures": ("posezoo", True), "--format coco": ("coco", False)}
EVERY = 10  # pictures
WINDOW = 500  # pictures at either end; of short runs, a quarter
LONG_SIDE = 256
Sample = tuple[int, float, float]  # pictures done, seconds since the start, MB
COLUMNS = ["way", "pictures", "seconds", "resident MB"]


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    few = ["examples/astronaut.png", "examples/basketball.png", "examples/grace_hopper.jpg"]
    parser.add_argument("--images", nargs="+", default=few, metavar="SOURCE")
    parser.add_argument("-m", "--model", default="embedded", help="a small one is done sooner, and holds as little")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    found: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "in", arguments.images, arguments.pictures)
        for way in arguments.ways:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found[way] = process.apply(run, (Path(folder), arguments.model, *WAYS[way]))
    window = min(WINDOW, arguments.pictures // 4)
    columns = ("way", f"first {window}, MB", f"last {window}, MB", "more, MB", "most, MB", "pictures/s")
    table = Table(*columns, title=f"resident memory over {arguments.pictures} pictures of {LONG_SIDE} pixels")
    for way, samples in found.items():
        first = mean(mb for done, _, mb in samples if done <= window)
        last = mean(mb for done, _, mb in samples if done > arguments.pictures - window)
        most, speed = max(mb for *_, mb in samples), samples[-1][0] / samples[-1][1]
        table.add_row(way, f"{first:.1f}", f"{last:.1f}", f"{last - first:+.1f}", f"{most:.1f}", f"{speed:.1f}")
    Console(width=120).print(table)
    if arguments.output:
        rows = [[way, done, f"{s:.2f}", f"{mb:.2f}"] for way, samples in found.items() for done, s, mb in samples]
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


def fill(folder: Path, sources: list[str], pictures: int) -> None:
    """Make the folder: links, as predict takes several names of one soft link's target for one picture."""
    originals = []
    for number, path in enumerate(find_images(sources)):
        image = read_image(path)
        scale = LONG_SIDE / max(image.shape[:2])
        originals.append(folder.parent / f"{number}.jpg")
        write_image(originals[-1], cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    folder.mkdir()
    for number in range(pictures):
        os.link(originals[number % len(originals)], folder / f"{number:06d}.jpg")


def run(folder: Path, model: str, format: str, pictures: bool) -> list[Sample]:
    """One way of calling predict, in this process."""
    samples: list[Sample] = []
    started = time.perf_counter()

    def note(done: int, _: int | None) -> None:
        if done % EVERY == 0:
            samples.append((done, time.perf_counter() - started, resident_mb()))

    with tempfile.TemporaryDirectory(dir=folder) as output:
        report = predict(Request([str(folder / "in")], Path(output), format, pictures), partial(Estimator, model), note)
    if report.failed:
        raise SystemExit(f"error: {report.failed[0]['error']}")
    return samples


def resident_mb() -> float:
    """The memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
