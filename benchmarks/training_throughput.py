"""Images a second of training: the loader alone, the step alone, both together; ours and the way the zoos do it.

    python benchmarks/training_throughput.py RECIPE [key=value ...] [--steps 12] [--rounds 3] [-o FILE.csv]

RECIPE is any that `posezoo train` takes, with its data, such as
`simplebaselines_coco_resnet50_256x192_d256x3_adam_lr1e-3 data.root=PATH run.precision=bf16 run.workers=14`.
"The zoos' way" cuts the same crops, and in the loader makes float32 images and, joint by joint in numpy, the heatmaps
that go with them; ours hands over the crop's bytes and the joints, and the device makes images and heatmaps. Everything
else (the reading of pictures, augmentation, network, loss, optimiser) is the same code. The two take turns, round after
round; figures are medians. On a GPU: "both together" over "the step alone" is the share of the step's own limit.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

from posezoo.codecs import HeatmapCodec
from posezoo.crop import box_to_center_scale, normalise
from posezoo.data.augment import sample
from posezoo.errors import PosezooError
from posezoo.files import atomic_path
from posezoo.media.images import read_image
from posezoo.train.losses import label_loss
from posezoo.train.network import make_model
from posezoo.train.optimise import Learner
from posezoo.train.order import Batch, Order, Share, make_loader
from posezoo.train.pose import PoseTask
from posezoo.train.recipe import Recipe, load_recipe

COLUMNS = ("what", "unit", "ours", "the zoos' way", "ratio")
_SIGMAS = 3


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--steps", type=int, default=12, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", type=int, default=300, help="images that the loader's stages are timed on")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    task = PoseTask(recipe.model_copy(update={"data": recipe.data.model_copy(update={"validate_on": None})}))
    if not isinstance(task.codec, HeatmapCodec):
        raise PosezooError("the zoos' way of making targets is timed for heatmaps: take a recipe with codec = heatmap")
    cv2.setNumThreads(1)  # a core is what each worker has
    accelerator = Accelerator(cpu=recipe.run.device == "cpu", mixed_precision="no")
    torch.backends.cudnn.benchmark = accelerator.device.type == "cuda"
    rows = [*stages(task, arguments.stages), *throughput(recipe, task, accelerator, arguments.steps, arguments.rounds)]
    where = f"{_device(accelerator.device)}, {os.cpu_count()} CPUs, {recipe.run.workers} workers"
    what = (
        f"{recipe.model.arch} {recipe.input.size_wh[0]}x{recipe.input.size_wh[1]}, {recipe.optimiser.batch_size} a step"
    )
    table = Table(*COLUMNS, title=f"{what}; {where}; median of {arguments.rounds} rounds of {arguments.steps} steps")
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)
    if arguments.output:
        settings = f"{what}, {'float32' if recipe.run.precision == 'no' else recipe.run.precision}"
        facts = [
            settings,
            where,
            platform.machine(),
            f"torch {torch.__version__}",
            str(datetime.date.today()),
            _command(),
        ]
        with atomic_path(arguments.output) as path, path.open("w", newline="") as file:
            head = [*COLUMNS, "settings", "machine", "architecture", "versions", "date", "command"]
            csv.writer(file).writerows([head, *([*row, *facts] for row in rows)])


# ---- the zoos' way


class ZooCrops(Dataset):
    """The crops of ours as float32 images, with their heatmaps."""

    def __init__(self, task: PoseTask):
        assert isinstance(task.codec, HeatmapCodec)
        self.ours, self.codec, self.input = task.dataset, task.codec, task.recipe.input

    def __len__(self) -> int:
        return len(self.ours)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        made = self.ours[key]
        crop = np.ascontiguousarray(made["crop"].numpy().transpose(1, 2, 0))
        image = normalise(crop[None], self.input.mean, self.input.std, self.input.channels)[0]
        heatmaps, weights = gaussians(self.codec, made["crop_xy"].numpy(), made["weights"].numpy(), self.input.size_wh)
        return {
            "image": torch.from_numpy(image),
            "heatmaps": torch.from_numpy(heatmaps),
            "weights": torch.from_numpy(weights),
            "crop_xy": made["crop_xy"],
        }


def gaussians(
    codec: HeatmapCodec, crop_xy: np.ndarray, visible: np.ndarray, size_wh: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (K, h, w) and weights (K,): a patch of three sigmas either way is computed and pasted for each joint."""
    width, height = codec.heatmap_size(size_wh)
    heatmaps, weights = np.zeros((len(crop_xy), height, width), np.float32), visible.copy()
    reach = int(_SIGMAS * codec.sigma)
    for joint, (x, y) in enumerate(crop_xy / codec.stride + 0.5):
        x, y = int(x), int(y)
        left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
        if left >= width or top >= height or right < 0 or bottom < 0:
            weights[joint] = 0
            continue
        if weights[joint] <= 0:
            continue
        across = np.arange(2 * reach + 1, dtype=np.float32)
        patch = np.exp(-((across - reach) ** 2 + (across[:, None] - reach) ** 2) / (2 * codec.sigma**2))
        inside_x, inside_y = slice(max(0, left), min(right, width)), slice(max(0, top), min(bottom, height))
        heatmaps[joint, inside_y, inside_x] = patch[
            inside_y.start - top : inside_y.stop - top, inside_x.start - left : inside_x.stop - left
        ]
    return heatmaps, weights


class ZooTask:
    """The same network and loss, on what the loader made."""

    def __init__(self, task: PoseTask):
        self.task, self.recipe, self.dataset = task, task.recipe, ZooCrops(task)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The loss of the labels, and how near the joints are, as ours shows it."""
        images = batch["image"]
        if self.recipe.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        maps = model(images)
        weights = batch["weights"] * self.task.joint_weights.to(maps.device)
        loss = label_loss(self.task.codec, maps, batch["heatmaps"], weights)
        return loss, {"oks": self.task._oks(maps.detach(), batch)}


# ---- measurements


def stages(task: PoseTask, images: int) -> Iterator[list[str]]:
    """CPU milliseconds an image of each thing that a loader does."""
    people, recipe, codec = task.dataset.people, task.recipe, task.codec
    rows = np.random.default_rng(0).permutation(len(people))[:images]
    paths = [people.images[people.image_row[row]] for row in rows]
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any], *given: Any) -> Any:
        began = time.process_time()
        result = call(*given)
        spent.setdefault(name, []).append(1000 * (time.process_time() - began))
        return result

    assert isinstance(codec, HeatmapCodec)
    size_wh, given = recipe.input.size_wh, recipe.input
    for row, path in zip(rows, paths, strict=True):
        packed = np.frombuffer(path.read_bytes(), np.uint8)
        image = timed("decode", read_image, path)
        timed("jpeg", cv2.imdecode, packed, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        timed("half", cv2.imdecode, packed, cv2.IMREAD_REDUCED_COLOR_2)
        labels = people.boxes_xyxy[row], people.keypoints_xy[row], people.weights[row]
        rng = np.random.default_rng((0, int(row)))
        how = people.skeleton, size_wh, given.box_scale, codec.grid
        made = timed("cut", sample, rng, recipe.augment, image, *labels, *how)
        timed("to planes", np.ascontiguousarray, made.crop.transpose(2, 0, 1))
        timed("normalise", normalise, made.crop[None], given.mean, given.std, given.channels)
        timed("heatmaps", gaussians, codec, made.crop_xy, made.weights, size_wh)
    mean = {name: float(np.mean(values)) for name, values in spent.items()}
    ours, theirs = mean["to planes"], mean["normalise"]
    yield _row("reading and decoding a picture", "ms", mean["decode"], mean["decode"], fewer=True)
    yield _row("cutting and augmenting a crop", "ms", mean["cut"], mean["cut"], fewer=True)
    yield _row("the crop as the network's input", "ms", ours, theirs, fewer=True)
    yield _row("targets", "ms", 0.0, mean["heatmaps"], fewer=True)
    whole = mean["decode"] + mean["cut"]
    yield _row("all of these", "ms", whole + ours, whole + theirs + mean["heatmaps"], fewer=True)
    regions = box_to_center_scale(people.boxes_xyxy, size_wh, given.box_scale)[1]
    large = float((regions >= 2 * np.array(size_wh)).all(axis=1).mean())
    told = f"JPEG alone: whole, and at half size (enough for {large:.1%} of the people)"
    yield [told, "ms", f"{mean['jpeg']:.3f}", f"{mean['half']:.3f}", ""]


def throughput(
    recipe: Recipe, task: PoseTask, accelerator: Accelerator, steps: int, rounds: int
) -> Iterator[list[str]]:
    """Images a second of loader, step and both, of the two ways in turns."""
    batch_size = recipe.optimiser.batch_size
    ways: dict[str, Any] = {"ours": task, "zoos": ZooTask(task)}
    learners = {
        name: Learner(recipe, way, make_model(recipe, task.joints), accelerator, 10**6, batch_size)
        for name, way in ways.items()
    }
    order = Order(len(task.dataset), batch_size, (steps + 1) * batch_size, recipe.run.seed, task.order_weights)
    passes = recipe.optimiser.accumulate
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for name, way in ways.items():
            share = Share(order, number * (steps + 1), (number + 1) * (steps + 1), passes)
            loader = make_loader(way.dataset, share, recipe.run.workers, accelerator.device)
            learner = learners[name]
            learner.train_mode()
            figures = {
                "loader": run(loader, passes, accelerator.device, None),
                "step": alone(loader, passes, accelerator.device, learner, steps),
                "both": run(loader, passes, accelerator.device, learner),
            }
            for what, seconds in figures.items():
                found.setdefault((what, name), []).append(steps * batch_size / seconds)
    rate = {key: median(values) for key, values in found.items()}
    for what, told in (("loader", "the loader alone"), ("step", "the step alone"), ("both", "both together")):
        yield _row(told, "images/s", rate[what, "ours"], rate[what, "zoos"])
    ours, theirs = (rate["both", name] / rate["step", name] for name in ways)
    yield _row("both together, of the step alone", "share", ours, theirs)
    ours, theirs = (rate["loader", name] / max(recipe.run.workers, 1) for name in ways)
    yield _row("the loader alone, a worker", "images/s", ours, theirs)


def run(loader: Any, passes: int, device: torch.device, learner: Learner | None) -> float:
    """Seconds from the first step's end to the last one's."""
    batches, began, step = iter(loader), 0.0, 0
    while (parts := _next(batches, passes, device)) is not None:
        if learner is not None:
            learner.step(parts, step).shared.tolist()
        if not step:
            began = time.perf_counter()
        step += 1
    return time.perf_counter() - began


def alone(loader: Any, passes: int, device: torch.device, learner: Learner, steps: int) -> float:
    """Seconds of so many steps on data that lies ready on the device."""
    parts = _next(iter(loader), passes, device)
    assert parts is not None
    for step in range(steps + 1):
        learner.step(parts, step).shared.tolist()
        if not step:
            began = time.perf_counter()
    return time.perf_counter() - began


def _next(batches: Iterator[Batch], passes: int, device: torch.device) -> list[Batch] | None:
    """The passes of a step on the device, as `posezoo.train.loop` has them; None at the end."""
    parts = list(islice(batches, passes))
    return [{k: v.to(device, non_blocking=True) for k, v in part.items()} for part in parts] if parts else None


def _row(what: str, unit: str, ours: float, theirs: float, fewer: bool = False) -> list[str]:
    """A line of the table; the ratio is how many times better ours is."""
    better = (theirs / ours if ours else float("inf")) if fewer else ours / theirs
    number = "{:.3f}" if unit in ("ms", "share") else "{:.1f}"
    return [what, unit, number.format(ours), number.format(theirs), f"{better:.2f}"]


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _command() -> str:
    return shlex.join(["python", "benchmarks/training_throughput.py", *sys.argv[1:]])


if __name__ == "__main__":
    main()
