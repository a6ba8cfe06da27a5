"""Average precision as COCO defines it: by object keypoint similarity for poses, by overlap for boxes.

The engine is hotcoco (a port of pycocotools whose figures are the same to the last bit).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posezoo.data.coco_style import read_json
from posezoo.skeletons import Skeleton

KEYPOINT_KEYS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
BOX_KEYS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR", "ARS", "ARM", "ARL")


def keypoint_ap(annotations: Path, results: Sequence[dict[str, Any]], skeleton: Skeleton) -> dict[str, float]:
    """OKS average precision and recall.

    Args:
        annotations: COCO keypoint file.
        results: COCO results, `{image_id, category_id, keypoints (3K), score}`.
        skeleton: whose sigmas to use.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL, in [0, 1]; -1 where the file has nobody of that size.
    """
    truth = read_json(annotations)
    return _evaluate(truth, list(results), "keypoints", KEYPOINT_KEYS, skeleton)


def box_ap(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Box average precision and recall of results `{image_id, category_id, bbox (x, y, w, h), score}`."""
    return _evaluate(truth, list(results), "bbox", BOX_KEYS, None)


def _evaluate(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: str, keys: tuple[str, ...], skeleton: Skeleton | None
) -> dict[str, float]:
    if not results:  # the engine has no empty result set; nothing found scores nothing
        return dict.fromkeys(keys, 0.0)
    from hotcoco import COCO, COCOeval

    annotated = COCO({"info": {}, **truth})
    engine = COCOeval(annotated, annotated.load_res(results), kind)
    if skeleton is not None:
        engine.params.kpt_oks_sigmas = skeleton.oks_sigmas.tolist()
    engine.evaluate()
    engine.accumulate()
    engine.summary_lines()
    return dict(zip(keys, (float(v) for v in engine.stats), strict=True))
