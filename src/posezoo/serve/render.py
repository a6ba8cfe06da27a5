"""Answers: the people of posezoo's own format, or the picture with them drawn on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import cv2

from posezoo.errors import PosezooError
from posezoo.formats.posezoo import to_table
from posezoo.formats.result import Result
from posezoo.formats.values import json_line
from posezoo.serve.refusals import Refusal
from posezoo.serve.service import Outcome
from posezoo.serve.worker import Model
from posezoo.suppress import person_scores
from posezoo.types import Boxes, Poses

_QUALITY = 92
_KEYS = ("image", "width", "height", "people")


def keep(
    outcomes: Sequence[Outcome], boxes: Sequence[Boxes | None], model: Model, min_score: float | None
) -> list[Poses]:
    """The people of each picture whose score is high enough; nobody where the picture was refused."""
    kept = []
    for (_, done), given in zip(outcomes, boxes, strict=True):
        if isinstance(done, Refusal):
            kept.append(Poses.empty(model.estimator.skeleton))
            continue
        least = (model.least_score if given is None else 0.0) if min_score is None else min_score
        kept.append(done.poses[person_scores(done.poses) >= least])
    return kept


def render_json(model: Model, outcomes: Sequence[Outcome], kept: Sequence[Poses], times: tuple[float, float]) -> bytes:
    """The answer as JSON.

    Args:
        model: which found them.
        outcomes: of each picture.
        kept: of each picture.
        times: when the request came, and when its body was read.
    """
    skeleton = model.estimator.skeleton
    results = [_result(outcome, poses) for outcome, poses in zip(outcomes, kept, strict=True)]
    head = {"model": model.name, "skeleton": skeleton.name, "joints": list(skeleton.joints)}
    return json_line({**head, "results": results, "timing_ms": _timing(outcomes, *times)}).encode()


def _result(outcome: Outcome, poses: Poses) -> dict[str, Any]:
    upload, done = outcome
    if isinstance(done, Refusal):
        return {"image": upload.name, "width": None, "height": None, "people": [], "error": done.message}
    table = to_table(Result(poses, upload.name, size_wh=done.size_wh))
    return {**{key: table[key] for key in _KEYS}, "error": None}


def _timing(outcomes: Sequence[Outcome], started: float, read: float) -> dict[str, float]:
    """Milliseconds: reading the body, waiting for the model, work on the batch; of several pictures the longest."""
    done = [each.done for each in outcomes if not isinstance(each.done, Refusal)]
    seconds = {
        "read": read - started,
        "wait": max((each.wait_s for each in done), default=0.0),
        "work": max((each.work_s for each in done), default=0.0),
        "total": time.perf_counter() - started,
    }
    return {name: round(1e3 * value, 2) for name, value in seconds.items()}


def render_picture(outcome: Outcome, poses: Poses) -> bytes:
    """The picture with the people drawn on it, as JPEG."""
    from posezoo.draw import draw_poses

    assert not isinstance(outcome.done, Refusal) and outcome.done.image_rgb is not None
    image = draw_poses(outcome.done.image_rgb, poses)
    try:
        done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except cv2.error as err:
        raise PosezooError(f"cannot write the picture as JPEG: {err.err}") from None
    if not done:
        raise Refusal(
            "bad_option", f"a picture of {image.shape[1]}x{image.shape[0]} pixels does not fit JPEG: use json"
        )
    return encoded.tobytes()
