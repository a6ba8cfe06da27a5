"""The card of a finished run: what was learnt from what, how well, where, and the command that does it again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posezoo import __version__
from posezoo.bench.machine import own_command
from posezoo.data.catalog import find, get_dataset
from posezoo.data.coco_style import People
from posezoo.files import write_atomic
from posezoo.identity import digest_of, hash_of
from posezoo.media.images import write_image
from posezoo.skeletons import get_skeleton
from posezoo.train.checkpoint import BEST, RECIPE, facts_of, weights_file
from posezoo.train.curves import Panel, draw, smooth
from posezoo.train.log import NOBODY, Row, duration, read_log
from posezoo.train.recipe import Recipe, Source
from posezoo.train.target import loss_in_words, weights_in_words
from posezoo.zoo import get_entry
from posezoo.zoo.table import score_line

CARD, CURVES = "card.md", "curves.png"
PROTOCOL = {
    "pose": "annotated boxes, no flip, nothing suppressed",
    "detect": "the pictures in which everybody is boxed",
}
_PACKAGES = ("torch", "accelerate", "safetensors", "numpy", "opencv-python-headless")
_SMOOTHED = ("loss",)
_NOT_LEARNING = ("images_per_s", "data_wait", "eta_s", "lr")
_MOST_LINES = 4


def write_card(folder: Path, recipe: Recipe, task: Any, story: Mapping[str, Any]) -> Path:
    """Write `card.md` and `curves.png`.

    Args:
        folder: of the run, with its log.
        recipe: what it did.
        task: what it learnt, see `posezoo.train.loop.Task`.
        story: what else there is to tell: device, processes, ranking (score, epoch), steps, epoch_steps, batch_size,
            seconds, sittings, weights.

    Returns:
        The card's path.
    """
    rows = read_log(folder)
    write_image(folder / CURVES, draw(panels(rows, task.metric, story["ranking"], story["epoch_steps"])))
    facts = facts_of(recipe)
    network = " ".join(
        [f"{recipe.model.arch}, {story['weights'] / 1e6:.2f} M weights,"]
        + [f"{facts[key].replace(' ', 'x')}," for key in ("input_size_wh", "skeleton", "codec") if key in facts]
    ).rstrip(",")
    parts = [
        f"# {recipe.name}\n\n{network}. The files carry these facts in their metadata.",
        "## Figures\n\n" + _figures(rows, recipe, task.metric, story),
        f"![Curves of the run]({CURVES})",
        "## Data\n\n" + _data(recipe, task),
        "## Run\n\n" + _table(("", ""), _run(rows, recipe, story)),
        "## Recipe\n\nWhat differs from the defaults; every value is in recipe.json.\n\n```json\n"
        + json.dumps(recipe.model_dump(mode="json", exclude_defaults=True, by_alias=True), indent=1)
        + "\n```",
    ]
    write_atomic(folder / CARD, "\n\n".join(parts) + "\n")
    return folder / CARD


def panels(rows: Sequence[Row], metric: str, ranking: Sequence[tuple[float, int]], epoch_steps: int) -> list[Panel]:
    """Loss, validation, the task's own figures and the rate, as far as the log has them."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for step, phase, name, value in rows:
        if phase == "validate" and value == NOBODY:
            continue
        x = step if phase == "train" else step / epoch_steps
        lines.setdefault((phase, name), []).append((x, value))
    trained = {name: line for (phase, name), line in lines.items() if phase == "train"}
    judged = {name: line for (phase, name), line in lines.items() if phase == "validate"}
    found = [Panel(name, {name: smooth(trained[name])}) for name in _SMOOTHED if name in trained]
    if metric in judged:
        names = [metric, *(name for name in judged if name != metric)][:_MOST_LINES]
        best = (float(ranking[0][1]), ranking[0][0]) if ranking else None
        found.append(Panel("validation", {name: judged[name] for name in names}, "epoch", best))
    own = [name for name in trained if name not in (*_SMOOTHED, *_NOT_LEARNING)][:_MOST_LINES]
    if own:
        found.append(Panel("while learning", {name: smooth(trained[name]) for name in own}))
    if "lr" in trained:
        found.append(Panel("learning rate", {"learning rate": trained["lr"]}))
    return found or [Panel("nothing was logged", {})]


def _figures(rows: Sequence[Row], recipe: Recipe, metric: str, story: Mapping[str, Any]) -> str:
    """What was measured of the best epochs, and what the zoo's source claims."""
    by_epoch: dict[int, dict[str, float]] = {}
    for step, phase, name, value in rows:
        if phase == "validate":
            by_epoch.setdefault(round(step / story["epoch_steps"]), {})[name] = value
    epochs = [epoch for _, epoch in story["ranking"]]
    source = recipe.data.validate_on
    if source is None or not any(metric in figures for figures in by_epoch.values()):
        return f"Nothing was measured. `{BEST}`: epoch {epochs[0]} of {recipe.schedule.epochs}, the last."
    best = by_epoch.get(epochs[0], {})
    names = [metric, *(name for name, value in best.items() if name != metric and value != NOBODY)]
    files = [f"`{weights_file(Path(), epoch).name}`" for epoch in epochs]
    table = [[name, *(_number(by_epoch.get(epoch, {}).get(name)) for epoch in epochs)] for name in names]
    of = " ".join(filter(None, [source.dataset, source.split])) or "the validation source"
    averaged = "; averaged weights" if recipe.optimiser.ema else ""
    text = (
        f"{_table(('', *files), table)}\n\nMeasured on {of}, see below: {PROTOCOL[recipe.task]}{averaged}. `{BEST}` is "
        f"`{weights_file(Path(), epochs[0]).name}`."
    )
    entry = facts_of(recipe).get("name")  # whose place these weights can take
    claims = get_entry(entry).claimed if entry is not None else ()
    if not claims:
        return text
    listed = "".join(f"\n- {score_line(score)}" for score in claims)
    return f"{text}\n\nClaimed by the source of {entry}, under its own protocol:\n{listed}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _data(recipe: Recipe, task: Any) -> str:
    """What was read, so that another can see whether it is the same."""
    people, judged_by = getattr(task.dataset, "people", None), getattr(task, "judged_by", None)
    source_row = getattr(task.dataset, "source_row", 0)
    table = []
    for number, source in enumerate(recipe.data.train):
        counts = ("", "") if people is None else _counts(people, np.broadcast_to(source_row == number, len(people)))
        table.append(["training", *_files(source, recipe.data.root), *counts])
    if recipe.data.validate_on is not None:
        counts = ("", "") if judged_by is None else _counts(judged_by, (judged_by.weights > 0).any(axis=1))
        table.append(["validation", *_files(recipe.data.validate_on, recipe.data.root), *counts])
    notes = list(getattr(task, "notes", ()))
    if recipe.data.validate_on is not None and table[-1][3] in [row[3] for row in table[:-1]]:
        notes.append("The validation file was learnt from: its figures tell how well it was learnt by heart.")
    text = _table(("for", "source", "annotations", "sha256", "people", "pictures"), table)
    return text + "".join(f"\n\n{note}" for note in notes)


def _counts(people: People, which: NDArray[np.bool_]) -> tuple[str, str]:
    """How many these are, and in how many pictures."""
    return str(which.sum()), str(len(np.unique(people.image_row[which])))


def _files(source: Source, root: Path) -> tuple[str, str, str]:
    """What a source is called, its annotation file and that file's hash (of a folder: its files' hashes, hashed)."""
    name = " ".join(filter(None, [source.dataset, source.split])) or "COCO-style"
    path = root / source.annotations if source.annotations is not None else None
    if path is None:
        assert source.dataset is not None  # see `Source`
        splits = find(get_dataset(source.dataset), root)
        path = next((found.annotations for found in splits if found.split == source.split), None)
    if path is None:
        return name, "", ""
    return name, str(path), digest_of(path)


def _run(rows: Sequence[Row], recipe: Recipe, story: Mapping[str, Any]) -> list[list[str]]:
    """How it went, where, and with what."""
    speeds = [value for _, phase, name, value in rows if (phase, name) == ("train", "images_per_s")]
    waits = [value for _, phase, name, value in rows if (phase, name) == ("train", "data_wait")]
    precision = {"no": "float32"}.get(recipe.run.precision, recipe.run.precision)
    table = [
        ["command", f"`{own_command()}`"],
        ["ended", datetime.datetime.now().astimezone().isoformat(timespec="seconds")],
        ["time", duration(story["seconds"]) + (f" in {story['sittings']} sittings" if story["sittings"] > 1 else "")],
        ["steps", f"{story['steps']} of {story['batch_size']} samples, {story['epoch_steps']} an epoch"],
    ]
    if recipe.task == "pose":
        skeleton = get_skeleton(recipe.data.skeleton)
        table.append(["loss", loss_in_words(skeleton, recipe.target)])
        table.append(["joints count", weights_in_words(skeleton, recipe.target)])
    if speeds:
        table.append(
            ["speed", f"{median(speeds):.0f} images/s, {median(waits):.1%} of the time waiting for data (medians)"]
        )
    return [
        *table,
        ["device", f"{story['processes']} x {_device(story['device'])}, {precision}"],
        ["machine", f"{platform.platform()}, {os.cpu_count()} CPUs, {recipe.run.workers} loader processes"],
        ["versions", ", ".join([f"posezoo {__version__}", f"Python {platform.python_version()}", *_versions()])],
        ["seed", str(recipe.run.seed)],
        [BEST, f"sha256 {hash_of(recipe.run.folder / BEST)}"],
        ["recipe.json", f"sha256 {hash_of(recipe.run.folder / RECIPE)}"],
    ]


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # another build of the same, such as opencv-python
            continue
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
