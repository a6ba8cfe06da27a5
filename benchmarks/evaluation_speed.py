"""CPU time of judging keypoints beside pycocotools, hotcoco and xtcocotools, on made-up people and poses.

    python benchmarks/evaluation_speed.py [--rounds 2] [--xtcocotools PYTHON] [-o results/evaluation_speed.csv]

COCO val2017's size: 5000 pictures, 11,004 people in 2693 of them (42 of 100 without a label, a few crowds), 20 poses a
picture. The contestants take turns, round after round; the figure is the least process CPU time (of all threads) of
each. "From arrays" is the evaluation alone: pycocotools has its annotations and results loaded, and is not charged for
it. "From lists" starts with the list of predictions. Every figure of every contestant must equal posezoo's bit for bit.

xtcocotools needs numpy 1: give the interpreter of an environment made by `pip install 'numpy<2' xtcocotools`. Without
one, whole bodies are judged beside pycocotools alone, as one set of 133 joints.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from posezoo.evaluate.average_precision import KEYPOINT_KEYS, Found, Truth, average_precision
from posezoo.evaluate.oks import evaluate
from posezoo.evaluate.predictions import PART_FIELDS
from posezoo.files import atomic_path
from posezoo.skeletons import get_skeleton

Figures = dict[str, float]
Contestant = Callable[[], tuple[float, Figures]]
PICTURES, WITH_PEOPLE, PEOPLE, POSES_EACH = 5000, 2693, 11004, 20
PART_ENDS = (17, 23, 91, 112, 133)
COLUMNS = ["task", "poses", "contestant", "CPU seconds", "times posezoo's", "identical"]

# run by the other interpreter: files of the truth and of the rest -> CPU seconds and figures
XTCOCOTOOLS = """
import contextlib, io, json, sys, time
import numpy as np
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval
given = json.load(open(sys.argv[2]))
sigmas, start, figures = np.array(given["sigmas"]), 0, {}
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    truth = COCO(sys.argv[1])
    began = time.process_time()
    found = truth.loadRes(given["predictions"])
    for part, end in zip(given["parts"], given["ends"]):
        judge = COCOeval(truth, found, "keypoints_" + part, sigmas[start:end], use_area=True)
        judge.evaluate(), judge.accumulate(), judge.summarize()
        figures[part] = judge.stats.tolist()
        start = end % len(sigmas)
    spent = time.process_time() - began
print(json.dumps([spent, figures]))
"""


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pictures")
    parser.add_argument("--whole-body-scale", type=float, default=0.2, help="share of the pictures for whole bodies")
    parser.add_argument("--xtcocotools", type=Path, help="Python that has xtcocotools")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    rows = keypoints(arguments.scale, arguments.rounds)
    rows += whole_bodies(arguments.whole_body_scale, arguments.rounds, arguments.xtcocotools)
    table = Table(*COLUMNS, title=f"least of {arguments.rounds} rounds")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    if arguments.output:
        with atomic_path(arguments.output) as path, path.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


def make(scale: float, joints: int) -> tuple[Truth, Found]:
    """People, and poses of whom 7 in 10 are near somebody."""
    rng = np.random.default_rng(2017)
    pictures, with_people, people = (round(scale * n) for n in (PICTURES, WITH_PEOPLE, PEOPLE))
    image = np.sort(rng.integers(0, with_people, people))
    boxes = np.column_stack([rng.uniform(0, 400, (people, 2)), rng.lognormal(4, 0.8, (people, 2))]).round(2)
    keypoints = (boxes[:, None, :2] + rng.random((people, joints, 2)) * boxes[:, None, 2:]).round()
    crowd = rng.random(people) < 0.02
    labelled = rng.random((people, joints)) < rng.uniform(0.2, 1, (people, 1))
    labelled[crowd | (rng.random(people) < 0.42)] = False
    areas = boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.7, people)
    truth = Truth(image, keypoints, labelled, areas, boxes, crowd, crowd | ~labelled.any(axis=1))
    pose_image = np.repeat(np.arange(pictures), POSES_EACH)
    first, last = (np.searchsorted(image, pose_image, side) for side in ("left", "right"))
    near = (last > first) & (rng.random(len(pose_image)) < 0.7)
    whom = first + rng.integers(0, np.maximum(last - first, 1))
    corners, sizes = rng.uniform(0, 400, (len(pose_image), 1, 2)), rng.lognormal(4, 0.8, (len(pose_image), 1, 2))
    poses = corners + rng.random((len(pose_image), joints, 2)) * sizes
    blur = 0.15 * rng.random((near.sum(), 1, 1)) ** 2 * np.sqrt(areas[whom[near]])[:, None, None]
    poses[near] = keypoints[whom[near]] + rng.normal(0, 1, (near.sum(), joints, 2)) * blur
    poses = poses.round(2)
    scores = (rng.random(len(poses)) * np.where(near, 1, 0.7)).round(3)
    x, y = poses[..., 0].copy(), poses[..., 1].copy()
    body = slice(None) if joints == 17 else slice(17)
    pose_areas = np.ptp(x[:, body], axis=1) * np.ptp(y[:, body], axis=1)
    return truth, Found(pose_image, poses, scores, pose_areas)


def to_lists(truth: Truth, found: Found) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as an annotation file's contents and a list of predictions."""
    labels = np.concatenate([truth.keypoints_xy, 2.0 * truth.labelled[..., None]], axis=2) * truth.labelled[..., None]
    annotations = [
        {"id": n + 1, "image_id": int(truth.image[n]), "category_id": 1, "bbox": truth.boxes_xywh[n].tolist(),
         "area": float(truth.areas[n]), "iscrowd": int(truth.crowd[n]), "keypoints": labels[n].ravel().tolist(),
         "num_keypoints": int(truth.labelled[n].sum())}
        for n in range(len(truth.image))
    ]  # fmt: skip
    poses = np.concatenate([found.keypoints_xy, np.ones_like(found.keypoints_xy[..., :1])], axis=2)
    predictions = [
        {"image_id": int(image), "category_id": 1, "keypoints": pose.ravel().tolist(), "score": float(score)}
        for image, pose, score in zip(found.image, poses, found.scores, strict=True)
    ]
    images = [{"id": n} for n in range(int(found.image.max()) + 1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}, predictions


def timed(judge: Callable[[], Figures]) -> Contestant:
    """CPU seconds and figures of one call."""

    def call() -> tuple[float, Figures]:
        began = time.process_time()
        figures = judge()
        return time.process_time() - began, figures

    return call


def pycocotools(content: dict[str, Any], predictions: list[dict[str, Any]], sigmas: Any, lists: bool) -> Contestant:
    """pycocotools, charged for loading the results or not."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def call() -> tuple[float, Figures]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {"info": {}, **copy.deepcopy(content)}
            truth.createIndex()
            given = copy.deepcopy(predictions)
            began = time.process_time()
            found = truth.loadRes(given)
            began = began if lists else time.process_time()
            judge = COCOeval(truth, found, "keypoints")
            judge.params.kpt_oks_sigmas = sigmas
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            spent = time.process_time() - began
        return spent, dict(zip(KEYPOINT_KEYS, judge.stats.tolist(), strict=True))

    return call


def hotcoco(content: dict[str, Any], predictions: list[dict[str, Any]], sigmas: Any) -> Figures:
    """hotcoco, which takes keypoints from lists only."""
    from hotcoco import COCO, COCOeval

    truth = COCO({"info": {}, **content})
    judge = COCOeval(truth, truth.load_res(predictions), "keypoints")
    judge.params.kpt_oks_sigmas = sigmas.tolist()
    judge.evaluate()
    judge.accumulate()
    judge.summary_lines()
    return dict(zip(KEYPOINT_KEYS, (float(v) for v in judge.stats), strict=True))


def race(task: str, poses: int, contestants: dict[str, Contestant], rounds: int) -> list[list[str]]:
    """Rows of the table; the first contestant is the measure of the others."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    figures: dict[str, Figures] = {}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds, figures[name] = contestant()
            spent[name].append(seconds)
    ours = next(iter(contestants))
    rows = []
    for name in contestants:
        shared = [key for key in figures[name] if key in figures[ours]]
        same = all(figures[name][key] == figures[ours][key] for key in shared)
        assert shared and same, f"{task}: {name} has {figures[name]}, {ours} {figures[ours]}"
        ratio = min(spent[name]) / min(spent[ours])
        rows.append([task, str(poses), name, f"{min(spent[name]):.3f}", f"{ratio:.1f}", f"{len(shared)} figures"])
    return rows


def keypoints(scale: float, rounds: int) -> list[list[str]]:
    """COCO's 17 joints, from arrays and from lists."""
    sigmas = get_skeleton("coco17").oks_sigmas
    truth, found = make(scale, 17)
    content, predictions = to_lists(truth, found)
    arrays: dict[str, Contestant] = {
        "posezoo": timed(lambda: average_precision(truth, found, sigmas)),
        "pycocotools": pycocotools(content, predictions, sigmas, lists=False),
    }
    lists: dict[str, Contestant] = {
        "posezoo": timed(lambda: evaluate(predictions, content, "coco")),
        "hotcoco": timed(lambda: hotcoco(content, predictions, sigmas)),
        "pycocotools": pycocotools(content, predictions, sigmas, lists=True),
    }
    rows = race("17 joints, from arrays", len(predictions), arrays, rounds)
    return rows + race("17 joints, from lists", len(predictions), lists, rounds)


def whole_bodies(scale: float, rounds: int, interpreter: Path | None) -> list[list[str]]:
    """133 joints, all parts and the whole, from lists."""
    sigmas = get_skeleton("wholebody133").oks_sigmas
    truth, found = make(scale, 133)
    content, predictions = to_lists(truth, found)
    contestants: dict[str, Contestant] = {"posezoo": timed(lambda: evaluate(predictions, content, "wholebody133"))}
    if interpreter is None:
        boxed = [{**p, "bbox": [0, 0, area, 1]} for p, area in zip(predictions, found.areas.tolist(), strict=True)]
        contestants["pycocotools, the whole only"] = pycocotools(content, boxed, sigmas, lists=True)
        return race("133 joints in 5 parts and whole, from lists", len(predictions), contestants, rounds)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("truth.json", "given.json")]
        files[0].write_text(json.dumps({**content, "annotations": [*map(apart, content["annotations"])]}))
        given = {"predictions": [*map(apart, predictions)], "sigmas": sigmas.tolist()}
        files[1].write_text(json.dumps({**given, "parts": [*PART_FIELDS, "wholebody"], "ends": [*PART_ENDS, 133]}))

        def call() -> tuple[float, Figures]:
            command = [str(interpreter), "-c", XTCOCOTOOLS, *map(str, files)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            spent, stats = json.loads(done.stdout)
            parts = {f"{part}/{k}": v for part in stats for k, v in zip(KEYPOINT_KEYS, stats[part], strict=True)}
            return spent, parts

        contestants["xtcocotools"] = call
        return race("133 joints in 5 parts and whole, from lists", len(predictions), contestants, rounds)


def apart(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation or prediction with its 133 joints in the five lists of COCO-WholeBody."""
    values, starts = entry["keypoints"], (0, *PART_ENDS)
    fields = zip(PART_FIELDS.values(), starts, PART_ENDS, strict=False)
    return {**entry, **{field: values[3 * start : 3 * end] for field, start, end in fields}}


if __name__ == "__main__":
    main()
