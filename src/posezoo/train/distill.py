"""Learning from teachers: what trained networks say of the same crops, beside what people labelled.

Two distances, each by its weight in `recipe.distill`: to the teachers' heatmaps, as Zhang et al. 2019 ("Fast Human Pose
Estimation") have it, and to their joints, by how sure they are. Teachers of a domain teach the people of that domain's
sources alone, each the joints that it knows: so a body's, a face's and a hand's network together teach a whole body
(the purpose of the "multi-domain knowledge distillation" of Fang et al. 2022, "AlphaPose"). They see the crop as it was
augmented, and judge every joint they know, labelled or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from posezoo.codecs import Codec, CombinedCodec, HeatmapCodec, IntegralCodec, combined_torch, get_codec
from posezoo.codecs.heatmap import MEGVII_PEAK
from posezoo.codecs.integral_torch import profiles
from posezoo.crop import Grid
from posezoo.data.mixed import domain_of
from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton, get_skeleton, map_joints
from posezoo.train.losses import MAP_SCALE, heatmap_mse, symmetric_place
from posezoo.train.recipe import Recipe
from posezoo.train.recipe import Teacher as TeacherPart
from posezoo.zoo import Entry, get_entry, get_model

SHARPNESS = 16.0  # of the softmax over a heatmap of height 1: half a pixel wide, and a background of nothing
FAINT = 0.1  # heatmaps are brought to height 1, but made no more than ten times higher than they are
_SOFTMAX = IntegralCodec(norm="softmax")
_TYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Change:
    """Pixels (x, y) to other pixels: `factor` times them, and `offset`; both (2,) float64."""

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def inverse(self) -> Change:
        """The way back."""
        return Change(1 / self.factor, -self.offset / self.factor)

    def then(self, other: Change) -> Change:
        """First this, then the other."""
        return Change(self.factor * other.factor, self.offset * other.factor + other.offset)

    @property
    def is_none(self) -> bool:
        """Whether every pixel stays where it is."""
        return bool(np.allclose(self.factor, 1) and np.allclose(self.offset, 0))


def crop_change(size_wh: Sequence[int], grid: Grid, other_size_wh: Sequence[int], other_grid: Grid) -> Change:
    """From pixels of a crop to those of another with the same middle, which holds the whole of it whatever its aspect.

    Args:
        size_wh: the crop's width and height.
        grid: how it lies on the picture, see `posezoo.crop`.
        other_size_wh: those of the other.
        other_grid: that of the other.
    """
    size, other = np.array(size_wh, np.float64), np.array(other_size_wh, np.float64)
    span, other_span = size - (grid == "unbiased"), other - (other_grid == "unbiased")
    height = max(size[1], size[0] * other[1] / other[0])
    factor = (other_span / np.array([height * other[0] / other[1], height])) / (span / size)
    return Change(factor, other_span / 2 - factor * span / 2)


@dataclass(frozen=True, eq=False)
class _Teacher:
    """A trained network, and what it may teach.

    Attributes:
        network: frozen, in eval mode.
        entry: what it wants to see.
        codec: how its maps are read.
        columns: (K,) where each of the student's joints stands in its maps; 0 where `known` is 0.
        known: (K,) its share where it knows the joint, else 0.
        drawn: (K,) the same for joints that are heatmaps both in its output and in the student's, else 0.
        sources: (S,) whether it teaches each source's people; None: all.
        to_student: from pixels of its crop to those of the student's.
    """

    network: nn.Module
    entry: Entry
    codec: Codec
    columns: Tensor
    known: Tensor
    drawn: Tensor
    sources: Tensor | None
    to_student: Change


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What the teachers of a batch agree on: maps (N, K, h, w), places (N, K, 2), and the weights of both (N, K)."""

    maps: Tensor
    map_weights: Tensor
    places: Tensor
    place_weights: Tensor


class Distiller:
    """The teachers of a recipe.

    Args:
        recipe: its `distill` says who teaches whom, its `input` how the student's crops were made.
        skeleton: the student's joints.
        codec: how the student's maps are read.
        device: where the student is.

    Raises:
        PosezooError: a domain is not that of any source, a teacher is no pose network or knows none
            of the joints, or its weights cannot be had.
    """

    def __init__(self, recipe: Recipe, skeleton: Skeleton, codec: Codec, device: torch.device):
        self.recipe, self.codec = recipe, codec
        given = recipe.distill
        self.teachers = [_hire(one, recipe, skeleton, codec, device) for one in given.teachers]
        if given.heatmap and self.teachers and not any(bool(teacher.drawn.any()) for teacher in self.teachers):
            raise PosezooError(
                "distill.heatmap: no joint is a heatmap both of the network and of a teacher; use distill.coordinate"
            )

    def loss(self, images: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted distance of the student's output from what the teachers say.

        Args:
            images: (N, 3, H, W), what the student saw.
            outputs: (N, K, h, w), what it said (of several stacks, the last).
            batch: `crop` (N, 3, H, W) uint8 RGB, `source` (N,) int64 rows of `recipe.data.train`.

        Returns:
            A scalar, 0 where nobody teaches anything, and the distances that have a weight, before it: that of the
            heatmaps on the scale of `label_loss`, that of the joints as `integral_l1` has it.
        """
        given, lesson = self.recipe.distill, self._lesson(images, outputs, batch)
        total, figures = torch.zeros((), device=outputs.device), {}
        if given.heatmap:
            distance = MAP_SCALE * heatmap_mse(outputs, lesson.maps, lesson.map_weights)
            total, figures["distill_heatmap"] = total + given.heatmap * distance, distance.detach()
        if given.coordinate:
            away = (soft_places(self.codec, outputs) - lesson.places).abs()
            distance = (away * lesson.place_weights[..., None]).sum() / max(len(outputs), 1)
            total, figures["distill_coordinate"] = total + given.coordinate * distance, distance.detach()
        return total, figures

    @torch.no_grad()
    def _lesson(self, images: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> _Lesson:
        """The mean of the teachers by their shares and, for places, by how sure they are."""
        people, joints, height, width = outputs.shape
        maps = torch.zeros((people, joints, height, width), device=outputs.device)
        places = torch.zeros((people, joints, 2), device=outputs.device)
        drawn, known, sure = (torch.zeros((people, joints), device=outputs.device) for _ in range(3))
        for teacher in self.teachers:
            rows: Tensor | slice = slice(None)
            if teacher.sources is not None:
                rows = teacher.sources[batch["source"]].nonzero()[:, 0]
                if not len(rows):
                    continue
            said = self._ask(teacher, images[rows], batch["crop"][rows])
            drawn[rows] += teacher.drawn
            maps[rows] += teacher.drawn[:, None, None] * self._maps(teacher, said, (width, height))
            said_places, confidence = self._places(teacher, said, (width, height))
            known[rows] += teacher.known
            sure[rows] += teacher.known * confidence
            places[rows] += (teacher.known * confidence)[..., None] * said_places
        least = torch.finfo(torch.float32).tiny  # of a divisor that may be 0
        maps /= drawn.clamp(min=least)[..., None, None]
        places /= sure.clamp(min=least)[..., None]
        return _Lesson(maps, (drawn > 0).float(), places, sure / known.clamp(min=least))

    def _ask(self, teacher: _Teacher, images: Tensor, crops: Tensor) -> Tensor:
        """The teacher's maps, (N, its joints, h, w), of `crops` that the student saw as `images`."""
        wants, given = teacher.entry, self.recipe.input
        same_colours = (wants.channels, wants.mean, wants.std) == (given.channels, given.mean, given.std)
        if not (same_colours and teacher.to_student.is_none and wants.input_size_wh == given.size_wh):
            crops = _resampled(crops.float(), teacher.to_student, wants.input_size_wh) / 255
            crops = crops.flip(1) if wants.channels == "bgr" else crops
            mean, std = (crops.new_tensor(values).view(3, 1, 1) for values in (wants.mean, wants.std))
            images = (crops - mean) / std
        if self.recipe.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        precision = self.recipe.run.precision
        with torch.autocast(images.device.type, _TYPES[precision], enabled=precision != "no"):
            maps: Tensor = teacher.network(images)
        return maps.float()

    def _maps(self, teacher: _Teacher, said: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """The teacher's heatmaps as the student would draw them, (N, K, h, w); nonsense where it draws none."""
        moved = _resampled(said[:, teacher.columns], self._map_change(teacher, said, size_wh).inverse, size_wh)
        ratio = _height(self.codec) / _height(teacher.codec)
        return moved if ratio == 1 else moved * ratio

    def _places(self, teacher: _Teacher, said: Tensor, size_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The teacher's joints as `soft_places` of the student's maps, (N, K, 2), and how sure it is, (N, K)."""
        places = soft_places(teacher.codec, said)[:, teacher.columns]
        confidence = combined_torch.decode(teacher.codec, said)[1][:, teacher.columns]
        change = self._map_change(teacher, said, size_wh)
        if not change.is_none:
            pixels = (places + 0.5) * places.new_tensor([said.shape[3], said.shape[2]])
            pixels = pixels * places.new_tensor(change.factor) + places.new_tensor(change.offset)
            places = pixels / places.new_tensor(size_wh) - 0.5
        return places, confidence

    def _map_change(self, teacher: _Teacher, said: Tensor, size_wh: tuple[int, int]) -> Change:
        """From pixels of the teacher's maps to those of the student's, which are of `size_wh`."""
        own = _map_to_crop(teacher.codec, (said.shape[3], said.shape[2]), teacher.entry.input_size_wh)
        students = _map_to_crop(self.codec, size_wh, self.recipe.input.size_wh)
        return own.then(teacher.to_student).then(students.inverse)


def soft_places(codec: Codec, maps: Tensor) -> Tensor:
    """The mean place of each map, in crops from the crop's middle, with the gradient of `symmetric_place`.

    Integrals are read as their codec says; a heatmap, brought to height 1, by a softmax.

    Args:
        codec: how the maps are read.
        maps: (N, K, h, w), any floating type.

    Returns:
        (N, K, 2) float32, -0.5 at the left or top.
    """
    if isinstance(codec, CombinedCodec):
        first, rest = maps[:, : codec.heatmap_joints], maps[:, codec.heatmap_joints :]
        return torch.cat([soft_places(codec.heatmap, first), soft_places(codec.integral, rest)], dim=1)
    if not isinstance(codec, IntegralCodec):
        top = maps.detach().float().amax(dim=(2, 3), keepdim=True).clamp(min=FAINT * _height(codec))
        codec, maps = _SOFTMAX, maps.float() * (SHARPNESS / top)
    return torch.stack([symmetric_place(profile) for profile in profiles(codec, maps)], dim=-1)


def _hire(given: TeacherPart, recipe: Recipe, skeleton: Skeleton, codec: Codec, device: torch.device) -> _Teacher:
    """A teacher of the recipe, with its weights."""
    entry = get_entry(given.model)
    if entry.skeleton is None or entry.codec is None:
        raise PosezooError(f"distill.teachers: {entry.name} finds people, not joints")
    theirs, their_codec = get_skeleton(entry.skeleton), get_codec(entry.codec)
    columns = map_joints(theirs, skeleton)
    if (columns < 0).all():
        raise PosezooError(
            f"distill.teachers: {entry.name} knows {', '.join(theirs.joints[:8])}, ... ({theirs.name}), and none of "
            f"{', '.join(skeleton.joints[:8])}, ... ({skeleton.name})"
        )
    drawn = _drawn(their_codec, len(theirs))[columns] & _drawn(codec, len(skeleton)) & (columns >= 0)
    network = get_model(entry.name, pretrained=True if given.weights is None else given.weights).to(device)
    if recipe.run.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    to_teacher = crop_change(recipe.input.size_wh, codec.grid, entry.input_size_wh, their_codec.grid)

    def tensor(values: ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(values), device=device)

    return _Teacher(
        network=network.eval().requires_grad_(False),
        entry=entry,
        codec=their_codec,
        columns=tensor(np.maximum(columns, 0)),
        known=tensor(columns >= 0).float() * given.share,
        drawn=tensor(drawn).float() * given.share,
        sources=None if (taught := _sources(given, recipe)) is None else tensor(taught),
        to_student=to_teacher.inverse,
    )


def _sources(given: TeacherPart, recipe: Recipe) -> list[bool] | None:
    """Which sources' people a teacher teaches; None: all."""
    domains = [domain_of(source) for source in recipe.data.train]
    for domain in given.domains:
        if domain not in domains:
            raise unknown_name("domain in distill.teachers", domain, {domain for domain in domains if domain})
    taught = [not given.domains or domain in given.domains for domain in domains]
    return None if all(taught) else taught


def _drawn(codec: Codec, joints: int) -> NDArray[np.bool_]:
    """(joints,) whether each is a heatmap."""
    if isinstance(codec, CombinedCodec):
        return np.arange(joints) < codec.heatmap_joints
    return np.full(joints, isinstance(codec, HeatmapCodec))


def _height(codec: Codec) -> float:
    """Of the peak of a sure heatmap."""
    return MEGVII_PEAK if isinstance(codec, HeatmapCodec) and codec.refine == "megvii" else 1.0


def _map_to_crop(codec: Codec, map_wh: tuple[int, int], crop_wh: tuple[int, int]) -> Change:
    """From pixels of a map to those of its crop."""
    one = codec.heatmap if isinstance(codec, CombinedCodec) else codec
    if not isinstance(one, HeatmapCodec | IntegralCodec):
        raise PosezooError(f"{type(codec).__name__} cannot be taught: use a codec of posezoo.codecs")
    return Change(np.array(one.factors(*map_wh, crop_wh), np.float64), np.zeros(2))


def _resampled(maps: Tensor, change: Change, size_wh: tuple[int, int]) -> Tensor:
    """Maps (N, C, h, w) on another grid of `size_wh`, whose pixels `change` takes to those of `maps`; 0 outside."""
    height, width = maps.shape[2:]
    if change.is_none and (width, height) == size_wh:
        return maps
    axes = [
        (torch.arange(size, device=maps.device) * factor + offset) * (2 / (last - 1)) - 1
        for size, last, factor, offset in zip(size_wh, (width, height), change.factor, change.offset, strict=True)
    ]
    y, x = torch.meshgrid(axes[1], axes[0], indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(maps.dtype).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
