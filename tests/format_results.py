"""Results to write and to read, for the tests of the formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.formats import FORMATS, Format, Result, open_writer
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.types import Poses

COCO = get_skeleton("coco17")

_without_arrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs the extra parquet")
every_format = pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(format, id=name, marks=[_without_arrow] if name == "parquet" else [])
        for name, format in FORMATS.items()
    ],
)


def some_poses(skeleton: Skeleton, people: int = 2, seed: int = 0, tracked: bool = True) -> Poses:
    """People whose joints all differ, each in a box."""
    rng = np.random.default_rng(seed)
    joints = len(skeleton)
    corner = rng.uniform(0, 200, (people, 2))
    return Poses(
        rng.uniform(1, 600, (people, joints, 2)),
        rng.uniform(0.25, 1, (people, joints)),
        np.hstack([corner, corner + rng.uniform(10, 400, (people, 2))]),
        rng.uniform(0.3, 1, people),
        skeleton,
        np.arange(people) + 4 if tracked else None,
    )


def frames(count: int, people: int = 1, start: int = 0) -> list[Result]:
    """The first frames of a video, somebody in each."""
    every = range(start, start + count)
    return [Result(some_poses(COCO, people, frame), "a.mp4", frame, frame / 25, (640, 480)) for frame in every]


def write(
    format: str, output: Path, records: Iterable[Result], skeleton: Skeleton = COCO, **options: Any
) -> list[Path]:
    with open_writer(format, output, skeleton, **options) as writer:
        for record in records:
            writer.add(record)
        return writer.close()


def strict(text: str) -> Any:
    """Parsed by a reader that knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def assert_same(back: Result, record: Result, format: Format) -> None:
    """All that the format keeps is there again, and no more."""
    skeleton, lost = record.poses.skeleton, format.unplaced(record.poses.skeleton)
    assert back.poses.skeleton == skeleton and len(back.poses) == len(record.poses)
    held = np.array([joint not in lost for joint in skeleton.joints])
    was, now = record.xys(), back.xys()
    np.testing.assert_allclose(now[:, held, :2], was[:, held, :2], atol=0.0065)
    np.testing.assert_allclose(now[:, held, 2], was[:, held, 2], atol=5.1e-5)
    assert np.isnan(now[:, ~held, :2]).all() and (now[:, ~held, 2] == 0).all()
    kept = format.keeps
    if "person scores" in kept:
        np.testing.assert_allclose(back.scores, record.scores, atol=5.1e-5)
    if "boxes" in kept:
        np.testing.assert_allclose(back.poses.boxes_xyxy, record.poses.boxes_xyxy, atol=0.012)  # x and width rounded
    if "box scores" in kept:
        np.testing.assert_allclose(back.poses.box_scores, record.poses.box_scores, atol=5.1e-5)
    ids = record.poses.track_ids if "track ids" in kept and len(record.poses) else None
    assert (back.poses.track_ids is None) == (ids is None)
    if ids is not None:
        assert back.poses.track_ids.tolist() == ids.tolist()
    if {"image names", "boxes", "times"} <= kept:  # alphapose has the file name without its folder
        assert back.image == record.image
    assert back.frame == (record.frame if "frame numbers" in kept else None)
    assert back.time_s == (pytest.approx(record.time_s, abs=1e-6) if "times" in kept else None)
    assert back.size_wh == (record.size_wh if "image sizes" in kept else None)
