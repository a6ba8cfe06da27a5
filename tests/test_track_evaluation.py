"""MOTA, IDF1 and HOTA of whole people: what must come out for made up videos, through TrackEval."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from command_line import run
from posezoo.errors import PosezooError
from posezoo.evaluate.mot import follow
from posezoo.evaluate.tracking import KEYS, Side, evaluate, judge_poses, similarity
from posezoo.skeletons import get_skeleton
from posezoo.suppress import oks
from posezoo.track import Tracker
from posezoo.types import Poses
from scenes import COCO, Trouble, around, back, crossing, make, poses_of

NAMES = list(get_skeleton("posetrack17").joints)


@pytest.fixture
def trackeval():
    return pytest.importorskip("trackeval")


def posetrack(frames: int = 6) -> dict:
    """Two people who stand apart in a video of PoseTrack18's form; the ears are not labelled."""
    shape = np.random.default_rng(0).uniform(0, 100, (17, 2))
    images, people = [], []
    for frame in range(frames):
        image = 1000 + frame
        images.append({"id": image, "file_name": f"images/val/a/{frame:06}.jpg", "frame_id": image, "vid_id": "1",
                       "is_labeled": True, "width": 600, "height": 400,
                       "ignore_regions_x": [[500, 600, 600, 500]], "ignore_regions_y": [[0, 0, 100, 100]]})  # fmt: skip
        for track in (0, 1):
            xy = shape + np.array([50 + 250 * track + frame, 200])
            labels = np.column_stack([xy, np.ones(17)])
            labels[3:5] = 0
            people.append({"id": 10 * image + track, "image_id": image, "track_id": track, "category_id": 1,
                           "keypoints": labels.reshape(-1).tolist(), "bbox": [*xy.min(axis=0), 100, 100],
                           "bbox_head": [*xy.min(axis=0), 20, 20], "iscrowd": False})  # fmt: skip
    person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}
    return {"images": images, "annotations": people, "categories": [person]}


def as_predictions(content: dict) -> list[dict]:
    keys = ("image_id", "keypoints", "track_id")
    return [{**{key: person[key] for key in keys}, "score": 0.9} for person in content["annotations"]]


@pytest.fixture
def video(tmp_path):
    content = posetrack()
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content))
    return content, file


def test_the_truth_itself_is_followed_perfectly(trackeval, video):
    content, file = video
    found = evaluate(as_predictions(content), file)
    assert tuple(found) == KEYS
    for key, value in found.items():
        assert value == pytest.approx(0 if key in ("IDSW", "Frag") else 100), key


def test_the_command_tells_how_people_are_followed(trackeval, video, tmp_path):
    content, file = video
    (tmp_path / "found.json").write_text(json.dumps(as_predictions(content)))
    asked = ["evaluate", "--predictions", str(tmp_path / "found.json"), "--dataset", "posetrack18"]
    asked += ["--annotations", str(file), "--json"]
    plain = run(*asked)
    whole = run(*asked, "--set", "people=true")
    assert plain.code == whole.code == 0
    assert not any(name.startswith("people/") for name in json.loads(plain.out))
    figures = json.loads(whole.out)
    assert figures["people/HOTA"] == figures["people/IDF1"] == pytest.approx(100)
    wrong = run(*asked, "--set", "peple=true")
    assert wrong.code == 2 and "people" in wrong.err


def test_ids_that_change_places_half_way(trackeval, video):
    content, file = video
    predictions = as_predictions(content)
    for prediction in predictions[6:]:
        prediction["track_id"] = 1 - prediction["track_id"]
    found = evaluate(predictions, file)
    assert found["IDSW"] == 2 and found["MOTA"] == pytest.approx(100 * (1 - 2 / 12))
    assert found["IDF1"] == pytest.approx(50) and found["DetA"] == pytest.approx(100)
    assert found["AssA"] == pytest.approx(100 / 3) and found["HOTA"] == pytest.approx(100 * np.sqrt(1 / 3))


def test_people_who_are_missed_made_up_or_not_judged(trackeval, video):
    content, file = video
    predictions = as_predictions(content)
    extra = copy.deepcopy(predictions[0])
    extra |= {"track_id": 9, "keypoints": (np.array(extra["keypoints"]) + np.tile([0, 100, 0], 17)).tolist()}
    found = evaluate([*predictions[:-1], extra], file)
    assert found["MOTA"] == pytest.approx(100 * (1 - 2 / 12)) and found["IDSW"] == 0
    unfollowed = {**extra, "track_id": -1}
    ignored = copy.deepcopy(extra)
    ignored["keypoints"] = np.column_stack([np.full(17, 550), np.full(17, 50), np.ones(17)]).reshape(-1).tolist()
    assert evaluate([*predictions, unfollowed, {**unfollowed}, ignored], file)["MOTA"] == pytest.approx(100)


def test_videos_in_files_of_their_own_are_taken_together(trackeval, tmp_path):
    predictions = []
    for name in ("a", "b"):
        content = json.loads(json.dumps(posetrack()).replace("val/a/", f"val/{name}/"))
        for image in content["images"]:
            image["id"] += 500 * (name == "b")
        for person in content["annotations"]:
            person["image_id"] += 500 * (name == "b")
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        predictions += as_predictions(content)
    assert evaluate(predictions, tmp_path)["HOTA"] == pytest.approx(100)
    assert evaluate(predictions[:12], tmp_path)["MOTA"] == pytest.approx(50)


def test_switches_are_those_of_our_own_count(trackeval):
    """The easy scene judged by who is near whom, with ids that are wrong now and then."""
    scene = make(back(crossing()), 4, Trouble(), 0)
    rng = np.random.default_rng(0)
    tracker = Tracker(COCO)
    found = []
    for poses in scene.found:
        followed = tracker(poses)
        wrong = followed.track_ids + 10 * (rng.random(len(poses)) < 0.1)
        found.append(replace(followed, track_ids=wrong))
    figures = judge_poses(found, scene.truth)
    near = [
        sorted((int(o), int(t), 0.0) for o, t in zip(owners, poses.track_ids, strict=True))
        for owners, poses in zip(scene.owners, found, strict=True)
    ]
    assert figures["IDSW"] == follow(near).switches > 5
    assert figures["HOTA"] < judge_poses([tracker(p) for p in scene.found], scene.truth)["HOTA"]


def test_nobody_found_and_nobody_there(trackeval):
    scene = make(crossing(), 1, Trouble(), 0)
    nobody = [Poses.empty(COCO)] * len(scene.truth)
    assert judge_poses(nobody, scene.truth)["HOTA"] == 0
    assert judge_poses(nobody, scene.truth)["MOTA"] == 0
    assert judge_poses(scene.truth, nobody)["IDF1"] == 0


def test_similarity_is_object_keypoint_similarity():
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0, 100, (3, 17, 2)), rng.uniform(0, 100, (4, 17, 2))
    areas = rng.uniform(500, 5000, 3)
    every = np.ones((4, 17), bool)
    alike = similarity(Side(np.arange(3), truth, every[:3], areas), Side(np.arange(4), found, every, np.zeros(4)), COCO)
    for row in range(3):
        wanted = oks(found, np.full(4, areas[row]), truth[row], areas[row], COCO.oks_sigmas)
        np.testing.assert_allclose(alike[row], wanted)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda p: p[0].pop("track_id"), "no 'track_id'"),
        (lambda p: p[0].update(track_id="seven"), "whole number"),
        (lambda p: p[1].update(track_id=0), "two people with the 'track_id' 0"),
        (lambda p: p[0].update(image_id=7), "7"),
    ],
)
def test_predictions_that_cannot_be_judged(trackeval, video, change, match):
    content, file = video
    predictions = as_predictions(content)
    change(predictions)
    with pytest.raises(PosezooError, match=match):
        evaluate(predictions, file)


def test_poses_that_cannot_be_judged(trackeval):
    xy = np.random.default_rng(0).uniform(0, 90, (2, 17, 2))
    poses = poses_of(xy, around(xy), np.ones((2, 17)), np.ones(2), np.array([1, 1]))
    with pytest.raises(PosezooError, match="'track_id' 1"):
        judge_poses([poses], [poses])
    with pytest.raises(PosezooError, match="Tracker"):
        judge_poses([replace(poses, track_ids=None)], [poses[:1]])
    with pytest.raises(PosezooError, match="2 frames"):
        judge_poses([poses] * 2, [poses])
    with pytest.raises(PosezooError, match="without frames"):
        judge_poses([], [])
    with pytest.raises(PosezooError, match="coco17"):
        judge_poses([Poses.empty(get_skeleton("mpii16"))], [poses[:1]])


def test_without_trackeval_one_line_says_so(monkeypatch, video):
    content, file = video
    monkeypatch.setitem(sys.modules, "trackeval", None)
    with pytest.raises(PosezooError, match="--no-deps trackeval"):
        evaluate(as_predictions(content), file)
