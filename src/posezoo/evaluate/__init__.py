"""Measures of predictions against annotations, each dataset's own.

`evaluate_predictions` judges a predictions file as it is; `run` makes one with a model, under a protocol.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from posezoo.errors import PosezooError, unknown_name
from posezoo.evaluate.options import check_options

__all__ = ["JUDGES", "evaluate_predictions", "judge"]

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
    annotations: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    **protocol: Any,
) -> dict[str, float]:
    """Judge predictions as they are, by the dataset's own metric: nothing is suppressed, no score is changed.

    Args:
        predictions: a JSON file, or its list: `{image_id, keypoints: [x, y, score] * K, score}` as in COCO's results,
            joints in the order of the dataset's keypoint set whatever that of the annotations;
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
    return judge(predictions, dataset, annotations, protocol)


def judge(
    predictions: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    dataset: str,
    annotations: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    own: bool = False,
) -> dict[str, float]:
    """As `evaluate_predictions`; of what a run of our `own` found a pose may be there twice, as its box then is."""
    from posezoo.evaluate.predictions import check_unique, read_predictions

    checked = options_of(dataset, options)
    where = "predictions"
    if isinstance(predictions, str | os.PathLike):
        where = os.fspath(predictions)
        predictions = read_predictions(Path(predictions))
    if not len(predictions):
        raise PosezooError(f"{where}: the list is empty, there is nothing to judge")
    if odd := [n for n, each in enumerate(predictions) if not isinstance(each, Mapping)][:1]:
        raise PosezooError(f"{where}: prediction {odd[0]} is {predictions[odd[0]]!r:.60}, expected an object")
    truth = Path(annotations) if isinstance(annotations, str | os.PathLike) else annotations
    module = importlib.import_module(JUDGES[dataset])
    found: dict[str, float] = module.evaluate(predictions, truth, dataset, **checked)
    if not own:
        check_unique(predictions, dataset)
    return found


def options_of(dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a dataset's judge, checked.

    Raises:
        PosezooError: unknown dataset or option, or a value that cannot be.
    """
    if dataset not in JUDGES:
        raise unknown_name("dataset", dataset, JUDGES)
    module = importlib.import_module(JUDGES[dataset])
    return check_options(getattr(module, "JUDGES", {}).get(dataset, module.evaluate), dataset, given)
