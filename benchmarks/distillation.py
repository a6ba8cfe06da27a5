"""What a teacher is worth: the same small student with and without one, on the same few photographs.

    python benchmarks/distillation.py --data DIR [-o results/distillation.csv]

DIR holds people/ (to learn from, and others of it to judge by), coco_dev/ (to judge by) and init/, see
recipes/embedded_pose.toml. The teacher is the embedded pose network, which has learnt from all of people/; the student
is a third of its size, sees crops of 96x128, and learns from a few hundred people. It is judged by its last weights.
The labels alone are also learnt for as many more rounds as take the processor time that the teacher costs.
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
COLUMNS = ("learnt from", "epochs", "seed", "judged on", "people", "AP", "AP50", "AP75", "AR", "CPU seconds")


def main() -> None:
    """Read the arguments, train, judge, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=200, help="to learn from")
    parser.add_argument("--judged", type=int, default=600, help="other people of people/ to judge by")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--weight", type=float, default=1.0, help="of the distance to the teacher's heatmaps")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = split(arguments.data, Path(folder), arguments.people, arguments.judged)
        for seed in range(arguments.seeds):
            alone = run(arguments.data, Path(folder), files, 0.0, seed, arguments.epochs)
            taught = run(arguments.data, Path(folder), files, arguments.weight, seed, arguments.epochs)
            factor = taught[0]["CPU seconds"] / alone[0]["CPU seconds"]
            longer = max(arguments.epochs + 1, round(arguments.epochs * factor))
            rows += alone + taught + run(arguments.data, Path(folder), files, 0.0, seed, longer)
            write(arguments, rows)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(cell(row[column]) for column in COLUMNS))
    Console(width=160).print(table)


def split(data: Path, folder: Path, learnt: int, judged: int) -> dict[str, Path]:
    """Files of people with human labels, drawn by chance: some to learn from, others to judge by."""
    content = read_json(data / "people" / "annotations.json")
    entries = [a for a in content["annotations"] if a["labels"] != "teacher" and a["num_keypoints"] >= 8]
    alone = {a["image_id"]: a for a in entries}  # one a picture, so that no picture is on both sides
    chosen = random.Random(0).sample(sorted(alone), learnt + judged)
    files = {}
    for name, pictures in (("learnt", chosen[:learnt]), ("judged", chosen[learnt:])):
        kept = set(pictures)
        part = {
            **content,
            "images": [image for image in content["images"] if image["id"] in kept],
            "annotations": [alone[picture] for picture in sorted(kept)],
        }
        files[name] = folder / f"{name}.json"
        files[name].write_text(json.dumps(part))
    return files


def run(
    data: Path, folder: Path, files: dict[str, Path], weight: float, seed: int, epochs: int
) -> list[dict[str, Any]]:
    """Train once; one row for each set of people that the student is judged by."""
    name = "labels and teacher" if weight else "labels"
    images = str((data / "people" / "images").resolve())
    given = {
        "name": name,
        "model": {"arch": ARCH, "backbone": "init/mobilenetv2_1.0_pose_backbone.npz", "freeze": 16},
        "data": {"root": data, "train": {"annotations": files["learnt"], "images": images}},
        "input": {"size_wh": SIZE_WH, "mean": [0.5] * 3, "std": [0.5] * 3},
        "target": {"sigma": 1.5, "refine": "dark"},
        "distill": {"teachers": [{"model": "embedded"}] if weight else [], "heatmap": weight},
        "augment": {"rotation_deg": 40, "colour": 0.5, "shift": 0.05},
        "optimiser": {"lr": 2e-3, "batch_size": 8, "clip": 5, "ema": 0.99},
        "schedule": {"epochs": epochs, "warmup_steps": 10},
        "run": {"folder": folder / f"{name} {epochs} {seed}", "seed": seed, "device": "cpu", "workers": 0},
    }
    started = time.process_time()
    made = train(Recipe.model_validate(given)) / "best.safetensors"
    seconds = time.process_time() - started
    model = load_weights(build(ARCH, 17), made).eval()
    rows = []
    for judge, truth, pictures in (
        ("coco_dev", data.resolve() / "coco_dev" / "annotations.json", data.resolve() / "coco_dev" / "images"),
        ("people, others", files["judged"], images),
    ):
        source = {"annotations": truth, "images": pictures}
        task = PoseTask(Recipe.model_validate({**given, "data": {**given["data"], "validate": source}}))
        figures = task.validate(model, torch.device("cpu"))
        count = sum(a["num_keypoints"] > 0 for a in read_json(truth)["annotations"] if not a.get("iscrowd"))
        told = {"learnt from": name, "epochs": epochs, "seed": seed, "judged on": judge, "people": count}
        rows.append({**told, **figures, "CPU seconds": seconds})
    return rows


def cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value < 1 else f"{value:.0f}"


def write(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """All rows so far."""
    if not arguments.output:
        return
    where = f"{platform.machine()}, one core, Python {platform.python_version()}"
    command = (
        f"python benchmarks/distillation.py --people {arguments.people} --judged {arguments.judged} "
        f"--epochs {arguments.epochs} --seeds {arguments.seeds} --weight {arguments.weight:g}"
    )
    with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "date", "machine", "command"])
        for row in rows:
            cells = [cell(row[column]) for column in COLUMNS]
            writer.writerow([*cells, datetime.date.today().isoformat(), where, command])


if __name__ == "__main__":
    main()
