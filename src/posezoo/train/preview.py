"""A sheet of what a network will be shown and asked for: augmented crops with their joints, and the targets beside.

The samples are those of training itself, made of the same seed, epoch and row. Look at it before a long run: where the
skeleton has no other colours, the person's left is blue and the right is orange, flipped or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.codecs import Codec, CombinedCodec, HeatmapCodec, IntegralCodec
from posezoo.data.augment import Augment, Sample, sample
from posezoo.data.catalog import find, get_dataset, wanted
from posezoo.data.mixed import Mixed, read_sources
from posezoo.data.pictures import read_labelled
from posezoo.draw import draw_poses
from posezoo.errors import PosezooError, require
from posezoo.media.images import write_image
from posezoo.skeletons import Skeleton
from posezoo.train.recipe import DataPart, InputPart, Recipe, Source
from posezoo.types import Poses
from posezoo.zoo import get_entry, list_models

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

_MOST_TILES = 64
_PANEL = 256  # pixels of a crop's longer side on the sheet
_GAP, _TITLE = 6, 32  # pixels between tiles, and above each for two lines of text
_GROUND, _INK = (24, 27, 33), (222, 226, 230)


def preview(recipe: Recipe, out_png: Path, people: int = 12, seed: int | None = None) -> Path:
    """Draw samples of a recipe.

    Args:
        recipe: what is to be trained.
        out_png: where to write the sheet, in any picture format.
        people: how many samples.
        seed: of the samples; None: the run's own, and then these are ones of its first epoch.

    Returns:
        `out_png`.

    Raises:
        PosezooError: the data is not there, or the file cannot be written.
    """
    seed = recipe.run.seed if seed is None else seed
    require("torch", "train", "the preview of a recipe")
    if recipe.task == "detect":
        return _write(_canvases(recipe, people, seed), out_png)
    from posezoo.train.target import make_codec

    mixed = read_sources(recipe.data, recipe.data.train)
    codec = make_codec(recipe.target, mixed.people.skeleton)
    return _write(draw_tiles(mixed, recipe.augment, recipe.input, codec, people, seed), out_png)


def preview_dataset(
    name: str, root: Path, out_png: Path, split: str | None = None, people: int = 12, seed: int = 0
) -> Path:
    """Draw samples of a dataset with the default augmentation and targets, in crops of the zoo's first network for it.

    Args:
        name: of the dataset, such as "mpii".
        root: the folder it lies in, or its parent.
        out_png: where to write the sheet, in any picture format.
        split: which; None: the first one that is there, in the order of the catalogue.
        people: how many samples.
        seed: of the samples.

    Returns:
        `out_png`.

    Raises:
        PosezooError: the data is not there, or the file cannot be written.
    """
    dataset = get_dataset(name)
    there = [found.split for found in find(dataset, root)]
    if not there:
        raise PosezooError(f"{root} has no files of {name}; they would be {wanted(dataset)}")
    source = Source(dataset=name, split=split or there[0])
    mixed = read_sources(DataPart(root=root, train=(source,), skeleton=dataset.skeleton), [source])
    entry = next((entry for entry in map(get_entry, list_models()) if entry.dataset == name), None)
    given = InputPart() if entry is None else InputPart(size_wh=entry.input_size_wh, box_scale=entry.box_scale)
    return _write(draw_tiles(mixed, Augment(), given, HeatmapCodec(), people, seed), out_png)


def draw_tiles(mixed: Mixed, augment: Augment, given: InputPart, codec: Codec, people: int, seed: int) -> list[Image]:
    """A tile (h, w, 3) for each of `people` samples: the crop with its joints, and the targets over the crop.

    People are drawn as often as training draws them; where there are fewer than wanted, they come again as in its next
    epochs.
    """
    rng = np.random.default_rng(seed)
    drawn = np.flatnonzero(mixed.order_weights > 0)
    shares = mixed.order_weights[drawn] / mixed.order_weights[drawn].sum()
    order = rng.choice(drawn, min(people, len(drawn)), replace=False, p=shares)
    return [
        _tile(mixed, int(order[n % len(order)]), (seed, n // len(order)), augment, given, codec) for n in range(people)
    ]


def _tile(
    mixed: Mixed, row: int, seed_epoch: tuple[int, int], augment: Augment, given: InputPart, codec: Codec
) -> Image:
    people = mixed.people
    picture = people.image_row[row]
    path = people.images[picture]
    image = read_labelled(path, people.sizes_wh[picture])
    made = sample(
        np.random.default_rng((*seed_epoch, row)), augment, image, people.boxes_xyxy[row],
        people.keypoints_xy[row], people.weights[row], people.skeleton, given.size_wh, given.box_scale, codec.grid,
    )  # fmt: skip
    zoom = _PANEL / max(given.size_wh)
    size = (round(given.size_wh[0] * zoom), round(given.size_wh[1] * zoom))
    crop = cv2.resize(made.crop, size, interpolation=cv2.INTER_LINEAR)
    scale = np.array(size) / given.size_wh
    drawn = _joints(crop, made.crop_xy, made.weights, scale, people.skeleton)
    panels = np.hstack([drawn, _targets(crop, made, scale, people.skeleton, codec)])
    domain = mixed.domains[mixed.source_row[row]]
    first = " ".join(text for text in (domain, path.stem, f"#{people.ids[row]}") if text)
    return _titled(panels, first, describe(made))


def describe(made: Sample) -> str:
    """What chance did to a sample, in words."""
    turn = made.view.rotation_deg
    said = [
        made.view.of if made.view.of != "label" else "",
        f"turn {turn:+.0f}" if turn else "",
        "flip" if made.view.flip else "",
        "cut" if made.was_cut else "",
        f"{int((made.weights > 0).sum())} joints",
    ]
    return ", ".join(text for text in said if text)


def _joints(crop: Image, crop_xy: Floats, weights: Floats, scale: NDArray, skeleton: Skeleton) -> Image:
    """The crop with the skeleton of its labelled joints."""
    xy = (crop_xy + 0.5) * scale - 0.5
    # lines as wide as for a person who fills most of the crop, whatever of one is labelled or left
    box = np.array([[0, 0, *np.multiply(crop.shape[1::-1], 0.6)]], np.float32)
    poses = Poses(xy[None], np.clip(weights, 0, 1)[None], box, np.ones(1, np.float32), skeleton)
    return draw_poses(crop, poses, joint_score=1e-3)


def write_sheet(
    path: Path, crops: Image, crop_xy: Floats, weights: Floats, skeleton: Skeleton, titles: Sequence[str]
) -> None:
    """Draw samples that are made already, such as those of a pass; the first of them, where they are many.

    Args:
        path: where to write the sheet, in any picture format.
        crops: (N, 3, h, w) uint8 RGB.
        crop_xy: (N, K, 2) pixels of the crops; what is not finite is not drawn.
        weights: (N, K) of the joints.
        skeleton: theirs.
        titles: what to write above each.
    """
    tiles = []
    for planes, xy, weight, title in islice(zip(crops, crop_xy, weights, titles, strict=True), _MOST_TILES):
        crop = np.ascontiguousarray(planes.transpose(1, 2, 0))
        zoom = _PANEL / max(crop.shape)
        drawn = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        known = np.isfinite(xy).all(axis=1) & np.isfinite(weight)
        xy, weight = np.where(known[:, None], xy, 0), np.where(known, weight, 0)
        drawn = _joints(drawn, xy, weight, np.array([zoom, zoom]), skeleton)
        tiles.append(_titled(drawn, title, f"{int((weight > 0).sum())} joints"))
    _write(tiles, path)


def _targets(crop: Image, made: Sample, scale: NDArray, skeleton: Skeleton, codec: Codec) -> Image:
    """The darkened crop under its heatmaps, each in its joint's colour; coordinates are dots."""
    size_wh = (made.crop.shape[1], made.crop.shape[0])
    wanted, weights = codec.encode(made.crop_xy[None], made.weights[None], size_wh)
    colors = np.array([skeleton.color(joint) for joint in skeleton.joints], np.float32)
    canvas = crop.astype(np.float32) * 0.4
    maps, places = wanted if isinstance(codec, CombinedCodec) else (wanted, wanted)
    split = codec.heatmap_joints if isinstance(codec, CombinedCodec) else 0
    if not isinstance(codec, IntegralCodec):
        # the strongest of several, as the sum of a hand's or a face's would only be white
        heat = (maps[0][..., None] * colors[: len(maps[0]), None, None]).max(axis=0)
        factors = np.array(size_wh) / heat.shape[1::-1]
        if codec.grid == "unbiased":
            factors = (np.array(size_wh) - 1) / (np.array(heat.shape[1::-1]) - 1)
        # a map's pixel is that of the crop `factors` times as far, and not the middle of a block of them
        onto = np.column_stack([np.diag(factors * scale), (scale - 1) / 2])
        canvas += cv2.warpAffine(heat, onto, crop.shape[1::-1], flags=cv2.INTER_LINEAR)
    canvas = np.clip(canvas, 0, 255).astype(np.uint8)
    if not isinstance(codec, HeatmapCodec):
        for joint in np.flatnonzero(weights[0, split:] > 0):
            at = ((places[0, joint] + 0.5) * size_wh + 0.5) * scale - 0.5
            if np.abs(at).max() < 10 * _PANEL:
                cv2.circle(canvas, [round(float(v)) for v in at], 1, colors[split + joint].tolist(), -1, cv2.LINE_AA)
    return canvas


def _canvases(recipe: Recipe, count: int, seed: int) -> list[Image]:
    """Mosaics of a detector's training, with their boxes."""
    from posezoo.train.detect import Canvases
    from posezoo.train.detect_data import read_training

    seeded = recipe.model_copy(update={"run": recipe.run.model_copy(update={"seed": seed})})
    dataset = Canvases(read_training(seeded.data), seeded)
    order = np.random.default_rng(seed).permutation(len(dataset))
    tiles = []
    for n in range(count):
        item = dataset[n // len(order), int(order[n % len(order)])]
        image = np.ascontiguousarray(item["image"].numpy().transpose(1, 2, 0))
        boxes = item["boxes_xyxy"].numpy()[: int(item["count"])]
        for x1, y1, x2, y2 in boxes.round().astype(int).tolist():
            cv2.rectangle(image, (x1, y1), (x2, y2), (255, 197, 49), 1)
        tiles.append(_titled(image, f"canvas {n + 1}", f"{len(boxes)} people"))
    return tiles


def _titled(panels: Image, *lines: str) -> Image:
    head = np.full((_TITLE, panels.shape[1], 3), _GROUND, np.uint8)
    for row, text in enumerate(lines):
        # OpenCV's letters are those of ASCII
        plain = text.encode("ascii", "replace").decode()[: panels.shape[1] // 7]
        cv2.putText(head, plain, (2, 12 + 14 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    return np.vstack([head, panels])


def _write(tiles: Sequence[Image], path: Path) -> Path:
    """The tiles side by side and below each other, as near to a square as they go."""
    if not tiles:
        raise PosezooError("a preview needs one person at least")
    height, width = np.array(tiles[0].shape[:2]) + _GAP
    columns = max(1, min(len(tiles), round((len(tiles) * 1.4 * height / width) ** 0.5)))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _GROUND, np.uint8)
    for n, tile in enumerate(tiles):
        top, left = _GAP + n // columns * height, _GAP + n % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    write_image(path, sheet)
    return path
