"""CPU time of cutting and normalising a crop, as a share of the network's.

    python benchmarks/crop_share.py [FILE ...] [--quantize NAME ...] [--images SOURCE ...] [-o results/crop_share.csv]

FILE is what `posezoo quantize` or `posezoo export` made; a name after --quantize is quantised first, on the crops of
the pictures, for ONNX Runtime and for OpenVINO. The people that the embedded detector finds in a picture are cut out
and normalised together, as the estimator does it, and given to the network one by one; where it normalises by itself
(--uint8) it gets the crops as they are. Process CPU time of one thread for each person, medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posezoo.bench.rows import merge_csv
from posezoo.crop import box_to_affine, crop_images, normalise
from posezoo.detect import get_detector
from posezoo.errors import PosezooError
from posezoo.estimator import NetworkSpec, open_network
from posezoo.media.images import find_images, read_image

People = tuple[NDArray[np.uint8], NDArray[np.float32]]  # a picture, and their boxes (N, 4)
COLUMNS = ["model", "runtime", "precision", "crop, ms", "normalise, ms", "network, ms", "share of the network"]


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="networks as posezoo quantises or exports them")
    parser.add_argument("--quantize", nargs="+", default=[], metavar="NAME", help="models of the zoo to quantise first")
    parser.add_argument("--images", nargs="+", default=["examples"], metavar="SOURCE")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    if not arguments.files and not arguments.quantize:
        parser.error("give a FILE, or a NAME after --quantize")
    cv2.setNumThreads(1)
    try:
        pictures = list(find_people(arguments.images))
        with tempfile.TemporaryDirectory() as folder:
            files = [*arguments.files, *quantized(arguments.quantize, pictures, Path(folder))]
            rows = [measure(file, pictures, arguments.rounds) for file in files]
    except PosezooError as err:
        raise SystemExit(f"error: {err}") from None
    people = sum(len(boxes) for _, boxes in pictures)
    table = Table(*COLUMNS, title=f"{people} people in {len(pictures)} pictures, for each person, one thread")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)
    if arguments.output:
        merge_csv(
            arguments.output, [dict(zip(COLUMNS, row, strict=True)) for row in rows], ("model", "runtime", "processor")
        )


def find_people(sources: list[str]) -> Iterator[People]:
    """The pictures in which the embedded detector finds somebody."""
    detector = get_detector("embedded", "auto", "cpu", 1)
    for path in find_images(sources):
        image = read_image(path)
        boxes = detector([image])[0]
        if len(boxes):
            yield image, boxes.xyxy


def quantized(names: list[str], pictures: list[People], folder: Path) -> Iterator[str]:
    """Files of these models in INT8, calibrated on the people's crops."""
    for name in names:
        from posezoo.deploy.quantize import quantize

        spec = open_network(name, threads=1)[0]
        for runtime, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
            file = folder / f"{name}{suffix}"
            quantize(name, (cut(spec, *people) for people in pictures), file, runtime=runtime)
            yield str(file)


def cut(spec: NetworkSpec, image: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The crops, (N, h, w, 3)."""
    to_crop = box_to_affine(boxes_xyxy, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    return crop_images(image, to_crop, spec.input_size_wh)


def measure(file: str, pictures: list[People], rounds: int) -> list[str]:
    """A row of the table."""
    spec, runtime = open_network(file, threads=1, device="cpu")
    width, height = spec.input_size_wh
    planes = np.empty((max(len(boxes) for _, boxes in pictures), 3, height, width), np.float32)
    spent: dict[str, list[float]] = {"crop": [], "normalise": [], "network": []}  # a round each

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent[stage][-1] += time.process_time() - start

    for _ in range(rounds + 1):
        for times in spent.values():
            times.append(0.0)
        for image, boxes in pictures:
            with timed("crop"):
                batch: np.ndarray = cut(spec, image, boxes)
            if spec.input == "planes":
                with timed("normalise"):
                    batch = normalise(batch, spec.mean, spec.std, spec.channels, out=planes[: len(boxes)])
            for row in range(len(boxes)):
                with timed("network"):
                    runtime(batch[row : row + 1])
    people = sum(len(boxes) for _, boxes in pictures)
    # the first round warms up
    crop_ms, normalise_ms, network_ms = (1e3 * median(times[1:]) / people for times in spent.values())
    milliseconds = [f"{value:.3f}" for value in (crop_ms, normalise_ms, network_ms)]
    share = f"{(crop_ms + normalise_ms) / network_ms:.4f}"
    return [Path(file).stem, runtime.name, runtime.precision, *milliseconds, share]


if __name__ == "__main__":
    main()
