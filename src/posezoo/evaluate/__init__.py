"""Measures of predictions against annotations, each dataset's own.

`evaluate_predictions` judges a predictions file as it is; `run` makes one with a model, under a protocol.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from posezoo.errors import PosezooError, unknown_name

__all__ = ["JUDGES", "evaluate_predictions"]

_OKS = ("coco", "ochuman", "crowdpose", "aic", "mhp", "halpe26", "halpe136", "halpe68", "wholebody133")
JUDGES = MappingProxyType(
    {
        **dict.fromkeys(_OKS, "posezoo.evaluate.oks"),
        **dict.fromkeys(("mpii", "jhmdb", "hand21"), "posezoo.evaluate.pck"),
        "mpii_trb": "posezoo.evaluate.trb",
        "posetrack18": "posezoo.evaluate.posetrack",
    }
)
"""The module whose `evaluate` judges each dataset."""


def evaluate_predictions(
    predictions: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    dataset: str,
    annotations: str | os.PathLike[str] | Mapping[str, Any],
    **protocol: Any,
) -> dict[str, float]:
    """Judge predictions as they are, by the dataset's own metric: nothing is suppressed, no score is changed.

    Args:
        predictions: a JSON file, or its list: `{image_id, keypoints: [x, y, score] * K, score}` as in COCO's results;
            for mpii, mpii_trb, jhmdb and hand21, where each annotated person has one prediction,
            `{annotation: index of the annotation in the file, keypoints, score}`. Pixels count from 0.
        dataset: one of `JUDGES`.
        annotations: the dataset's file (PoseTrack18: the folder of per-video files), or its contents.
        protocol: what the dataset's judge takes besides, such as `crowd_index`, `threshold` or `offset`.

    Returns:
        Name to number, under the names and in the units of the dataset's reference evaluator.

    Raises:
        PosezooError: unknown dataset or option; a file that cannot be read; predictions that cannot be judged.
    """
    if dataset not in JUDGES:
        raise unknown_name("dataset", dataset, JUDGES)
    from posezoo.evaluate.predictions import check_unique, read_predictions

    where = "predictions"
    if isinstance(predictions, str | os.PathLike):
        where = os.fspath(predictions)
        predictions = read_predictions(Path(predictions))
    if not len(predictions):
        raise PosezooError(f"{where}: the list is empty, there is nothing to judge")
    truth = Path(annotations) if isinstance(annotations, str | os.PathLike) else annotations
    module = importlib.import_module(JUDGES[dataset])
    known = inspect.signature(getattr(module, "JUDGES", {}).get(dataset, module.evaluate)).parameters
    for option in protocol:
        if option not in known:
            raise unknown_name(f"option of {dataset}", option, set(known) - {"predictions", "annotations", "dataset"})
    found = module.evaluate(predictions, truth, dataset, **protocol)
    check_unique(predictions, dataset)
    return found
