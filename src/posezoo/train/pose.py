"""The pose task: crops of single people, Gaussian heatmaps, OKS average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from posezoo.codecs import heatmap_torch
from posezoo.codecs.heatmap import HeatmapCodec
from posezoo.crop import box_to_affine, crop_images, invert_affine, normalise, transform_points
from posezoo.data.augment import appearance, cut, mirror, view
from posezoo.data.coco_style import People, read_people
from posezoo.errors import PosezooError
from posezoo.evaluate.oks import keypoint_ap
from posezoo.media.images import read_image
from posezoo.skeletons import get_skeleton
from posezoo.train.recipe import DataPart, Recipe, Source

Batch = dict[str, Tensor]


class Crops(Dataset):
    """People cut out and augmented: `crop` (3, h, w) uint8, `crop_xy` (K, 2) pixels of the crop, `weights` (K,)."""

    def __init__(self, people: People, recipe: Recipe):
        self.people, self.recipe = people, recipe
        self.rows = np.repeat(np.arange(len(people)), people.repeats(recipe.data.repeat)[people.image_row])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, number = key
        recipe, people, row = self.recipe, self.people, self.rows[number]
        rng = np.random.default_rng((recipe.run.seed, epoch, number))
        image = read_image(people.images[people.image_row[row]])
        labels = people.boxes_xyxy[row], people.keypoints_xy[row], people.weights[row]
        image, box, xy, weights = cut(rng, recipe.augment, image, *labels)
        box, rotation, flip = view(rng, recipe.augment, box, xy, weights, people.skeleton)
        size_wh = recipe.input.size_wh
        affine = box_to_affine(box[None], size_wh, recipe.input.box_scale, rotation)
        crop = crop_images(image, affine, size_wh)[0]
        crop_xy = transform_points(affine, xy[None])[0].astype(np.float32)
        if flip:
            crop, crop_xy, weights = mirror(crop, crop_xy, weights, people.skeleton)
        crop = appearance(rng, recipe.augment, crop)
        planes = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return {"crop": planes, "crop_xy": torch.from_numpy(crop_xy), "weights": torch.from_numpy(weights)}


def read_source(data: DataPart, source: Source) -> People:
    """The people of one source with enough labelled joints, in boxes large enough to see them."""
    skeleton = get_skeleton(data.skeleton)
    people = read_people(data.root / source.annotations, data.root / source.images, skeleton, data.second_opinion)
    sides = (people.boxes_xyxy[:, 2:] - people.boxes_xyxy[:, :2]).min(1)
    return people.where(((people.weights > 0).sum(1) >= data.least_joints) & (sides >= data.least_side))


class PoseTask:
    """What the loop needs to know about poses."""

    metric = "AP"

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.skeleton = get_skeleton(recipe.data.skeleton)
        self.joints = len(self.skeleton.joints)
        self.codec = HeatmapCodec(refine=recipe.target.refine, sigma=recipe.target.sigma)
        people = read_source(recipe.data, recipe.data.train)
        if not len(people):
            raise PosezooError(
                f"{recipe.data.train.annotations}: nobody with {recipe.data.least_joints} labelled joints"
            )
        self.dataset = Crops(people, recipe)
        given = recipe.input
        self.mean = torch.tensor(given.mean).view(3, 1, 1) * 255
        self.std = torch.tensor(given.std).view(3, 1, 1) * 255
        self.joint_weights = torch.tensor(self.skeleton.joint_weights, dtype=torch.float32)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the heatmaps, each joint by its weight (Xiao et al. 2018, section 3)."""
        crops = batch["crop"].float()
        images = (crops - self.mean.to(crops.device)) / self.std.to(crops.device)
        if self.recipe.input.channels == "bgr":
            images = images.flip(1)
        if self.recipe.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        heatmaps = model(images)
        size_wh = self.recipe.input.size_wh
        targets, weights = heatmap_torch.encode(self.codec, batch["crop_xy"], batch["weights"], size_wh)
        weights = weights * self.joint_weights.to(weights.device)
        error = (heatmaps.float() - targets).square().mean((2, 3))
        loss = 1000 * (error * weights).sum() / weights.sum().clamp(min=1.0)
        return loss, {"oks": self._oks(heatmaps.detach(), batch)}

    def _oks(self, heatmaps: Tensor, batch: Batch) -> float:
        """Mean object keypoint similarity of the batch; the person's area is taken as 0.53 of the box in the crop."""
        found, _ = heatmap_torch.decode(HeatmapCodec(refine="quarter"), heatmaps)
        width, height = self.recipe.input.size_wh
        area = 0.53 * width * height / self.recipe.input.box_scale**2 / 2  # a person fills half the crop's aspect
        spread = 2 * torch.tensor(self.skeleton.oks_sigmas, dtype=torch.float32, device=found.device)
        squares = (found - batch["crop_xy"]).square().sum(-1)
        seen = (batch["weights"] > 0).float()
        return float((torch.exp(-squares / (2 * area * spread**2)) * seen).sum() / seen.sum().clamp(min=1))

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """OKS average precision on the validation source: ground-truth boxes, no flip, no suppression."""
        source = self.recipe.data.validate_on
        if source is None:
            return {}
        # the official labels as they are: what was done to the training labels is not done to the judge's
        people = read_source(self.recipe.data.model_copy(update={"second_opinion": False, "least_side": 0.0}), source)
        results: list[dict[str, Any]] = []
        for start in range(0, len(people), 32):
            rows = np.arange(start, min(start + 32, len(people)))
            affine, images = self._inputs(people, rows)
            found, scores = heatmap_torch.decode(self.codec, model(images.to(device)).float())
            keypoints_xy = transform_points(invert_affine(affine), found.cpu().numpy())
            for row, xy, score in zip(rows, keypoints_xy, scores.cpu().numpy(), strict=True):
                flat = np.column_stack([xy, score]).reshape(-1).tolist()
                image_id = int(people.image_ids[people.image_row[row]])
                results.append(
                    {"image_id": image_id, "category_id": 1, "keypoints": flat, "score": float(score.mean())}
                )
        return keypoint_ap(self.recipe.data.root / source.annotations, results, self.skeleton)

    def _inputs(self, people: People, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        given = self.recipe.input
        affine = box_to_affine(people.boxes_xyxy[rows], given.size_wh, given.box_scale)
        crops = [
            crop_images(read_image(people.images[people.image_row[row]]), one[None], given.size_wh)[0]
            for row, one in zip(rows, affine, strict=True)
        ]
        return affine, torch.from_numpy(normalise(np.stack(crops), given.mean, given.std, given.channels))
