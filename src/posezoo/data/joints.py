"""Which joint is which in an annotation file: by the names it states, and whose joints they are where they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.catalog import Dataset, get_dataset, list_datasets
from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton, map_joints

# COCO-WholeBody keeps its joints in five lists (its data_format.md); each is a run of the joints of wholebody133.
PARTS = (("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))

_LISTED = 24  # joints that a message names


def plain(name: str) -> str:
    """A joint's name as it is compared: "Right Shoulder" and "Right-shoulder" are right_shoulder."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def stated_joints(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that a COCO-style file states for its keypoints, () where it states none."""
    for category in content.get("categories") or ():
        names = category.get("keypoints") or ()
        if names:
            return tuple(plain(str(name)) for name in names)
    return ()


def keypoint_count(content: Mapping[str, Any]) -> int | None:
    """How many keypoints the first annotation that has any has; None where none has.

    Raises:
        PosezooError: its keypoints are not three numbers each.
    """
    for annotation in content["annotations"]:
        if numbers := annotation.get("keypoints"):
            if len(numbers) % 3:
                who = f"annotation {annotation.get('id', '')}".rstrip()
                raise PosezooError(f"{who} has {len(numbers)} numbers as its keypoints, not three (x, y, v) for each")
            return len(numbers) // 3
    return None


def order(content: Mapping[str, Any], where: str, dataset: Dataset) -> tuple[NDArray[np.int64], int]:
    """Where each joint of the dataset's skeleton stands in the annotations of a COCO-style file.

    By the names that the file states. Where it states none, the file must have as many joints as one of the sets that
    the dataset's files are in, and that set's order is taken.

    Args:
        content: the file, parsed.
        where: what to call it in errors.
        dataset: whose it should be.

    Returns:
        columns (K,), and how many joints an annotation has.

    Raises:
        PosezooError: the file has the joints of another dataset, which the message names.
    """
    return _order(content, where, dataset.joints, dataset.sets, dataset.spelled, dataset.name)


def own_order(content: Mapping[str, Any], where: str, skeleton: Skeleton) -> tuple[NDArray[np.int64], int]:
    """As `order`, of a file of no known dataset, which has the joints of `skeleton`."""
    return _order(content, where, skeleton, (skeleton,), {}, skeleton.name)


def _order(
    content: Mapping[str, Any],
    where: str,
    wanted: Skeleton,
    sets: Sequence[Skeleton],
    spelled: Mapping[str, str],
    owner: str,
) -> tuple[NDArray[np.int64], int]:
    try:
        stated, count = stated_joints(content), keypoint_count(content)
    except PosezooError as err:
        raise PosezooError(f"{where}: {err}") from None
    except (AttributeError, KeyError, TypeError) as err:
        raise PosezooError(f"{where} is not a COCO keypoint file: {type(err).__name__} {err}") from None
    names = tuple(spelled.get(name, name) for name in stated)
    if names and count is not None and len(names) != count:
        names = ()  # COCO-WholeBody's and others' categories speak of a part of the joints only
    for joints in sets:
        own = [plain(joint) for joint in joints.joints]
        if names and set(names) == set(own):
            at = np.array([names.index(joint) for joint in own], np.int64)
            return at[map_joints(joints, wanted)], len(names)
        if not names and count in (None, len(joints)):
            return map_joints(joints, wanted), len(joints)
    raise PosezooError(f"{where} {whose(content)}, not those of {owner} ({_few(wanted.joints)})")


def labels(entries: Sequence[Mapping[str, Any]], columns: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The labels of annotations, (N, K, 3) of x, y, v, in the order of `columns`; 0 for those without any.

    Raises:
        PosezooError: one has another number of keypoints than `count`, or something that is no number.
    """
    given = np.zeros((len(entries), count, 3))
    for n, entry in enumerate(entries):
        values = entry.get("keypoints")
        if not values:
            continue
        if len(values) != 3 * count:
            raise PosezooError(f"annotation {entry.get('id', n)} has {len(values) / 3:g} keypoints, not {count}")
        try:
            given[n] = np.reshape(values, (count, 3))
        except (OverflowError, TypeError, ValueError) as err:
            who = f"annotation {entry.get('id', n)}"
            raise PosezooError(f"{who} has keypoints that are not x, y, v of each: {err}") from None
    return given[:, columns]


def coco_content(content: Any, where: str, dataset: Dataset) -> dict[str, Any]:
    """`content` if it has COCO's parts.

    Raises:
        PosezooError: it has not; the message says what it is.
    """
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        # the annotations of test videos are not published
        return {**content, "annotations": content.get("annotations") or []}
    lacks = isinstance(content, dict) and "annotations" in content
    told = "has no list of 'images'" if lacks else whose(content)
    raise PosezooError(f"{where} {told}; {dataset.name} wants a COCO-style file")


def need_annotations(content: Any, where: str) -> None:
    """Refuse the file of pictures whose annotations are not published: nobody can be judged by it.

    Raises:
        PosezooError: it is such a file.
    """
    if isinstance(content, Mapping) and "images" in content and content.get("annotations") is None:
        raise PosezooError(f"{where} has pictures but no 'annotations': nobody can be judged by it")


def is_mpii(content: list[Any]) -> bool:
    """Whether a JSON list is one of MPII's people, as HRNet writes them, or is empty."""
    return not content or (isinstance(content[0], dict) and {"center", "scale", "image"} <= set(content[0]))


def whose(content: Any) -> str:
    """What an annotation file has, in words: "has the joints of crowdpose (left_shoulder, ...)"."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if content and is_mpii(content):
            return "has the joints of mpii"
        if "keypoint_annotations" in first:
            return "has the joints of aic (in AI Challenger's own form)"
        if "score" in first:
            return "is a list of results, not of annotations; it has the scores"
        return "is a list without annotated people"
    try:
        stated, count, entries = stated_joints(content), keypoint_count(content), content["annotations"] or [{}]
    except PosezooError as err:
        return f"is no keypoint file: {err}"
    except (AttributeError, KeyError, TypeError):
        return "has no 'images' and 'annotations'"
    if "face_kpts" in entries[0]:
        return "has the joints of wholebody133, and of coco"
    owners = _owners(stated) if stated and count in (None, len(stated)) else []
    if not owners and count is not None:
        owners = [name for name in list_datasets() if any(len(joints) == count for joints in get_dataset(name).sets)]
    few = f" ({_few(stated)})" if stated else ""
    return f"has the joints of {' or '.join(owners)}{few}" if owners else f"has {count or 0} joints{few}"


def _owners(names: Sequence[str]) -> list[str]:
    """The datasets whose joints have these names."""
    datasets = [get_dataset(name) for name in list_datasets()]
    return [
        d.name
        for d in datasets
        if any({d.spelled.get(name, name) for name in names} == set(map(plain, joints.joints)) for joints in d.sets)
    ]


def _few(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_LISTED]) + (f", ... {len(every)} in all" if len(every) > _LISTED else "")
