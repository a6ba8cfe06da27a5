"""Average precision by object keypoint similarity, of each dataset by its own rules; and COCO's, of boxes.

The rules are those of the evaluators that the published figures come from: pycocotools for COCO, xtcocotools (Jin et
al., Whole-Body Human Pose Estimation in the Wild, ECCV 2020) as MMPose calls it for the others. Poses go through our
own arrays (`average_precision`), boxes through hotcoco.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data import joints as names
from posezoo.data.catalog import get_dataset
from posezoo.data.coco_style import read_json
from posezoo.data.readers import coco_form
from posezoo.errors import PosezooError, unknown_name
from posezoo.evaluate.average_precision import KEYPOINT_KEYS, Found, Matches, Truth, match, summarise
from posezoo.evaluate.predictions import PART_FIELDS, Columns, Prediction, number_lists, to_columns, with_ids
from posezoo.skeletons import Skeleton

__all__ = ["BOX_KEYS", "CROWDPOSE_KEYS", "KEYPOINT_KEYS", "RULES", "Rules", "box_ap", "evaluate", "keypoint_ap"]

BOX_KEYS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR", "ARS", "ARM", "ARL")
CROWDPOSE_KEYS = ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "APE", "APMedium", "APH")
BOX_FILL = 0.53
"""The share of a person's box that is person, where the annotated area does not count."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """What the evaluators of the datasets do differently; skeleton and area are in the catalogue.

    Attributes:
        own_count: who has no labelled joint is seen from the annotation's `num_keypoints` (in CrowdPose, only visible
            joints), not by counting.
        unscored: poses with no joint that scores above 0 are judged too.
        crowd_index: a picture is easy below the first number, medium below the second, else hard. The paper (Li et
            al., CrowdPose, CVPR 2019) has 0.1 for the first, xtcocotools, with which MMPose measured its figures, 0.2.
        by_part: also judge each part of the body by itself.
    """

    own_count: bool = False
    unscored: bool = False
    crowd_index: tuple[float, float] | None = None
    by_part: bool = False


COCO_RULES = Rules(own_count=True, unscored=True)
RULES = {
    "coco": COCO_RULES,
    "ochuman": Rules(),
    "crowdpose": Rules(own_count=True, crowd_index=(0.2, 0.8)),
    "aic": Rules(),
    "mhp": Rules(),
    "halpe26": Rules(),
    "halpe136": Rules(),
    "halpe68": Rules(),
    "wholebody133": Rules(by_part=True),
}


@dataclass(frozen=True)
class _Task:
    """Predictions of which dataset are judged by which rules, on which joints, and whether boxes give the areas."""

    dataset: str
    rules: Rules
    skeleton: Skeleton
    box_area: bool = False


def evaluate(
    predictions: Sequence[Prediction],
    annotations: Path | Mapping[str, Any],
    dataset: str,
    crowd_index: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Judge predictions as they are: no suppression, no new scores.

    Args:
        predictions: `{image_id, keypoints: [x, y, score] * K, score}`. A whole body may also come as the five lists of
            `PART_FIELDS`, with a score of its own for each part (`foot_score`, ..., `wholebody_score`).
        annotations: the dataset's COCO-style file, or its contents. Every annotation is taken for a person.
        dataset: one of `RULES`.
        crowd_index: for crowdpose, other borders between easy, medium and hard, see `Rules`.

    Returns:
        `KEYPOINT_KEYS`, in [0, 1]; -1 where the file has nobody of that size. crowdpose: `CROWDPOSE_KEYS`.
        wholebody133: also each under `body/`, `foot/`, `face/`, `lefthand/`, `righthand/` and `wholebody/`.

    Raises:
        PosezooError: unknown dataset; predictions or annotations that are not of the dataset's form.
    """
    if dataset not in RULES:
        raise unknown_name("dataset judged by keypoint similarity", dataset, RULES)
    rules = RULES[dataset]
    if crowd_index is not None and rules.crowd_index is None:
        raise PosezooError(f"crowd_index is for crowdpose, {dataset} has none")
    where = str(annotations) if isinstance(annotations, Path) else "the annotations"
    content = read_json(annotations) if isinstance(annotations, Path) else annotations
    if crowd_index is not None:
        rules = replace(rules, crowd_index=crowd_index)
    entry = get_dataset(dataset)
    names.need_annotations(content, where)
    content, columns, count = coco_form(content, where, entry)
    task = _Task(dataset, rules, entry.joints, entry.area == "box")
    return _judge(_Labelled(content, where, columns, count), predictions, task)


def keypoint_ap(annotations: Path, results: Sequence[Prediction], skeleton: Skeleton) -> dict[str, float]:
    """COCO's average precision and recall for any keypoint set.

    Args:
        annotations: COCO keypoint file; its joints are those of the skeleton in its order, or in the one that it names.
        results: COCO results, `{image_id, keypoints (3K), score}`.
        skeleton: whose sigmas to use.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL, in [0, 1]; -1 where the file has nobody of that size. No
        results at all score 0 everywhere.
    """
    if not results:
        return dict.fromkeys(KEYPOINT_KEYS, 0.0)
    content, where = read_json(annotations), str(annotations)
    columns, count = names.own_order(content, where, skeleton)
    return _judge(_Labelled(content, where, columns, count), results, _Task("coco", COCO_RULES, skeleton))


def box_ap(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Box average precision and recall of results `{image_id, category_id, bbox (x, y, w, h), score}`."""
    if not results:  # the engine has no empty result set; nothing found scores nothing
        return dict.fromkeys(BOX_KEYS, 0.0)
    from hotcoco import COCO, COCOeval

    annotated = COCO({"info": {}, **truth})
    engine = COCOeval(annotated, annotated.load_res(list(results)), "bbox")
    engine.evaluate()
    engine.accumulate()
    engine.summary_lines()
    return dict(zip(BOX_KEYS, (float(v) for v in engine.stats), strict=True))


@dataclass(frozen=True)
class _Labelled:
    """COCO-style contents, what to call them, and the order of their joints, see `joints.order`."""

    content: Mapping[str, Any]
    where: str
    columns: NDArray[np.int64]
    count: int


def _judge(labelled: _Labelled, predictions: Sequence[Prediction], task: _Task) -> dict[str, float]:
    rules, sigmas, where = task.rules, task.skeleton.oks_sigmas, labelled.where
    try:
        pictures = {picture["id"]: picture for picture in labelled.content["images"]}
        ids = sorted(pictures)
        truth = _truth(labelled, {value: row for row, value in enumerate(ids)}, task)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not a COCO keypoint file: {type(err).__name__} {err}") from None
    except PosezooError as err:
        raise PosezooError(f"{where}: {err}") from None
    predictions = with_ids(predictions, pictures)
    columns = to_columns(predictions, ids, task.skeleton.joints, task.dataset)
    if rules.by_part:
        return _by_part(truth, predictions, columns, task)
    matches = _match(truth, _found(columns, _areas(predictions, columns)), columns, sigmas, rules)
    if rules.crowd_index is None:
        return summarise(matches)
    try:
        crowdedness = np.array([pictures[value]["crowdIndex"] for value in ids], np.float64)
    except (KeyError, OverflowError, TypeError, ValueError):
        raise PosezooError(f"{where}: a picture has no 'crowdIndex'; easy, medium and hard need one for each") from None
    return _crowdpose(matches, crowdedness, rules.crowd_index)


def _truth(given: _Labelled, row: Mapping[Any, int], task: _Task) -> Truth:
    """The people of the pictures in `row`, in columns."""
    entries = [entry for entry in given.content["annotations"] if entry["image_id"] in row]
    keypoints = names.labels(entries, given.columns, given.count)
    labelled = keypoints[..., 2] > 0
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool)
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    areas = boxes[:, 2] * boxes[:, 3] * BOX_FILL
    if not task.box_area:
        sizes = [entry.get("area") for entry in entries]
        areas = np.array([box if own is None else own for own, box in zip(sizes, areas, strict=True)], np.float64)
    unlabelled = ~labelled.any(axis=1)
    if task.rules.own_count:
        counts = [entry.get("num_keypoints") for entry in entries]
        unlabelled = np.where([count is None for count in counts], unlabelled, [count == 0 for count in counts])
    image = np.array([row[entry["image_id"]] for entry in entries], np.intp)
    return Truth(image, keypoints[..., :2], labelled, areas, boxes, crowd, crowd | unlabelled.astype(bool))


def _areas(predictions: Sequence[Prediction], columns: Columns, joints: int | None = None) -> Doubles:
    """(N,) of the predictions' own boxes if all have one, else of the boxes around the first `joints` keypoints."""
    if len(predictions) and all(prediction.get("bbox") is not None for prediction in predictions):
        boxes = number_lists([prediction["bbox"] for prediction in predictions], 4, "bbox")
        return boxes[:, 2] * boxes[:, 3]
    x, y = (columns.keypoints[:, :joints, axis].copy() for axis in (0, 1))
    return (x.max(axis=1) - x.min(axis=1)) * (y.max(axis=1) - y.min(axis=1))


def _found(columns: Columns, areas: Doubles) -> Found:
    return Found(columns.rows, columns.keypoints[..., :2], columns.scores, areas)


def _match(truth: Truth, found: Found, columns: Columns, sigmas: Doubles, rules: Rules) -> Matches:
    """`match`, without the poses that the rules leave out."""
    if not rules.unscored:
        seen = (columns.keypoints[..., 2] > 0).any(axis=1)
        found = Found(found.image[seen], found.keypoints_xy[seen], found.scores[seen], found.areas[seen])
    return match(truth, found, sigmas)


def _crowdpose(matches: Matches, crowdedness: Doubles, borders: tuple[float, float]) -> dict[str, float]:
    """CrowdPose's figures; the three by crowdedness are rounded to four digits, as its published code does."""
    figures = {key: value for key, value in summarise(matches).items() if key in CROWDPOSE_KEYS}
    level = np.digitize(crowdedness, borders)
    for number, key in enumerate(("APE", "APMedium", "APH")):
        figures[key] = round(summarise(matches, np.flatnonzero(level == number))["AP"], 4)
    return figures


def _by_part(truth: Truth, predictions: Sequence[Prediction], columns: Columns, task: _Task) -> dict[str, float]:
    """The figures of each part by its own joints and sigmas, then of the whole, also without a prefix.

    The area of a pose is always that of its body, and the area of a person the annotated one.
    """
    sizes = [len(task.skeleton.parts[name]) for name in ("body", "feet", "face", "left_hand", "right_hand")]
    ends = np.cumsum(sizes).tolist()
    slices = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    areas = _areas(predictions, columns, sizes[0])
    figures: dict[str, float] = {}
    for part, joints in [*zip(PART_FIELDS, slices, strict=True), ("wholebody", slice(None))]:
        labelled = truth.labelled[:, joints]
        people = replace(
            truth,
            keypoints_xy=truth.keypoints_xy[:, joints],
            labelled=labelled,
            ignored=truth.crowd | ~labelled.any(axis=1),
        )
        own = "score" if part == "body" else f"{part}_score"
        scores = number_lists([(each.get(own, each["score"]),) for each in predictions], 1, own)[:, 0]
        of_part = Columns(columns.rows, columns.keypoints[:, joints], scores)
        matches = _match(people, _found(of_part, areas), of_part, task.skeleton.oks_sigmas[joints], task.rules)
        figures |= {f"{part}/{key}": value for key, value in summarise(matches).items()}
    return figures | {key: figures[f"wholebody/{key}"] for key in KEYPOINT_KEYS}
