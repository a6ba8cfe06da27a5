"""What a teacher is worth: the same small student with and without one, from few labels.

    python benchmarks/distillation.py --data DIR [--seeds 0 1] [-o results/distillation.csv]

DIR holds people/ (to learn from, and others of it to judge by), coco_dev/ (to judge by) and init/, see
recipes/embedded_pose.toml. The teacher is the embedded pose network, which has learnt from all of people/; the student
has a third of its weights and sees crops of 96x128. Every run takes the same steps, but for one of the labels alone
that takes the processor time that the teacher costs. Students are judged by their last weights, in annotated boxes.
Lines of other seeds and numbers of samples in the CSV stay: seeds can run side by side, a process each.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import platform
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from posezoo.data.coco_style import read_json
from posezoo.files import atomic_path
from posezoo.models.build import build
from posezoo.train.loop import train
from posezoo.train.pose import PoseTask
from posezoo.train.recipe import Recipe
from posezoo.zoo.weights import load_weights

ARCH, SIZE_WH = "mobile_pose_fpn_1.0", [96, 128]
DRAWN = 400  # people an epoch
COLUMNS = ["learnt from", "compared at", "samples", "seed", "judged on", "people", "AP", "AP50", "AP75", "AR"]
COLUMNS += ["CPU seconds"]
Row = dict[str, Any]


def main() -> None:
    """Read the arguments, train, judge, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labelled", type=int, default=60, help="people with labels to learn from")
    parser.add_argument("--unlabelled", type=int, default=600, help="people that the teacher alone speaks of")
    parser.add_argument("--judged", type=int, default=600, help="other people of people/ to judge by")
    parser.add_argument("--epochs", type=int, default=8, help=f"of {DRAWN} people")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--weight",
        type=float,
        default=4.0,
        help="of the distance to the teacher's heatmaps: they are lower and narrower than the labels' Gaussians, and 4 "
        "makes both halves of the loss about as large",
    )
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        files = split(arguments, Path(folder))
        for seed in arguments.seeds:
            for some in runs(arguments, Path(folder), files, seed):
                rows += some
                write(arguments, rows)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(cell(row[column]) for column in COLUMNS))
    Console(width=160).print(table)


def split(arguments: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Files of people with human labels, drawn by chance, one a picture: nobody is in two of them."""
    content = read_json(arguments.data / "people" / "annotations.json")
    entries = [a for a in content["annotations"] if a["labels"] != "teacher" and a["num_keypoints"] >= 8]
    alone = {a["image_id"]: a for a in entries}
    counts = {"labelled": arguments.labelled, "unlabelled": arguments.unlabelled, "judged": arguments.judged}
    chosen = random.Random(0).sample(sorted(alone), sum(counts.values()))
    files, start = {}, 0
    for name, count in counts.items():
        pictures, start = sorted(chosen[start : start + count]), start + count
        files[name] = folder / f"{name}.json"
        images = [image for image in content["images"] if image["id"] in set(pictures)]
        people = [alone[picture] for picture in pictures]
        files[name].write_text(json.dumps({**content, "images": images, "annotations": people}))
        bare = [{**person, "keypoints": [0] * 51, "num_keypoints": 0} for person in people]
        files[f"bare {name}"] = folder / f"bare_{name}.json"
        files[f"bare {name}"].write_text(json.dumps({**content, "images": images, "annotations": bare}))
    return files


def runs(arguments: argparse.Namespace, folder: Path, files: dict[str, Path], seed: int) -> Iterator[list[Row]]:
    """The rows of one run after the other."""
    few, more, epochs = arguments.labelled, arguments.unlabelled, arguments.epochs
    half = few / more  # so that each of the two sources is drawn as often as the other
    labelled, bare = {"annotations": files["labelled"]}, {"annotations": files["bare unlabelled"], "share": half}
    others = {"annotations": files["unlabelled"]}

    def one(name: str, sources: list[Row], weight: float = 0.0, epochs: int = arguments.epochs) -> list[Row]:
        found = run(arguments.data, folder, files["judged"], name, sources, weight, seed, epochs)
        return [{**row, "compared at": arguments.epochs * DRAWN} for row in found]

    alone = one(f"{few} labelled", [labelled])
    yield alone
    taught = one(f"{few} labelled, teacher", [labelled], arguments.weight)
    yield taught
    factor = taught[0]["CPU seconds"] / alone[0]["CPU seconds"]
    yield one(f"{few} labelled, longer", [labelled], epochs=max(epochs + 1, round(epochs * factor)))
    yield one(f"{few + more} labelled", [labelled, others])
    yield one(f"{few} labelled, teacher on {more} more without labels", [labelled, bare], arguments.weight)


def run(
    data: Path, folder: Path, judged: Path, name: str, sources: list[Row], weight: float, seed: int, epochs: int
) -> list[Row]:
    """Train once; one row for each set of people that the student is judged by."""
    data = data.resolve()
    images = data / "people" / "images"
    given: dict[str, Any] = {
        "name": name,
        "model": {"arch": ARCH, "backbone": "init/mobilenetv2_1.0_pose_backbone.npz", "freeze": 16},
        "data": {"root": data, "train": [{**source, "images": images} for source in sources], "least_joints": 0},
        "input": {"size_wh": SIZE_WH, "mean": [0.5] * 3, "std": [0.5] * 3},
        "target": {"sigma": 1.5, "refine": "dark", "joint_weights": True},
        "distill": {"teachers": [{"model": "embedded"}] if weight else [], "heatmap": weight},
        "augment": {"rotation_deg": 40, "colour": 0.5, "shift": 0.05},
        "optimiser": {"lr": 2e-3, "batch_size": 8, "clip": 5, "ema": 0.99},
        "schedule": {"epochs": epochs, "samples_per_epoch": DRAWN, "warmup_steps": 10},
        "run": {"folder": folder / f"{name} {seed}", "seed": seed, "device": "cpu", "workers": 0},
    }
    started = time.process_time()
    made = train(Recipe.model_validate(given)) / "best.safetensors"
    seconds = time.process_time() - started
    model = load_weights(build(ARCH, 17), made).eval()
    rows = []
    for judge, truth, pictures in (
        ("coco_dev", data / "coco_dev" / "annotations.json", data / "coco_dev" / "images"),
        ("people, others", judged, images),
    ):
        source = {"annotations": truth, "images": pictures}
        task = PoseTask(Recipe.model_validate({**given, "data": {**given["data"], "validate": source}}))
        figures = task.validate(model, torch.device("cpu"))
        count = sum(a["num_keypoints"] > 0 for a in read_json(truth)["annotations"] if not a.get("iscrowd"))
        told = {"learnt from": name, "samples": epochs * DRAWN, "seed": seed, "judged on": judge, "people": count}
        rows.append({**told, **figures, "CPU seconds": seconds})
    return rows


def cell(value: Any) -> str:
    """A figure of accuracy with three decimals, seconds with none."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value < 1 else f"{value:.0f}"


def write(arguments: argparse.Namespace, rows: list[Row]) -> None:
    """All lines so far; those of other seeds and numbers of samples stay."""
    if not arguments.output:
        return
    measured = {(str(seed), str(arguments.epochs * DRAWN)) for seed in arguments.seeds}
    facts = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one core, Python {platform.python_version()}",
        "command": (
            f"python benchmarks/distillation.py --labelled {arguments.labelled} --unlabelled {arguments.unlabelled} "
            f"--judged {arguments.judged} --epochs {arguments.epochs} --seeds {' '.join(map(str, arguments.seeds))} "
            f"--weight {arguments.weight:g}"
        ),
    }
    kept: list[Row] = []
    if arguments.output.is_file():
        with arguments.output.open(newline="") as file:
            kept = [line for line in csv.DictReader(file) if (line["seed"], line["compared at"]) not in measured]
    lines = [*kept, *({column: cell(row[column]) for column in COLUMNS} | facts for row in rows)]
    lines.sort(key=lambda line: (int(line["compared at"]), int(line["seed"])))
    with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *facts], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
