"""Several datasets as one: everybody on one skeleton, joint by joint by name.

What a dataset does not label has weight 0, so that a network of 136 joints learns bodies from one dataset, faces from
another and hands from a third. Boxes are as each dataset has them: in data of single hands that is the hand's own box,
and the crop shows a hand alone, whatever the skeleton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data import joints as names
from posezoo.data.catalog import Dataset, Found, find, get_dataset, wanted
from posezoo.data.coco_style import Floats, People, read_json, to_people
from posezoo.data.pictures import look_for_faults
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton, get_skeleton, map_joints

if TYPE_CHECKING:
    from posezoo.train.recipe import DataPart, Source

_LISTED = 24  # joints of a list that a message names

# Halpe defines these, and leaves them empty in its files (see skeletons/halpe136.toml)
_MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "hip": ("left_hip", "right_hip")}
_WITH_MIDDLES = ("halpe26", "halpe68", "halpe136")


@dataclass(frozen=True, eq=False)
class Mixed:
    """The people of several sources, in the order of the sources and of each one's file.

    Attributes:
        people: all of them on one skeleton. Ids are those of their own files and may repeat.
        source_row: (N,) int64, which source each is of.
        domains: what teachers call each source.
        order_weights: (N,) float64, how often each is to be drawn: 1 is once an epoch.
        notes: what a reader of the log should know, a line each.
    """

    people: People
    source_row: NDArray[np.int64]
    domains: tuple[str, ...]
    order_weights: NDArray[np.float64]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """One source: its people on its own joints, and where each joint wanted stands among them, -1 for nowhere."""

    where: str
    people: People
    columns: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def domain_of(source: Source) -> str:
    """What `distill.teachers` call a source: its domain, else its dataset."""
    return source.domain or source.dataset or ""


def read_sources(
    data: DataPart,
    sources: Sequence[Source],
    *,
    least_joints: int | None = None,
    least_side: float | None = None,
    second_opinion: bool | None = None,
) -> Mixed:
    """The people of several sources on the skeleton `data.skeleton`.

    A source of a known dataset is read by that dataset's reader, and its joints are taken over by name (see
    `skeletons.map_joints`). A COCO-style file without a dataset may have any of the skeleton's joints, in any order, if
    it names them, and otherwise must have them all in the skeleton's order. Single hands become left or right ones as
    COCO-WholeBody says; where nothing says so (OneHand10K) they count as right ones, which flipping makes left ones of.
    The neck and the hip of Halpe's sets are the middles of shoulders and hips, where nobody labelled them.

    Args:
        data: where the sources are, and what is wanted.
        sources: one or more, such as `data.train`. `data.repeat` counts for those alone.
        least_joints: leave out people with fewer labelled joints of the skeleton; None: as `data` says.
        least_side: leave out people whose box has a shorter side, pixels; None: as `data` says.
        second_opinion: reconcile labels with `teacher_keypoints` of files without a dataset; None: as `data` says.

    Raises:
        PosezooError: a source is not there, has other joints (both lists are shown), has nobody to learn from, or has
            more pictures that are missing or of another size than it says than `data.max_missing` allows (the first
            are listed).
    """
    skeleton = get_skeleton(data.skeleton)
    joints = data.least_joints if least_joints is None else least_joints
    side = data.least_side if least_side is None else least_side
    second = data.second_opinion if second_opinion is None else second_opinion
    parts = [
        _present(_large_enough(_read(data, source, skeleton, second), skeleton, joints, side), data.max_missing)
        for source in sources
    ]
    people = _together(parts, skeleton)
    source_row = np.repeat(np.arange(len(parts)), [len(part.people) for part in parts])
    weights = np.array([source.share for source in sources], np.float64)[source_row]
    if tuple(sources) == data.train:
        weights = weights * people.repeats(data.repeat)[people.image_row]
    notes = tuple(note for part in parts for note in (_summary(part, skeleton), *part.notes))
    return Mixed(people, source_row, tuple(domain_of(source) for source in sources), weights, notes)


def _read(data: DataPart, source: Source, skeleton: Skeleton, second_opinion: bool) -> _Part:
    if source.dataset is not None:
        return _from_dataset(get_dataset(source.dataset), data.root, source, skeleton)
    annotations, (images,) = locate(source, data.root)
    people = read_some_joints(annotations, images, skeleton, second_opinion)
    at = {joint: row for row, joint in enumerate(people.skeleton.joints)}
    columns = np.array([at.get(joint, -1) for joint in skeleton.joints], np.int64)
    return _Part(str(annotations), people, columns)


def read_some_joints(path: Path, images: Path, skeleton: Skeleton, second_opinion: bool = False) -> People:
    """The people of a COCO-style file of no known dataset, on the joints of `skeleton` that it has, in its own order.

    They are those that it names. Where it names none, it must have them all, in the skeleton's order.

    Args:
        path: the file.
        images: the folder of its pictures.
        skeleton: the joints that it may have.
        second_opinion: as `coco_style.read_people`.

    Returns:
        Everybody who is not a crowd; their skeleton has the sigmas of `skeleton`.

    Raises:
        PosezooError: the file cannot be read, or has other joints (both lists are shown).
    """
    content, where = read_json(path), str(path)
    hint = "if the file is a known dataset's, set the source's dataset, and joints come over by name"
    try:
        stated, count = names.stated_joints(content), names.keypoint_count(content)
    except (AttributeError, KeyError, TypeError):
        raise PosezooError(f"{where} {names.whose(content)}, and is not a COCO keypoint file; {hint}") from None
    if not stated or count not in (None, len(stated)):
        if count not in (None, len(skeleton)):
            told = f"{where} {names.whose(content)}: {count} a person"
            raise PosezooError(f"{told}; {skeleton.name} has {_listed(skeleton.joints)}; {hint}")
        stated = skeleton.joints
    spelled = {names.plain(joint): joint for joint in skeleton.joints}
    if not {names.plain(joint) for joint in stated} <= spelled.keys():
        raise _no_match(where, stated, skeleton, hint)
    stated = tuple(spelled[names.plain(joint)] for joint in stated)
    sigmas = skeleton.oks_sigmas[[skeleton.index(joint) for joint in stated]]
    own = skeleton if stated == skeleton.joints else Skeleton("the file", stated, oks_sigmas=sigmas)
    return to_people(content, where, images, own, second_opinion=second_opinion)


def _from_dataset(dataset: Dataset, root: Path, source: Source, skeleton: Skeleton) -> _Part:
    """A split of a dataset, or any file of its form."""
    annotations, images = locate(source, root)
    people = read_dataset(dataset.name, annotations, images)
    notes: tuple[str, ...] = ()
    where = f"{dataset.name} ({annotations})"
    if dataset.skeleton == "hand21" and skeleton.name != "hand21":
        people, notes = _sided(people, annotations, skeleton)
    columns = map_joints(people.skeleton, skeleton)
    if (columns < 0).all():
        raise _no_match(where, people.skeleton.joints, skeleton, "none of them is the same: leave this source out")
    return _Part(where, people, columns, tuple(f"{where}: {note}" for note in notes))


def locate(source: Source, root: Path) -> tuple[Path, tuple[Path, ...]]:
    """The annotations of a source, and the folders that its pictures may be in.

    Args:
        source: what it says of itself is taken; a dataset's split fills in the rest.
        root: the folder that its paths start from, and that datasets are looked for in.

    Raises:
        PosezooError: it does not say enough, or its split is not there.
    """
    images = () if source.images is None else (root / source.images,)
    if source.annotations is not None:
        if not images:
            raise PosezooError(f"{source.annotations}: annotations are given; give the images' folder too")
        return root / source.annotations, images
    if source.dataset is None:
        raise PosezooError("a source needs a dataset, or annotations and images")
    found = _find(get_dataset(source.dataset), source.split, root)
    return found.annotations, images or found.images


def _find(dataset: Dataset, split: str | None, root: Path) -> Found:
    """The split in the folder `root`."""
    there = {found.split: found for found in find(dataset, root)}
    if split in there:
        return there[split]
    known = sorted({name for layout in dataset.layouts for name in layout.splits})
    if split is None:
        have = f"; {root} has {', '.join(there)}" if there else ""
        raise PosezooError(f"source {dataset.name}: say which split ({', '.join(known)}){have}")
    if split not in known:
        raise unknown_name(f"split of {dataset.name}", split, known)
    raise PosezooError(f"{root} has no {split} split of {dataset.name}; it would be {wanted(dataset, split)}")


def _sided(people: People, annotations: Path, skeleton: Skeleton) -> tuple[People, tuple[str, ...]]:
    """Single hands as joints of left and right hands; and what to say of those whose side is unknown.

    The wrist is what whole-body sets call the hand's root, and a body's wrist where the skeleton has no hands.
    """
    both = b'"lefthand_kpts"' in annotations.read_bytes()  # then the ids tell the side, see `readers.hands_of`
    right = people.ids % 2 == 1 if both else np.ones(len(people), bool)
    root = "hand_root" if "left_hand_root" in skeleton.joints else "wrist"
    one = tuple(root if joint == "wrist" else joint for joint in people.skeleton.joints)
    hands = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in one)
    sides = [np.where(is_it, np.float32(1), np.float32(0))[:, None] for is_it in (~right, right)]
    sided = replace(
        people,
        keypoints_xy=np.concatenate([people.keypoints_xy * is_it[..., None] for is_it in sides], axis=1),
        weights=np.concatenate([people.weights * is_it for is_it in sides], axis=1),
        skeleton=Skeleton("hands", hands, oks_sigmas=np.tile(people.skeleton.oks_sigmas, 2)),
    )
    notes = () if both else (f"nothing says which hand each of {len(people)} is: they count as right ones",)
    return sided, notes


def _large_enough(part: _Part, skeleton: Skeleton, least_joints: int, least_side: float) -> _Part:
    """Those with enough labelled joints of the skeleton, in boxes large enough to see them."""
    people, known = part.people, part.columns[part.columns >= 0]
    sides = (people.boxes_xyxy[:, 2:] - people.boxes_xyxy[:, :2]).min(axis=1)
    labelled = (people.weights > 0)[:, known].sum(axis=1)
    enough = (labelled >= least_joints) & (sides >= least_side)
    if not len(people):
        raise PosezooError(f"{part.where}: nobody is annotated in it")
    finite = np.isfinite(people.keypoints_xy).all(axis=(1, 2)) & np.isfinite(people.boxes_xyxy).all(axis=1)
    for row in np.flatnonzero(~finite):
        raise PosezooError(f"{part.where}: person {people.ids[row]} has a box or a joint that is not finite")
    if not enough.any():
        lower = "lower data.least_joints or data.least_side"
        if not labelled.any():
            lower = "data.least_joints = 0 lets in people without labels, for whom teachers suffice (distill.label = 0)"
        raise PosezooError(
            f"{part.where}: none of {len(people)} people has {least_joints} labelled joints of {skeleton.name} and a "
            f"box of {least_side:g} pixels; {lower}"
        )
    return part if enough.all() else replace(part, people=people.where(enough))  # a copy of a large thing


def _present(part: _Part, max_missing: float) -> _Part:
    """Those whose picture is there, and is the one that was annotated."""
    people = part.people
    used = np.unique(people.image_row)
    images = [people.images[row] for row in used.tolist()]
    looks, told = look_for_faults(part.where, images, people.sizes_wh[used], max_missing)
    notes = part.notes
    if stored := sum(one.stored for one in looks):
        notes = (*notes, f"{part.where}: {stored} pictures are not turned as Exif says: their labels are not either")
    if not told:
        return replace(part, notes=notes)
    gone = np.isin(people.image_row, used[[bool(one.fault) for one in looks]])
    note = f"{told}; {gone.sum()} people are left out"
    if gone.all():
        raise PosezooError(f"{told}: nobody is left")
    return replace(part, people=people.where(~gone), notes=(*notes, note))


def _together(parts: Sequence[_Part], skeleton: Skeleton) -> People:
    """Everybody on one skeleton. What only some sources know (heads, tracks, crowding, frames) is left out."""
    every = [part.people for part in parts]
    ends = np.cumsum([0, *(len(people) for people in every)])
    first_image = np.cumsum([0, *(len(people.images) for people in every)])
    keypoints_xy = np.zeros((ends[-1], len(skeleton), 2), np.float32)
    weights = np.zeros((ends[-1], len(skeleton)), np.float32)
    for part, start, end in zip(parts, ends, ends[1:], strict=False):
        known = part.columns >= 0
        keypoints_xy[start:end, known] = part.people.keypoints_xy[:, part.columns[known]]
        weights[start:end, known] = part.people.weights[:, part.columns[known]]
    if skeleton.name in _WITH_MIDDLES:
        _add_middles(keypoints_xy, weights, skeleton)

    def column(name: str) -> Any:
        some = [getattr(people, name) for people in every]
        return None if any(one is None for one in some) else np.concatenate(some)

    return People(
        images=tuple(image for people in every for image in people.images),
        image_ids=column("image_ids"),
        sources=tuple(source for people in every for source in people.sources),
        image_row=np.concatenate([p.image_row + first for p, first in zip(every, first_image, strict=False)]),
        ids=column("ids"),
        boxes_xyxy=column("boxes_xyxy"),
        areas=column("areas"),
        keypoints_xy=keypoints_xy,
        weights=weights,
        skeleton=skeleton,
        index=column("index"),
        sizes_wh=column("sizes_wh"),
        heads_xyxy=column("heads_xyxy"),
        track_ids=column("track_ids"),
        crowd_index=column("crowd_index"),
        frames=tuple(f for p in every for f in p.frames) if all(len(p.frames) == len(p.images) for p in every) else (),
    )


def _add_middles(keypoints_xy: Floats, weights: Floats, skeleton: Skeleton) -> None:
    """Set the joints that are the middle of two others, where those are labelled and they are not."""
    for joint, ends in _MIDDLES.items():
        at, a, b = (skeleton.index(name) for name in (joint, *ends))
        rows = (weights[:, at] == 0) & (weights[:, a] > 0) & (weights[:, b] > 0)
        keypoints_xy[rows, at] = (keypoints_xy[rows, a] + keypoints_xy[rows, b]) / 2
        weights[rows, at] = np.minimum(weights[rows, a], weights[rows, b])


def _summary(part: _Part, skeleton: Skeleton) -> str:
    known = int((part.columns >= 0).sum())
    return f"{part.where}: {len(part.people)} people, {known} of the {len(skeleton)} joints of {skeleton.name}"


def _no_match(where: str, theirs: Sequence[str], skeleton: Skeleton, hint: str) -> PosezooError:
    return PosezooError(f"{where} has {_listed(theirs)}; {skeleton.name} has {_listed(skeleton.joints)}; {hint}")


def _listed(joints: Iterable[str]) -> str:
    every = list(joints)
    more = ", ..." if len(every) > _LISTED else ""
    return f"{len(every)} joints ({', '.join(every[:_LISTED])}{more})"
