"""The pose task: crops of single people against their joints, by any codec, judged by the dataset's own metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from posezoo.codecs import Codec, CombinedCodec, HeatmapCodec, IntegralCodec, combined_torch
from posezoo.crop import Grid
from posezoo.data.augment import sample
from posezoo.data.catalog import get_dataset
from posezoo.data.coco_style import People
from posezoo.data.mixed import Mixed, locate, read_some_joints, read_sources
from posezoo.data.pictures import look_for_faults, read_labelled
from posezoo.data.readers import read_dataset
from posezoo.deploy.runtimes import TorchRuntime
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator, NetworkSpec
from posezoo.evaluate import judge
from posezoo.evaluate.oks import keypoint_ap
from posezoo.evaluate.pipeline import estimate, joint_columns, judgeable, trial_poses
from posezoo.evaluate.plan import Task, plan
from posezoo.evaluate.protocol import Protocol
from posezoo.models.hourglass import StackedHourglass
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.train.checkpoint import out_of_memory
from posezoo.train.log import NOBODY
from posezoo.train.losses import label_loss
from posezoo.train.recipe import DataPart, Recipe, Source
from posezoo.train.target import joint_weights, make_codec
from posezoo.types import Poses

Batch = dict[str, Tensor]

METRICS = {
    "oks": "AP",
    "wholebody": "AP",
    "pckh": "Mean",
    "pck": "PCK/Mean",
    "trb": "Mean_acc",
    "posetrack": "Total",
    "hand": "PCK",
}
"""The figure by which the best weights are chosen, by what the catalogue calls a dataset's metric."""

PLAIN = Protocol()  # annotated boxes, no flip, nothing suppressed
_MOST_JUDGED = 32  # people a network call in validation


class Crops(Dataset):
    """People cut out and augmented.

    A sample is `crop` (3, h, w) uint8, `crop_xy` (K, 2) pixels of the crop, `weights` (K,), `row`, which of the people
    it is, and `source`, the number of the source that they are from.
    """

    def __init__(self, mixed: Mixed, recipe: Recipe, grid: Grid = "legacy"):
        self.people, self.recipe, self.grid = mixed.people, recipe, grid
        self.source_row = mixed.source_row

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        (epoch, row), recipe, people = key, self.recipe, self.people
        rng = np.random.default_rng((recipe.run.seed, epoch, row))
        picture = people.image_row[row]
        image = read_labelled(people.images[picture], people.sizes_wh[picture])
        labels = people.boxes_xyxy[row], people.keypoints_xy[row], people.weights[row]
        size_wh, box_scale = recipe.input.size_wh, recipe.input.box_scale
        made = sample(rng, recipe.augment, image, *labels, people.skeleton, size_wh, box_scale, self.grid)
        return {
            "crop": torch.from_numpy(np.ascontiguousarray(made.crop.transpose(2, 0, 1))),
            "crop_xy": torch.from_numpy(made.crop_xy),
            "weights": torch.from_numpy(made.weights),
            "row": torch.tensor(row),
            "source": torch.tensor(self.source_row[row]),
        }


class PoseTask:
    """What the loop needs to know about poses.

    Attributes:
        dataset: the people of all sources, cut out and augmented.
        order_weights: (rows,) how often each is drawn.
        notes: what to tell before the run begins.
        joints: how many there are.
        joint_weights: (K,) float32, how much each counts, see `posezoo.train.target`.
        codec: between joints and the network's output; its stride is that of the network, once it has been seen.
        metric: the figure of `validate` that tells which weights are best.
        judged_by: the people of the validation source, or None.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.skeleton = get_skeleton(recipe.data.skeleton)
        self.joints = len(self.skeleton)
        self.codec = make_codec(recipe.target, self.skeleton)
        mixed = read_sources(recipe.data, recipe.data.train)
        self.dataset = Crops(mixed, recipe, self.codec.grid)
        self.order_weights = mixed.order_weights
        source = recipe.data.validate_on
        self._judge = None if source is None else _Judge(recipe, source, self.skeleton, self.codec)
        self.metric = "AP" if self._judge is None else self._judge.metric
        self.judged_by = None if self._judge is None else self._judge.people
        self.notes = (*mixed.notes, *(self._judge.notes if self._judge is not None else ()))
        given = recipe.input
        self._mean = torch.tensor(given.mean).view(3, 1, 1) * 255
        self._std = torch.tensor(given.std).view(3, 1, 1) * 255
        self._sigmas = torch.tensor(self.skeleton.oks_sigmas, dtype=torch.float32)
        self.joint_weights = torch.tensor(joint_weights(self.skeleton, recipe.target), dtype=torch.float32)
        self._distiller: Any = None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The loss of the labels by `label_loss`, the mean of a network's stacks, and what teachers add to it."""
        target, size_wh = self.recipe.target, self.recipe.input.size_wh
        images = self._images(batch["crop"])
        stacks = every_stack(model, images)
        maps = stacks[-1]
        self.codec = at_stride(self.codec, maps, size_wh)
        targets, weights = combined_torch.encode(self.codec, batch["crop_xy"], batch["weights"], size_wh)
        weights = weights * self.joint_weights
        hardest = target.hardest if target.loss == "ohkm" else None
        losses = [label_loss(self.codec, one, targets, weights, hardest, target.integral_weight) for one in stacks]
        loss, figures = torch.stack(losses).mean(), {"oks": self._oks(maps.detach(), batch)}
        if not self.recipe.distill.teachers:
            return loss, figures
        taught, more = self._teachers(maps.device).loss(images, maps, batch)
        return self.recipe.distill.label * loss + taught, figures | more

    def _images(self, crops: Tensor) -> Tensor:
        """What the network sees of (B, 3, h, w) uint8 RGB; see `posezoo.crop.normalise`."""
        if self._mean.device != crops.device:
            constants = self._mean, self._std, self._sigmas, self.joint_weights
            self._mean, self._std, self._sigmas, self.joint_weights = (c.to(crops.device) for c in constants)
        if self.recipe.input.channels == "bgr":
            crops = crops.flip(1)
        if self.recipe.run.channels_last:
            crops = crops.contiguous(memory_format=torch.channels_last)
        return (crops.float() - self._mean) / self._std

    def _teachers(self, device: torch.device) -> Any:
        if self._distiller is None:
            from posezoo.train.distill import Distiller

            self._distiller = Distiller(self.recipe, self.skeleton, self.codec, device)
        return self._distiller

    def _oks(self, maps: Tensor, batch: Batch) -> Tensor:
        """Mean object keypoint similarity of the batch; the person's area is taken as 0.53 of the box in the crop."""
        size_wh = width, height = self.recipe.input.size_wh
        found, _ = combined_torch.decode(quick(self.codec), maps, size_wh)
        area = 0.53 * width * height / self.recipe.input.box_scale**2 / 2  # a person fills half the crop's aspect
        squares = (found - batch["crop_xy"]).square().sum(-1)
        seen = (batch["weights"] > 0).float()
        return (torch.exp(-squares / (8 * area * self._sigmas**2)) * seen).sum() / seen.sum().clamp(min=1)

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The dataset's own figures on the validation source: annotated boxes, no flip, no suppression.

        They are what `posezoo evaluate --boxes gt` gives with the "plain" protocol. A source of no known dataset is
        judged by OKS. Empty without a source.
        """
        return {} if self._judge is None else self._judge.figures(model, device)

    def draw(self, batch: Batch, path: Path) -> list[str]:
        """Draw the samples of a pass into a picture file; who they are."""
        from posezoo.train.preview import write_sheet

        people, rows = self.dataset.people, batch["row"].tolist()
        who = [f"{people.images[people.image_row[row]]} annotation {people.ids[row]}" for row in rows]
        titles = [f"{people.images[people.image_row[row]].stem} #{people.ids[row]}" for row in rows]
        crops, crop_xy, weights = (batch[key].cpu().numpy() for key in ("crop", "crop_xy", "weights"))
        write_sheet(path, crops, crop_xy, weights, self.skeleton, titles)
        return who


def at_stride(codec: Codec, maps: Tensor, size_wh: tuple[int, int]) -> Codec:
    """The codec with the stride of a network whose output for crops of `size_wh` is `maps` (N, K, h, w).

    Raises:
        PosezooError: the maps are no whole fraction of the crop.
    """
    height, width = maps.shape[2:]
    stride = size_wh[0] // width
    if (width * stride, height * stride) != tuple(size_wh):
        raise PosezooError(f"the network's maps of {width}x{height} are no whole fraction of {size_wh[0]}x{size_wh[1]}")
    if isinstance(codec, CombinedCodec):
        parts = replace(codec.heatmap, stride=stride), replace(codec.integral, stride=stride)
        return replace(codec, heatmap=parts[0], integral=parts[1])
    assert isinstance(codec, HeatmapCodec | IntegralCodec)
    return replace(codec, stride=stride)


def quick(codec: Codec) -> Codec:
    """The codec with the cheap refinement of peaks, for figures shown while training."""
    if isinstance(codec, CombinedCodec):
        return replace(codec, heatmap=replace(codec.heatmap, refine="quarter"))
    return replace(codec, refine="quarter") if isinstance(codec, HeatmapCodec) else codec


def every_stack(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The output of each stack of a stacked hourglass, of other networks the one they have; the best last.

    The stacks are overheard while the model is called as a whole: wrapped for several devices, it would not share the
    gradients of a call to `StackedHourglass.stacks`.
    """
    stacked = next((module for module in model.modules() if isinstance(module, StackedHourglass)), None)
    if stacked is None:
        return [model(images)]
    found: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda _module, _inputs, out: found.append(out[0])) for stage in stacked.stages
    ]
    try:
        last = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [*found[:-1], last]


# ---- validation


class _Trainee(Estimator):
    """The network as it is now, with what the recipe says of it."""

    def __init__(self, recipe: Recipe, skeleton: Skeleton, codec: Codec):
        given, learning = recipe.input, recipe.optimiser
        self.spec = NetworkSpec(
            name=recipe.name,
            skeleton=skeleton,
            codec=codec,
            input_size_wh=given.size_wh,
            channels=given.channels,
            mean=given.mean,
            std=given.std,
            box_scale=given.box_scale,
            flip_shift=False,
        )
        self.detector, self.flip, self.max_megapixels = None, False, None
        # no more than learn together on a device, so that there is room for them
        devices = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        self.batch_size = min(_MOST_JUDGED, max(1, learning.batch_size // (learning.accumulate * devices)))


class _Judge:
    """The people that the network is judged by. Whatever can be wrong with them is found before the first step."""

    def __init__(self, recipe: Recipe, source: Source, skeleton: Skeleton, codec: Codec):
        self.source = source
        self.annotations, self.people = _read_judged(recipe.data, source, skeleton)
        self.trainee = _Trainee(recipe, skeleton, codec)
        self.columns = joint_columns(self.trainee, self.people.skeleton)
        planned = plan(self.people, source.dataset or "coco", PLAIN)
        self.tasks, self.notes = _present(planned, recipe.data.max_missing)
        self.metric = METRICS[get_dataset(source.dataset).metric] if source.dataset else "AP"
        self._try()

    def _try(self) -> None:
        """Judge people whose joints all are in the middle of their box, to see whether anybody can be judged."""
        found = self.judged((task, trial_poses(task, self.trainee.skeleton)) for task in self.tasks)
        if not math.isfinite(value := found.get(self.metric, math.nan)) or value == NOBODY:
            raise PosezooError(
                f"data.validate: {self.annotations} has nobody whom {self.metric} can be told of; validate on another "
                "file, or leave data.validate out"
            )

    def figures(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """What the network comes to, in batches that there is room for: the figures do not depend on them."""
        self.trainee.runtime = TorchRuntime(model, str(device))
        while True:
            try:
                return self.judged(estimate(self.trainee, self.tasks))
            except (PosezooError, RuntimeError) as err:
                if self.trainee.batch_size == 1 or not out_of_memory(err):
                    raise
            self.trainee.batch_size //= 2

    def judged(self, found: Iterable[tuple[Task, Poses | PosezooError]]) -> dict[str, float]:
        """The dataset's figures of what was found in each picture."""
        predictions: list[dict[str, Any]] = []
        for task, poses in found:
            if isinstance(poses, PosezooError):
                raise poses
            predictions += judgeable(task, poses, PLAIN, self.trainee, self.people.skeleton, self.columns)
        if self.source.dataset is None:
            return keypoint_ap(self.annotations, predictions, self.people.skeleton)
        return judge(predictions, self.source.dataset, self.annotations, {}, own=True)


def _present(tasks: Sequence[Task], max_missing: float) -> tuple[list[Task], tuple[str, ...]]:
    """Those whose picture is the one annotated, and what to say of the others."""
    sizes_wh = np.array([task.size_wh for task in tasks], np.int64)
    looks, told = look_for_faults("data.validate", [task.path for task in tasks], sizes_wh, max_missing)
    sound = [task for task, one in zip(tasks, looks, strict=True) if not one.fault]
    return sound, (f"{told}, and nobody is found in them",) if told else ()


def _read_judged(data: DataPart, source: Source, skeleton: Skeleton) -> tuple[Path, People]:
    """The annotations of a source, and its people on its own joints, as the official labels have them."""
    path, images = locate(source, data.root)
    if source.dataset is None:
        return path, read_some_joints(path, images[0], skeleton)
    return path, read_dataset(source.dataset, path, images)
