"""CPU time of each stage of `posezoo predict` on one core.

    python benchmarks/predict_stages.py examples [--rounds 20] [-o results/predict_stages.csv]

Process CPU time of one thread, median over the rounds, per picture and per person; the last column is the share of the
pose network's own time. The stages are called one by one, exactly as the estimator calls them.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from posezoo import Estimator, Poses, draw_poses
from posezoo.crop import box_to_affine, crop_images, invert_affine, normalise, transform_points
from posezoo.files import atomic_path
from posezoo.formats.posezoo import to_json
from posezoo.media.images import find_images, read_image
from posezoo.suppress import oks_nms, rescore

STAGES = ("read", "detect", "crop", "network", "decode", "suppress", "draw", "encode JPEG", "JSON")


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = [path for source in arguments.sources for path in find_images(source)]
    estimator = Estimator(arguments.model, threads=1)
    rounds = [one_round(estimator, paths) for _ in range(arguments.rounds + 1)][1:]  # the first one warms up
    people = rounds[0]["people"]
    network = median(r["network"] for r in rounds)
    rows = []
    for stage in STAGES:
        spent = median(r[stage] for r in rounds)
        row = [stage, 1e3 * spent / len(paths), 1e3 * spent / max(people, 1), spent / network]
        rows.append([row[0], *(f"{value:.3f}" for value in row[1:])])
    columns = ["stage", "ms a picture", "ms a person", "share of the network"]
    table = Table(*columns, title=f"{len(paths)} pictures, {people:.0f} people, {estimator!r}, one thread")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    if arguments.output:
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])


def one_round(estimator: Estimator, paths: list[Path]) -> dict[str, float]:
    """Seconds of CPU a stage over all pictures, and how many people there were."""
    spent: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Any, *arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        result = function(*arguments, **options)
        spent[stage] += time.process_time() - start
        return result

    spec = estimator.spec
    for path in paths:
        image = timed("read", read_image, path)
        boxes = timed("detect", estimator.detector, [image])[0]
        affine = timed("crop", box_to_affine, boxes.xyxy, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
        crops = timed("crop", crop_images, image, affine, spec.input_size_wh)
        planes = timed("crop", normalise, crops, spec.mean, spec.std, spec.channels)
        heatmaps = timed("network", estimator.runtime, planes)[0]
        crop_xy, scores = timed("decode", spec.codec.decode, heatmaps)
        keypoints_xy = timed("decode", lambda a, xy: transform_points(invert_affine(a), xy), affine, crop_xy)
        poses = Poses(keypoints_xy, scores, boxes.xyxy, boxes.scores, spec.skeleton)
        areas = np.prod(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], axis=1)
        sigmas = spec.skeleton.oks_sigmas
        timed("suppress", oks_nms, poses.keypoints_xy, rescore(boxes.scores, scores), areas, sigmas)
        drawn = timed("draw", draw_poses, image, poses)
        timed("encode JPEG", cv2.imencode, ".jpg", drawn)
        timed("JSON", to_json, poses, image=str(path), size_wh=image.shape[1::-1])
        spent["people"] += len(poses)
    return spent


if __name__ == "__main__":
    main()
