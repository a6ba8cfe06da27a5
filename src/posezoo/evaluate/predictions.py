"""Predictions files: reading them, and saying in one line what is wrong with one.

The form is that of COCO's results: a list of `{image_id, keypoints: [x, y, score] * K, score}`. Where each annotated
person has exactly one prediction, it is `{annotation: index of the annotation in the file, keypoints, score}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.catalog import get_dataset, list_datasets
from posezoo.errors import PosezooError, unknown_name
from posezoo.formats.coco import names_of
from posezoo.skeletons import get_skeleton

Prediction = Mapping[str, Any]

SKELETONS = {name: get_dataset(name).skeleton for name in list_datasets()}
"""The keypoint set of each dataset's predictions."""

BY_ANNOTATION = ("mpii", "mpii_trb", "jhmdb", "hand21")
"""Datasets where each annotated person has one prediction, which names its annotation."""

PART_FIELDS = {
    "body": "keypoints",
    "foot": "foot_kpts",
    "face": "face_kpts",
    "lefthand": "lefthand_kpts",
    "righthand": "righthand_kpts",
}
"""What COCO-WholeBody calls the keypoints of each part, in the order of wholebody133."""


@dataclass(frozen=True, eq=False)
class Columns:
    """N predictions in columns.

    Attributes:
        rows: (N,) the place of each one's picture (or annotation) among the ids it was checked against.
        keypoints: (N, K, 3) x and y in pixels, score.
        scores: (N,) of the poses.
    """

    rows: NDArray[np.intp]
    keypoints: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The list in a predictions file.

    Raises:
        PosezooError: it is a folder, cannot be read, is cut off or not JSON, or holds something else than a list of
            predictions.
    """
    if path.is_dir():
        inside = sorted(path.glob("*.json"))
        hint = f"; did you mean {inside[0]}?" if len(inside) == 1 else ""
        raise PosezooError(f"{path} is a folder, expected a JSON file of predictions{hint}")
    try:
        text = path.read_bytes().strip()
        content = json.loads(text)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    except (ValueError, RecursionError) as err:  # a number of thousands of digits is a ValueError
        if not text:
            raise PosezooError(f"{path} is an empty file, expected a JSON list of predictions") from None
        if text[:1] in b"[{" and text[-1:] not in b"]}":
            end = text[-20:].decode(errors="replace")
            raise PosezooError(f"{path} is cut off: it ends with '{end}' after {len(text)} bytes") from None
        raise PosezooError(f"{path} is not valid JSON: {err}") from None
    if isinstance(content, dict):
        keys = ", ".join(sorted(content)[:5]) or "nothing"
        raise PosezooError(f"{path} holds an object with {keys}; expected a list of {_form('image_id')}")
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise PosezooError(f"{path} is not a list of predictions {_form('image_id')}")
    return content


def check_predictions(
    predictions: Sequence[Prediction],
    dataset: str,
    ids: Collection[Any],
    joints: Sequence[str] | None = None,
    where: str = "predictions",
) -> None:
    """Refuse what cannot be judged or what nobody means to have judged.

    Args:
        predictions: what `read_predictions` gave.
        dataset: its name.
        ids: of the pictures that are annotated; for the datasets of `BY_ANNOTATION` the indices of the annotations.
        joints: the K names; those of the dataset's keypoint set if none are given.
        where: what the message calls them, such as the file.

    Raises:
        PosezooError: none at all; a missing field; another number of keypoints (the message names the datasets that
            have it); unknown ids; a value that is not finite; the same prediction twice.
    """
    if dataset not in SKELETONS:
        raise unknown_name("dataset", dataset, SKELETONS)
    if not len(predictions):
        raise PosezooError(f"{where}: the list is empty, there is nothing to judge")
    try:
        to_columns(predictions, ids, joints or get_skeleton(SKELETONS[dataset]).joints, dataset)
        check_unique(predictions, dataset)
    except PosezooError as err:
        raise PosezooError(f"{where}: {err}") from None


def to_columns(
    predictions: Sequence[Prediction], ids: Collection[Any], joints: Sequence[str], dataset: str = "coco"
) -> Columns:
    """The predictions as arrays.

    Args:
        predictions: any number of them.
        ids: of the pictures or annotations; `Columns.rows` are places in it.
        joints: the K names.
        dataset: decides which field names the picture or annotation, and the advice in messages.

    Raises:
        PosezooError: see `check_predictions`.
    """
    key = "annotation" if dataset in BY_ANNOTATION else "image_id"
    for field in (key, "keypoints", "score"):
        for n, prediction in enumerate(predictions):
            if field not in prediction:
                raise PosezooError(f"prediction {n} has no '{field}'; expected {_form(key)} for {dataset}")
    rows = _rows([prediction[key] for prediction in predictions], ids, key)
    flat = [keypoint_list(prediction) for prediction in predictions]
    for n, values in enumerate(flat):
        if not _is_flat(values):
            raise PosezooError(
                f"prediction {n}: its keypoints must be one flat list, x, y, score of each joint in turn"
            )
        if len(values) != 3 * len(joints):
            raise PosezooError(f"prediction {n} {_wrong_length(len(values), dataset, len(joints))}")
    keypoints = _numbers(flat, 3 * len(joints), "the keypoints").reshape(-1, len(joints), 3)
    for n, joint, axis in np.argwhere(~np.isfinite(keypoints)).tolist():
        what = f"{('x', 'y', 'score')[axis]} of keypoint {joint} ({joints[joint]})"
        raise PosezooError(f"prediction {n}: {what} is {keypoints[n, joint, axis]}, expected a finite number")
    scores = number_lists([(prediction["score"],) for prediction in predictions], 1, "score")[:, 0]
    return Columns(rows, keypoints, scores)


def with_ids(predictions: Sequence[Prediction], pictures: Mapping[Any, Mapping[str, Any]]) -> Sequence[Prediction]:
    """The predictions with the ids of their pictures: all by ids or all by file names, whichever finds more.

    AlphaPose's results have names where COCO's have ids, and those of `posezoo predict` the number that a file is
    called by, which not every dataset has for an id. A mixture would take that number for the id of another picture.

    Args:
        predictions: any number of them.
        pictures: the entries of the annotation file by their ids.

    Raises:
        PosezooError: names find more, and not all.
    """
    given = [prediction.get("image_id") for prediction in predictions]
    if not all(isinstance(value, int | str) for value in given):
        return predictions
    ids: dict[int | str | None, Any] = {}
    for value, picture in pictures.items():
        for name in names_of(str(picture.get("file_name", ""))):
            ids[name] = None if name in ids else value  # what two pictures are called is neither
    missing = [n for n, name in enumerate(given) if ids.get(name) is None]
    if len(missing) >= sum(value not in pictures for value in given):
        return predictions
    if missing:
        raise PosezooError(
            f"{len(missing)} of {len(given)} predictions are of pictures that the annotation file lacks, the first "
            f"(prediction {missing[0]}) of {given[missing[0]]!r}; the others go by the names of the files"
        )
    return [{**each, "image_id": ids[name]} for each, name in zip(predictions, given, strict=True)]


def keypoint_list(entry: Mapping[str, Any]) -> Sequence[float]:
    """The numbers of a prediction or an annotation; a whole body's parts one after the other, if they come apart."""
    if "foot_kpts" not in entry:
        return entry["keypoints"]
    for field in PART_FIELDS.values():
        if not isinstance(entry.get(field), Sequence | np.ndarray):
            given = f"its '{field}' is {entry[field]!r}" if field in entry else f"no '{field}'"
            raise PosezooError(f"an entry has 'foot_kpts' but {given}; a whole body is {', '.join(PART_FIELDS)}")
    return list(chain.from_iterable(entry[field] for field in PART_FIELDS.values()))


def datasets_with(joints: int) -> list[str]:
    """The datasets that have so many keypoints."""
    return [name for name, skeleton in SKELETONS.items() if len(get_skeleton(skeleton)) == joints]


def number_lists(lists: Sequence[Any], each: int, field: str) -> NDArray[np.float64]:
    """(N, each) finite numbers that predictions have as a field.

    Raises:
        PosezooError: one has something else, or another number of them; the message names it.
    """
    for n, values in enumerate(lists):
        if each > 1 and not (_is_flat(values) and len(values) == each):
            raise PosezooError(f"prediction {n}: its {field} is {values!r:.60}, expected {each} numbers")
    numbers = _numbers(lists, each, f"the {field}")
    for n in np.flatnonzero(~np.isfinite(numbers).all(axis=1)).tolist():
        odd = numbers[n][~np.isfinite(numbers[n])][0]
        has = "is" if each == 1 else "has"
        raise PosezooError(f"prediction {n}: its {field} {has} {odd}, expected a finite number")
    return numbers


def _is_flat(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1
    return isinstance(values, list | tuple) and not (values and isinstance(values[0], list | tuple))


def _numbers(lists: Sequence[Sequence[float]], each: int, what: str) -> NDArray[np.float64]:
    """(N, each) of lists of so many numbers, or an error that names the prediction whose list has something else."""
    try:
        numbers = np.fromiter(chain.from_iterable(lists), np.float64, count=len(lists) * each)
    except (OverflowError, TypeError, ValueError):
        for n, values in enumerate(lists):
            for value in values:
                if not isinstance(value, int | float | np.number):
                    raise PosezooError(f"prediction {n}: {value!r:.60} in {what} is no number") from None
                if isinstance(value, int) and abs(value) > sys.float_info.max:
                    raise PosezooError(f"prediction {n}: a number in {what} is beyond what a computer holds") from None
        raise
    return numbers.reshape(len(lists), each)


def _form(key: str) -> str:
    return f"{{{key}, keypoints: [x, y, score] * K, score}}"


def _wrong_length(numbers: int, dataset: str, joints: int) -> str:
    """What `numbers` are, and which dataset they fit."""
    if numbers == 2 * joints:
        return f"has {numbers} numbers for {joints} keypoints: the scores are missing, expected x, y, score for each"
    if numbers % 3:
        return f"has {numbers} numbers as keypoints, not three for each: {dataset} has {joints}, so {3 * joints}"
    fitting = datasets_with(numbers // 3)
    advice = f"; {numbers // 3} is what {' and '.join(fitting)} have" if fitting else "; no dataset has so many"
    return f"has {numbers // 3} keypoints, but {dataset} has {joints}{advice}"


def _rows(given: Sequence[Any], ids: Collection[Any], key: str) -> NDArray[np.intp]:
    """The place of each in `ids`."""
    place = {value: row for row, value in enumerate(ids)}
    try:
        rows = [place.get(value, -1) for value in given]
    except TypeError as err:
        raise PosezooError(f"'{key}' must be a number: {err}") from None
    unknown = [n for n, row in enumerate(rows) if row < 0]
    if unknown:
        wrong = given[unknown[0]]
        what = "pictures" if key == "image_id" else "people"
        hint = f"{key}s there are such as {', '.join(map(repr, list(place)[:3]))}" if place else "it has none"
        raise PosezooError(
            f"{len(unknown)} of {len(given)} predictions are of {what} that the annotation file lacks, the first "
            f"(prediction {unknown[0]}) of {key} {wrong!r}; {hint}"
        )
    return np.array(rows, np.intp)


def check_unique(predictions: Sequence[Prediction], dataset: str) -> None:
    """Refuse two predictions for one annotation, and the same pose with the same score twice in a picture.

    Raises:
        PosezooError: there are such; the message names the two.
    """
    first: dict[Any, int] = {}
    for n, prediction in enumerate(predictions):
        if dataset in BY_ANNOTATION:
            one, again = prediction["annotation"], "is for the same annotation as"
        else:
            pose = np.asarray(keypoint_list(prediction), np.float64).tobytes()
            one, again = (prediction["image_id"], prediction["score"], pose), "is the same as"
        if one in first:
            named = {k: prediction[k] for k in ("image_id", "annotation") if k in prediction}
            of = ", ".join(f"{k} {value}" for k, value in named.items())
            raise PosezooError(f"prediction {n} ({of}) {again} prediction {first[one]}; each person is judged once")
        first[one] = n
