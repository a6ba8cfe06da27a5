"""Validation on a COCO-style file of no known dataset: its joints are taken by name, as training takes them."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.data.mixed import read_sources  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from posezoo.types import Poses  # noqa: E402
from train_fixtures import _one_thread, people, recipe_of  # noqa: E402

COCO = get_skeleton("coco17")


def renamed(folder: Path, target: Path, joints: list[int]) -> dict[str, Any]:
    """`write_people`'s file with these joints alone, each at a place of its own, under their names; as a source."""
    content = json.loads((folder / "people.json").read_text())
    content["categories"][0]["keypoints"] = [COCO.joints[n].replace("_", " ").title() for n in joints]
    for entry in content["annotations"]:
        keypoints = np.reshape(entry["keypoints"], (-1, 3)).astype(float)
        keypoints[:, 0] += np.arange(17)
        entry["keypoints"] = keypoints[joints].reshape(-1).tolist()
        entry["num_keypoints"] = len(joints)
    target.write_text(json.dumps(content))
    return {"annotations": str(target), "images": "."}


def figures_of_labels(task: PoseTask, shift: float = 0) -> dict[str, float]:
    """The figures of a network that gives what training learns from, each joint `shift` pixels beside it."""
    judge = task._judge
    assert judge is not None
    taught = read_sources(task.recipe.data, task.recipe.data.train).people
    found = []
    for one in judge.tasks:
        rows = [int(np.flatnonzero((taught.boxes_xyxy == box).all(axis=1))[0]) for box in one.boxes.xyxy]
        xy = taught.keypoints_xy[rows] + np.float32(shift)
        found.append((one, Poses(xy, np.ones(xy.shape[:2], np.float32), one.boxes.xyxy, one.boxes.scores, COCO)))
    return judge.judged(found)


@pytest.mark.parametrize(
    "joints", [list(range(17)), list(range(17))[::-1], list(range(5, 17)), [16, 9, 0]], ids=len
)  # fmt: skip
def test_a_perfect_network_is_judged_perfect_whatever_the_order(
    people: Callable[[str], Path], tmp_path: Path, joints: list[int]
) -> None:
    folder = people("coco17")
    source = renamed(folder, tmp_path / "some.json", joints)
    # one picture alone: boxes tell its people apart, and every picture of the file has the same boxes
    content = json.loads((tmp_path / "some.json").read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] == 0]
    (tmp_path / "some.json").write_text(json.dumps(content))
    task = PoseTask(recipe_of(folder, train=source, data={"validate": source}))
    assert figures_of_labels(task)["AP"] == pytest.approx(1)
    assert figures_of_labels(task, shift=60)["AP"] < 0.1


def test_joints_keep_the_sigmas_of_their_names(people: Callable[[str], Path], tmp_path: Path) -> None:
    folder = people("coco17")
    figures = []
    for joints in (list(range(17)), list(range(17))[::-1]):
        source = renamed(folder, tmp_path / "some.json", joints)
        task = PoseTask(recipe_of(folder, train=source, data={"validate": source}))
        assert task.judged_by is not None
        own = task.judged_by.skeleton
        assert own.oks_sigmas.tolist() == [COCO.oks_sigmas[COCO.index(joint)] for joint in own.joints]
        figures.append(figures_of_labels(task, shift=3))
    assert figures[0] == figures[1] and 0 < figures[0]["AP"] < 1


def test_other_joints_are_refused_for_validation_as_for_training(
    people: Callable[[str], Path], tmp_path: Path
) -> None:  # fmt: skip
    folder = people("coco17")
    source = renamed(folder, tmp_path / "some.json", [0, 1, 2])
    content = json.loads((tmp_path / "some.json").read_text())
    content["categories"][0]["keypoints"][1] = "tail"
    (tmp_path / "some.json").write_text(json.dumps(content))
    with pytest.raises(PosezooError, match=r"has 3 joints \(nose, tail, right_eye\); coco17 has 17 joints"):
        PoseTask(recipe_of(folder, data={"validate": source}))
