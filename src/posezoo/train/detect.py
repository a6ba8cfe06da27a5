"""The detection task: mosaics of photographs, one score and four distances a cell, box average precision."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from posezoo.data.augment import appearance
from posezoo.data.mosaic import lay_out
from posezoo.data.pictures import read_labelled
from posezoo.detect.embedded import Settings, network_input, select
from posezoo.evaluate.oks import box_ap
from posezoo.train.detect_data import Boxed, read_judged, read_training
from posezoo.train.recipe import Recipe

_MOST_PEOPLE = 64  # boxes a canvas can hold; the rest of the array is empty
_SIZES = {8: (0.0, 80.0), 16: (56.0, 176.0), 32: (128.0, 1e9)}  # longer side of the boxes each stride learns, pixels


class Canvases(Dataset):
    """Mosaics: `image` (3, c, c) uint8, `boxes_xyxy` (64, 4) pixels, `count` of the boxes that are real."""

    def __init__(self, boxed: Boxed, recipe: Recipe):
        people = boxed.people
        self.people, self.recipe = people, recipe
        order = np.argsort(people.image_row, kind="stable")
        ends = np.searchsorted(people.image_row[order], np.arange(len(people.images) + 1))
        self.rows = [order[a:b] for a, b in itertools.pairwise(ends)]
        self.pictures = np.repeat(boxed.pictures, people.repeats(recipe.data.repeat)[boxed.pictures])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, first = key
        given = self.recipe.mosaic
        rng = np.random.default_rng((self.recipe.run.seed, epoch, first))
        side = int(rng.choice(len(given.rows), p=np.array(given.rows) / sum(given.rows))) + 1
        chosen = self.pictures[[first, *rng.integers(0, len(self), side * side - 1)]]
        people = self.people
        photographs = [
            (read_labelled(people.images[n], people.sizes_wh[n]), people.boxes_xyxy[self.rows[n]]) for n in chosen
        ]
        image, boxes = lay_out(rng, photographs, given.canvas, given.scale, self.recipe.augment.flip)
        image = appearance(rng, self.recipe.augment, image)
        padded = np.zeros((_MOST_PEOPLE, 4), np.float32)
        padded[: len(boxes)] = boxes[:_MOST_PEOPLE]
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "boxes_xyxy": torch.from_numpy(padded),
            "count": torch.tensor(min(len(boxes), _MOST_PEOPLE)),
        }


class DetectTask:
    """What the loop needs to know about finding people.

    Attributes:
        dataset: mosaics of the pictures that are there.
        notes: what to tell before the run begins.
    """

    metric, joints = "AP50", 0

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        boxed = read_training(recipe.data)
        self.dataset = Canvases(boxed, recipe)
        # whatever can be wrong with the pictures that judge it is found before the first step
        self._judge = read_judged(recipe.data)
        self.notes = (*boxed.notes, *(self._judge.notes if self._judge is not None else ()))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Quality focal loss for the scores, GIoU loss for the boxes of the cells at a person's centre."""
        images = batch["image"].float() / 127.5 - 1
        if self.recipe.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        scores, boxes = (output.float() for output in model(images))  # in half precision they are too coarse for IoU
        cells = _cells(images.shape[2], images.shape[3], images.device)
        owners = [
            assign(*cells, truth[:count])
            for truth, count in zip(batch["boxes_xyxy"], batch["count"].tolist(), strict=True)
        ]
        owner = torch.stack(owners)
        held = owner >= 0
        truth = batch["boxes_xyxy"].gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, 4))
        quality = torch.zeros_like(scores)
        giou, iou = overlaps(boxes[held], truth[held])
        quality[held] = iou.detach()
        certainty = scores.sigmoid()
        focal = F.binary_cross_entropy_with_logits(scores, quality, reduction="none") * (certainty - quality).abs() ** 2
        total = quality.sum().clamp(min=1.0)
        box_loss = ((1 - giou) * iou.detach().clamp(min=0.1)).sum() / total
        score_loss = focal.sum() / total
        figures = {"score_loss": float(score_loss.detach()), "iou": float(iou.detach().mean()) if len(iou) else 0.0}
        return score_loss + 2 * box_loss, figures

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Box average precision and recall on the validation photographs where everybody is boxed."""
        judge = self._judge
        if judge is None:
            return {}
        settings = Settings(long_side=self.recipe.mosaic.canvas, score=0.05)
        results: list[dict[str, Any]] = []
        people = judge.people
        for n in judge.pictures:
            image = read_labelled(people.images[n], people.sizes_wh[n])
            x = torch.from_numpy(network_input(image, settings.long_side)).to(device)
            scores, boxes = (out[0].cpu().numpy() for out in model(x))
            found = {"image_id": int(people.image_ids[n]), "category_id": judge.category_id}
            for box, score in _pairs(select(scores, boxes, image.shape, settings)):
                results.append({**found, "bbox": box, "score": score})
        return box_ap(judge.truth, results)


def _pairs(found: Any) -> list[tuple[list[float], float]]:
    xywh = np.concatenate([found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]], axis=1)
    return list(zip(xywh.tolist(), found.scores.tolist(), strict=True))


def _cells(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of the predictions, in their order: centres (A, 2), strides (A,), the range of sizes they learn (A, 2)."""
    centres, strides, sizes = [], [], []
    for stride, limits in _SIZES.items():
        y = torch.arange(stride / 2, height, stride, device=device)
        x = torch.arange(stride / 2, width, stride, device=device)
        centres.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2))
        strides.append(torch.full((len(centres[-1]),), float(stride), device=device))
        sizes.append(torch.tensor(limits, device=device).expand(len(centres[-1]), 2))
    return torch.cat(centres), torch.cat(strides), torch.cat(sizes)


def assign(centres: Tensor, strides: Tensor, sizes: Tensor, boxes: Tensor) -> Tensor:
    """Which person each cell learns: those whose centre is within 1.5 cells, at the strides made for their size.

    Args:
        centres: (A, 2) pixels.
        strides: (A,) pixels.
        sizes: (A, 2) the least and largest longer side that a cell learns, pixels.
        boxes: (N, 4) x1, y1, x2, y2; N may be 0.

    Returns:
        (A,) row of the person, the smallest where several claim a cell; -1: background.
    """
    if not len(boxes):
        return torch.full((len(centres),), -1, dtype=torch.long, device=centres.device)
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    size = sides.amax(1)
    fits = (size >= sizes[:, :1]) & (size <= sizes[:, 1:])
    away = (centres[:, None] - middle).abs()
    near = (away.amax(2) <= 1.5 * strides[:, None]) & (away <= sides / 2).all(2)
    # a person smaller than a cell has no cell centre inside the box: the nearest one has to do
    within = away.amax(2) <= 0.5 * strides[:, None]
    area = sides.prod(1).expand(len(centres), -1)
    claims = torch.where(fits & (near | within), area, torch.full_like(area, torch.inf))
    least, owner = claims.min(1)
    return torch.where(torch.isfinite(least), owner, torch.full_like(owner, -1))


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised (arXiv:1902.09630) and plain intersection over union of boxes (N, 4) with boxes (N, 4), each (N,)."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp(min=1e-6)
    union = ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner).clamp(min=1e-6)
    iou = inner / union
    return iou - (outer - union) / outer, iou
