"""MPII-TRB: what share of the 14 joints, the 26 points of the outline, and all is found (Duan et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.errors import PosezooError, unknown_name
from posezoo.evaluate.predictions import Prediction
from posezoo.evaluate.truth import head_lengths, one_per_annotation, read_coco

SKELETON_JOINTS = 14  # the rest of the 40 are the outline's


def evaluate(
    predictions: Sequence[Prediction],
    annotations: Path | Mapping[str, Any],
    dataset: str = "mpii_trb",
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Judge predictions of mpii_trb as they are.

    A point is found if it is nearer to its label than `threshold` heads, strictly; a head is 0.6 of the diagonal of
    the annotation's `headbox` (x1, y1, x2, y2). The shares are over all labels, not over people or joints. A person
    without a prediction has nothing found.

    Args:
        predictions: `{annotation: index in the file, keypoints: [x, y, score] * 40, score}`; pixels, from 0.
        annotations: the COCO-style file, or its contents.
        dataset: "mpii_trb".
        threshold: in heads.

    Returns:
        Skeleton_acc, Contour_acc, Mean_acc, fractions in single precision as in MMPose; NaN where nothing is labelled.

    Raises:
        PosezooError: the annotations cannot be read, a labelled person has no head box, or a prediction does not belong
            to an annotation.
    """
    if dataset != "mpii_trb":
        raise unknown_name("dataset judged by TRB's accuracy", dataset, ["mpii_trb"])
    where = str(annotations) if isinstance(annotations, Path) else "the annotations"
    truth = read_coco(annotations, dataset)
    found = one_per_annotation(predictions, len(truth.visible), dataset)
    units = threshold * _heads(truth.entries, np.flatnonzero(truth.visible.any(axis=1)).tolist(), where)
    off = np.linalg.norm(found - truth.joints_xy.astype(np.float32), axis=2)
    hit = truth.visible & (off < units[:, None])
    parts = {"Skeleton": slice(SKELETON_JOINTS), "Contour": slice(SKELETON_JOINTS, None), "Mean": slice(None)}
    return {f"{name}_acc": _share(hit[:, part], truth.visible[:, part]) for name, part in parts.items()}


def _heads(entries: Sequence[Mapping[str, Any]], judged: list[int], where: str) -> np.ndarray:
    """The length of each annotation's head (N,); 0 for those who are not judged and have no box."""
    for number in judged:
        if "headbox" not in entries[number]:
            raise PosezooError(
                f"{where}: annotation {number} has no 'headbox', the unit of MPII-TRB's accuracy; the validation file "
                "of the TRB authors has one for everybody, the training file has none"
            )
    try:
        return head_lengths(np.array([a.get("headbox", (0, 0, 0, 0)) for a in entries], np.float64).reshape(-1, 4))
    except (OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} has a 'headbox' that is not x1, y1, x2, y2: {err}") from None


def _share(hit: np.ndarray, labelled: np.ndarray) -> float:
    """The share of labels that are hit."""
    with np.errstate(invalid="ignore"):
        return float(np.float32(hit.sum()) / np.float32(labelled.sum()))
