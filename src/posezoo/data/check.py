"""What of a dataset lies in a folder, what is missing or odd about it, and a sheet of drawn samples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.catalog import Dataset, Found, find, get_dataset, wanted
from posezoo.data.coco_style import People
from posezoo.data.pictures import MISSING, OTHER_SIZE, UNREADABLE, Look, look, look_at, read_labelled
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError, unknown_name

if TYPE_CHECKING:
    from posezoo.media.images import Image

Marks = NDArray[np.bool_]

SHOWN = 3  # how many examples a report gives of anything
_TILE_WH, _COLUMNS, _TITLE = (320, 320), 3, 24  # pixels of the sample sheet
_INK, _PAPER = (233, 236, 239), (24, 27, 32)


@dataclass(frozen=True)
class Finding:
    """Something odd: what, how often, and the first of them."""

    what: str
    count: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.what}: {self.count} ({', '.join(self.first)}{more})"


@dataclass(frozen=True)
class SplitReport:
    """One split that was read.

    Attributes:
        split, of: its name, and whose layout it is in.
        annotations, images: its file (or folder), and the folder of its pictures.
        pictures, people, labelled: how many; labelled are the people with at least one labelled joint.
        videos: how many, 0 for photographs.
        missing: the pictures that are not there.
        odd: what is suspicious.
        notes: what is worth knowing, such as another number of people than the published one.
    """

    split: str
    of: str
    annotations: Path
    images: Path
    pictures: int
    people: int
    labelled: int
    videos: int
    missing: Finding
    odd: tuple[Finding, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `check_dataset` found.

    Attributes:
        dataset: its entry in the catalogue.
        root: the folder.
        splits: those that were read.
        absent: the splits of the layouts in use that are not there.
        box_files: the files of detected people that are there.
        sheet: the picture that was drawn, None where none was asked for or no picture is there.
    """

    dataset: Dataset
    root: Path
    splits: tuple[SplitReport, ...]
    absent: tuple[str, ...]
    box_files: tuple[str, ...]
    sheet: Path | None

    @property
    def complete(self) -> bool:
        """Whether every picture of every split that was read is there, and nothing is odd."""
        return not any(split.missing.count or split.odd for split in self.splits)

    def lines(self) -> list[str]:
        """The report as text."""
        dataset = self.dataset
        out = [f"{dataset.name}: {dataset.title}, {len(dataset.joints)} joints ({dataset.skeleton})"]
        for split in self.splits:
            videos = f" of {split.videos} videos" if split.videos else ""
            out.append(f"  {split.split}: {split.annotations} (layout of {split.of})")
            out.append(f"    {split.pictures} pictures{videos}, {split.people} people, {split.labelled} with labels")
            out += [f"    {split.missing}, looked for in {split.images}"] if split.missing.count else []
            out += [f"    odd: {finding}" for finding in split.odd] + [f"    note: {note}" for note in split.notes]
        out += [f"  boxes: {file}" for file in self.box_files]
        out += [f"  not there: {', '.join(self.absent)}"] if self.absent else []
        out += [f"  licence: {dataset.licence}"]
        return out + ([f"  samples drawn: {self.sheet}"] if self.sheet else [])

    def to_dict(self) -> dict[str, Any]:
        """The report for `--json`."""
        return {
            "dataset": self.dataset.name,
            "root": str(self.root),
            "complete": self.complete,
            "splits": [_plain(split) for split in self.splits],
            "absent": list(self.absent),
            "box_files": list(self.box_files),
            "sheet": str(self.sheet) if self.sheet else None,
        }


def _plain(split: SplitReport) -> dict[str, Any]:
    values = dict(vars(split))
    values.update(annotations=str(split.annotations), images=str(split.images), notes=list(split.notes))
    values.update(missing=vars(split.missing), odd=[vars(finding) for finding in split.odd])
    return values


def check_dataset(
    name: str,
    root: Path,
    *,
    split: str | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    draw: Path | None = None,
    samples: int = 9,
) -> Report:
    """Read what there is of a dataset in the folder `root`, and look for what is missing or odd.

    Args:
        name: of the dataset, such as "crowdpose".
        root: its folder, or the folder that holds it under its usual name.
        split: read this one only.
        annotations: a file to read in place of those that the known layouts have.
        images: the folder of its pictures; None: `root`.
        draw: where to write a picture of some of the people with their labels.
        samples: how many people it shows.

    Raises:
        UnknownNameError: there is no such dataset or split.
        PosezooError: there is no such folder, nothing of the dataset in it, or a file that cannot be read or is
            another dataset's.
    """
    dataset = get_dataset(name)
    found = list(find(dataset, root))
    if annotations is not None:
        found = [Found(split or "given", annotations, (images or root,), "the command")]
    elif split is not None:
        _check_split(dataset, split)
        found = [one for one in found if one.split == split]
    if not found:
        raise _nothing(dataset, root, split)
    read = [(one, read_dataset(name, one.annotations, one.images)) for one in found]
    sheet = _draw_sheet(dataset, read, draw, samples) if draw is not None else None
    boxes = [file for file in dataset.box_files if _is_there(root, dataset, file.file)]
    return Report(
        dataset=dataset,
        root=root,
        splits=tuple(_report(dataset, one, people) for one, people in read),
        absent=_absent(dataset, found) if split is None and annotations is None else (),
        box_files=tuple(f"{b.file} ({b.split}: {b.what})" for b in boxes),
        sheet=sheet,
    )


def _check_split(dataset: Dataset, split: str) -> None:
    splits = {name for layout in dataset.layouts for name in layout.splits}
    if split not in splits:
        raise unknown_name(f"split of {dataset.name}", split, splits)


def _is_there(root: Path, dataset: Dataset, file: str) -> bool:
    return (root / file).exists() or (root / dataset.folder / file).exists()


def _nothing(dataset: Dataset, root: Path, split: str | None) -> PosezooError:
    """The error for an empty folder: what was looked for, or what lies there instead."""
    for file, instead in dataset.unread.items():
        if _is_there(root, dataset, file):
            link = f" ({dataset.get[-1]})" if "`get`" in instead else ""
            return PosezooError(
                f"{root} has {file}, which posezoo does not read; it reads {instead.replace(', see `get`', '')}{link}"
            )
    which = f"the split '{split}'" if split else "nothing"
    where = f"no annotations of {which} of {dataset.name} are" if split else f"nothing of {dataset.name} is"
    return PosezooError(f"{where} in {root}; looked for {wanted(dataset, split)}. How to get it: {dataset.home}")


def _absent(dataset: Dataset, found: Sequence[Found]) -> tuple[str, ...]:
    """The other splits of the layouts that are in use."""
    there, used = {one.split for one in found}, {one.of for one in found}
    rows = [layout.splits for layout in dataset.layouts if layout.of in used]
    return tuple(f"{name} ({paths[0]})" for row in rows for name, paths in row.items() if name not in there)


def _report(dataset: Dataset, found: Found, people: People) -> SplitReport:
    looks = look_at(people.images, people.sizes_wh)
    missing = [image.name for image, one in zip(people.images, looks, strict=True) if one.fault == MISSING]
    # the folder that was looked in is the one that its pictures' paths begin with
    folder = next((f for f in found.images if people.images and people.images[0].is_relative_to(f)), found.images[0])
    return SplitReport(
        split=found.split,
        of=found.of,
        annotations=found.annotations,
        images=folder,
        pictures=len(people.images),
        people=len(people),
        labelled=int((people.weights > 0).any(axis=1).sum()),
        videos=len({frame.video for frame in people.frames}),
        missing=Finding("pictures missing", len(missing), tuple(missing[:SHOWN])),
        odd=tuple(finding for finding in (*_odd(dataset, people), *_odd_pictures(looks)) if finding.count),
        notes=_notes(dataset, found.split, people),
    )


def _notes(dataset: Dataset, split: str, people: People) -> tuple[str, ...]:
    notes = []
    for what, counted, published in (
        ("people", len(people), dataset.people.get(split)),
        ("pictures", len(people.images), dataset.images.get(split)),
    ):
        if published is not None and counted != published:
            notes.append(f"the published {split} split has {published} {what}")
    if not len(people):
        notes.append("nobody is annotated")
    return tuple(notes)


def _odd(dataset: Dataset, people: People) -> list[Finding]:
    """What no sound file has: each with the ids of the first annotations (or pictures) it is true of."""
    boxes: Any = people.boxes_xyxy
    xy: Any = people.keypoints_xy
    labelled: Any = people.weights > 0
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes: Any = people.sizes_wh[people.image_row].astype(np.float32)
    known = (sizes > 0).all(axis=1)
    tight = known & (not dataset.boxes_from)
    outside = ((boxes[:, :2] >= sizes) | (boxes[:, 2:] <= 0)).any(axis=1) & known
    # a square about a centre reaches beyond the picture as a matter of course; a drawn box does so by a pixel at most
    over = ((boxes[:, :2] < -1.5) | (boxes[:, 2:] > sizes + 1.5)).any(axis=1) & tight & ~outside
    off = ((xy < -1.5) | (xy > sizes[:, None] + 0.5)).any(axis=2) & labelled & known[:, None]
    near = 0.25 * np.maximum(sides, 1)[:, None]
    stray = ((xy < boxes[:, None, :2] - near) | (xy > boxes[:, None, 2:] + near)).any(axis=2) & labelled
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(np.where(labelled[..., None], xy, 0)).all(axis=(1, 2))
    ids = people.ids
    return [
        _finding("people with numbers that are not finite", ~finite, ids),
        _finding("boxes without size", (sides <= 0).any(axis=1), ids),
        _finding("boxes outside their picture", outside, ids),
        _finding("boxes that reach beyond their picture", over, ids),
        _finding("people with labelled joints outside their picture", off.any(axis=1), ids),
        _finding("people of whose joints most lie far from their box", stray.sum(1) > labelled.sum(1) / 2, ids),
        _finding("annotations with the id of another", _repeated(ids), ids),
        _finding("people who are there twice", _twice(people), ids),
        _finding("pictures with the id of another", _repeated(people.image_ids), people.image_ids),
    ]  # fmt: skip


def _odd_pictures(looks: Sequence[Look]) -> list[Finding]:
    """What is wrong with pictures that are there."""
    faults = (UNREADABLE, OTHER_SIZE)
    kinds = {f"pictures {fault}": [one.told for one in looks if one.fault == fault] for fault in faults}
    kinds["pictures that Exif turns, with labels that it does not"] = [one.told for one in looks if one.stored]
    return [Finding(what, len(told), tuple(told[:SHOWN])) for what, told in kinds.items()]


def _twice(people: People) -> Marks:
    """Who has the picture, the box and the joints of somebody before."""
    columns = (people.image_row, people.boxes_xyxy, people.keypoints_xy, people.weights)
    keys = [hash(tuple(column[n].tobytes() for column in columns)) for n in range(len(people))]
    return _repeated(np.array(keys, np.int64))


def _repeated(values: NDArray[np.int64]) -> Marks:
    """Which of the values, (N,), have stood there before."""
    again = np.ones(len(values), bool)
    again[np.unique(values, return_index=True)[1]] = False
    return again


def _finding(what: str, true_of: Marks, ids: NDArray[np.int64]) -> Finding:
    rows = np.flatnonzero(true_of)
    return Finding(what, len(rows), tuple(f"id {ids[row]}" for row in rows[:SHOWN].tolist()))


def _draw_sheet(dataset: Dataset, read: list[tuple[Found, People]], path: Path, samples: int) -> Path | None:
    """Tiles of people with all that is labelled around them; None where no picture is there."""
    from posezoo.media.images import write_image

    tiles: list[Image] = []
    for number, (found, people) in enumerate(read):
        share = (samples - len(tiles)) // (len(read) - number)
        for row in _chosen(people, max(share, 1)):
            joints = int((people.weights[row] > 0).sum())
            title = f"{dataset.name} {found.split}, id {people.ids[row]}: {joints} of {len(dataset.joints)} joints"
            tiles.append(_tile(people, row, title))
    if not tiles:
        return None
    columns = min(_COLUMNS, len(tiles))
    blank = np.full_like(tiles[0], _PAPER)
    tiles += [blank] * (-len(tiles) % columns)
    lines = [np.concatenate(tiles[at : at + columns], axis=1) for at in range(0, len(tiles), columns)]
    write_image(path, np.concatenate(lines))
    return path


def _chosen(people: People, count: int) -> list[int]:
    """The people with the most labels, of as many pictures as possible, whose pictures are there."""
    labels = (people.weights > 0).sum(axis=1)
    turns: list[tuple[int, int, int]] = []
    seen: dict[int, int] = {}
    for row in np.argsort(-labels, kind="stable").tolist():
        picture = int(people.image_row[row])
        if labels[row] or not labels.any():
            turns.append((seen.get(picture, 0), len(turns), row))
            seen[picture] = seen.get(picture, 0) + 1
    there = (row for _, _, row in sorted(turns) if people.images[int(people.image_row[row])].is_file())
    return list(islice(there, count))


def _tile(people: People, row: int, title: str) -> Image:
    """One person of a picture, with the picture around and everybody's labels, drawn at the tile's size."""
    import cv2

    from posezoo.draw import draw_poses
    from posezoo.media.images import read_image
    from posezoo.types import Poses

    path, size_wh = people.images[people.image_row[row]], people.sizes_wh[people.image_row[row]]
    # one of another size is drawn too: to see what is wrong is what the sheet is for
    image = read_image(path) if look(path, size_wh).fault else read_labelled(path, size_wh)
    x1, y1, x2, y2 = _around(people.boxes_xyxy[row], image.shape[1], image.shape[0])
    scale = min(_TILE_WH[0] / (x2 - x1), _TILE_WH[1] / (y2 - y1))
    size = max(round((x2 - x1) * scale), 1), max(round((y2 - y1) * scale), 1)
    cut = cv2.resize(image[y1:y2, x1:x2], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    others = people.where(people.image_row == people.image_row[row])
    corner = np.array([x1, y1]) - 0.5
    keypoints_xy = ((np.nan_to_num(others.keypoints_xy) - corner) * scale - 0.5).astype(np.float32)
    boxes_xyxy = ((np.nan_to_num(others.boxes_xyxy) - np.tile(corner, 2)) * scale - 0.5).astype(np.float32)
    poses = Poses(keypoints_xy, others.weights, boxes_xyxy, np.ones(len(others), np.float32), people.skeleton)
    tile = np.full((_TILE_WH[1] + _TITLE, _TILE_WH[0], 3), _PAPER, np.uint8)
    left, top = (_TILE_WH[0] - size[0]) // 2, (_TILE_WH[1] - size[1]) // 2 + _TITLE
    tile[top : top + size[1], left : left + size[0]] = draw_poses(cut, poses, boxes=True)
    font = 0.38 * min(1.0, 50 / len(title))
    cv2.putText(tile, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, font, _INK, 1, cv2.LINE_AA)
    return tile


def _around(box_xyxy: NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """The part of a picture to show: the box and some margin; all of it where the box is not in the picture."""
    box = np.nan_to_num(box_xyxy.astype(np.float64))
    margin = 0.15 * max(box[2] - box[0], box[3] - box[1], 1.0) + 4
    limits = np.array([width, height, width, height])
    x1, y1, x2, y2 = np.clip(box + np.array([-1, -1, 1, 1]) * margin, 0, limits).astype(int).tolist()
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else (0, 0, width, height)
