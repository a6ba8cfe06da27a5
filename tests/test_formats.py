"""Files of poses: what is written is read back the same to 0.01 pixels; a wrong file is an error that says where."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from posezoo.errors import PosezooError
from posezoo.formats import coco, posezoo
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.suppress import person_scores, rescore
from posezoo.types import Poses

COCO = get_skeleton("coco17")


@st.composite
def poses(draw, names=("coco17", "jhmdb15", "hand21"), least: int = 0) -> Poses:
    skeleton = get_skeleton(draw(st.sampled_from(names)))
    people, joints = draw(st.integers(least, 3)), len(skeleton)
    pixels, unit = st.floats(-5000, 20000, width=32), st.floats(0, 1, width=32)
    corner = draw(hnp.arrays(np.float32, (people, 2), elements=pixels))
    extent = draw(hnp.arrays(np.float32, (people, 2), elements=st.floats(0, 3000, width=32)))
    return Poses(
        draw(hnp.arrays(np.float32, (people, joints, 2), elements=pixels)),
        draw(hnp.arrays(np.float32, (people, joints), elements=unit)),
        np.hstack([corner, corner + extent]),
        draw(hnp.arrays(np.float32, people, elements=unit)),
        skeleton,
        draw(st.lists(st.integers(0, 10**9), min_size=people, max_size=people)) if draw(st.booleans()) else None,
    )


def one_person(**changes) -> Poses:
    given = {
        "keypoints_xy": np.arange(34, dtype=float).reshape(1, 17, 2) * 3.333,
        "scores": np.linspace(0.1, 0.9, 17)[None],
        "boxes_xyxy": [[1.234, 2, 100.5, 200]],
        "box_scores": [0.87654],
    }
    return Poses(**{**given, **changes}, skeleton=COCO)


def strict(text: str):
    """Parsed by a reader that knows no NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@settings(max_examples=30, deadline=None)
@given(poses(), st.text(max_size=12), st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)))
def test_posezoo_round_trip(people, image, size_wh):
    text = posezoo.to_json(people, image, size_wh)
    strict(text)
    record = posezoo.from_json(text)
    assert (record.image, record.size_wh) == (image, size_wh)
    back = record.poses
    assert back.skeleton is people.skeleton and len(back) == len(people)
    np.testing.assert_allclose(back.keypoints_xy, people.keypoints_xy, atol=0.0065)  # half a step and float32's own
    np.testing.assert_allclose(back.boxes_xyxy, people.boxes_xyxy, atol=0.0065)
    np.testing.assert_allclose(back.scores, people.scores, atol=5.1e-5)
    np.testing.assert_allclose(back.box_scores, people.box_scores, atol=5.1e-5)
    if len(people) and people.track_ids is not None:
        assert back.track_ids.tolist() == people.track_ids.tolist()
    else:
        assert back.track_ids is None
    assert posezoo.to_json(back, image, size_wh) == posezoo.to_json(posezoo.from_json(text).poses, image, size_wh)


def test_posezoo_layout():
    table = strict(posezoo.to_json(one_person(track_ids=[4]), "a/straße.jpg", (640, 480)))
    assert list(table) == ["format", "image", "width", "height", "skeleton", "joints", "people"]
    assert (table["format"], table["image"], table["width"], table["height"]) == ("posezoo/1", "a/straße.jpg", 640, 480)
    assert table["skeleton"] == "coco17" and table["joints"] == list(COCO.joints)
    (person,) = table["people"]
    assert person["box"] == [1.23, 2, 100.5, 200] and person["box_score"] == 0.8765 and person["track_id"] == 4
    assert person["keypoints"][:2] == [[0, 3.33, 0.1], [6.67, 10.0, 0.15]] and len(person["keypoints"]) == 17
    expected = rescore([0.87654], one_person().scores)[0]
    assert person["score"] == pytest.approx(expected, abs=5e-5) and 0 < person["score"] < 1


def test_posezoo_nobody():
    text = posezoo.to_json(Poses.empty(COCO), "x.jpg", (3, 2))
    assert strict(text)["people"] == []
    assert len(posezoo.from_json(text).poses) == 0


def test_posezoo_joints_are_read_by_name():
    table = strict(posezoo.to_json(one_person(), "x.jpg", (3, 2)))
    straight = posezoo.from_json(json.dumps(table)).poses
    table["joints"].reverse()
    table["people"][0]["keypoints"].reverse()
    turned = posezoo.from_json(json.dumps(table)).poses
    assert np.array_equal(turned.keypoints_xy, straight.keypoints_xy) and np.array_equal(turned.scores, straight.scores)


def test_posezoo_joints_that_were_not_placed():
    xy = one_person().keypoints_xy.copy()
    xy[0, 3] = np.nan
    xy[0, 4] = (1, np.inf)
    text = posezoo.to_json(one_person(keypoints_xy=xy), "x.jpg", (3, 2))
    assert strict(text)["people"][0]["keypoints"][3:5] == [[None, None, 0.0]] * 2
    back = posezoo.from_json(text).poses
    assert np.isnan(back.keypoints_xy[0, 3:5]).all() and (back.scores[0, 3:5] == 0).all()
    assert posezoo.to_json(back, "x.jpg", (3, 2)) == posezoo.to_json(posezoo.from_json(text).poses, "x.jpg", (3, 2))


def test_posezoo_from_a_file_and_with_a_users_skeleton(tmp_path):
    mine = Skeleton("mine", ("a", "b"), oks_sigmas=[0.1, 0.1])
    text = posezoo.to_json(Poses([[[1, 2], [3, 4]]], [[1, 0.5]], [[0, 0, 4, 4]], [1], mine), "x.jpg", (5, 5))
    path = tmp_path / "x.json"
    path.write_text(text)
    assert posezoo.from_json(path, mine).poses.keypoints_xy.tolist() == [[[1, 2], [3, 4]]]
    with pytest.raises(PosezooError, match="unknown skeleton 'mine'"):
        posezoo.from_json(path)


@pytest.mark.parametrize("write", [lambda p: posezoo.to_json(p, "x", (1, 1)), lambda p: coco.to_json([p], ["x"])])
def test_a_score_that_is_not_finite_cannot_be_written(write):
    scores = np.full((1, 17), np.nan)
    with pytest.raises(PosezooError, match="cannot write nan: "):
        write(one_person(scores=scores))


def test_a_box_that_is_not_finite_cannot_be_written():
    with pytest.raises(PosezooError, match="cannot write inf: "):
        posezoo.to_json(one_person(boxes_xyxy=[[0, 0, np.inf, 1]]), "x", (1, 1))


def person_of(table: dict) -> dict:
    return table["people"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format="posezoo/9"), "'format' is 'posezoo/9', expected 'posezoo/1'"),
        (lambda t: t.pop("width"), "'width' is missing"),
        (lambda t: t.update(width=-1), "'width' is -1"),
        (lambda t: t.update(height=2.5), "'height' is 2.5, expected a whole number"),
        (lambda t: t.update(image=None), "'image' is None"),
        (lambda t: t.update(skeleton="coco18"), "did you mean coco17"),
        (lambda t: t.update(poeple=[]), "unknown key 'poeple'; did you mean people"),
        (lambda t: t["joints"].__setitem__(0, "noze"), "'noze'; did you mean nose"),
        (lambda t: t["joints"].__setitem__(1, "nose"), "joint 'nose' of coco17 is listed 2 times"),
        (lambda t: t["joints"].pop(), "joint 'right_ankle' of coco17 is listed 0 times"),
        (lambda t: t.update(joints=3), "'joints' must be a list"),
        (lambda t: t.update(people={}), "'people' must be a list"),
        (lambda t: t["people"].append(3), "person 1 is 3"),
        (lambda t: person_of(t).pop("box"), "person 0: 'box' is missing"),
        (lambda t: person_of(t).update(box=[1, 2, 3]), "person 0: 'box' has 3 values, expected 4 numbers"),
        (lambda t: person_of(t).update(box=[1, 2, 3, "4"]), "person 0: 'box' is '4', expected a number"),
        (lambda t: person_of(t).update(box_score=True), "'box_score' is True"),
        (lambda t: person_of(t).update(box_score=10**400), "'box_score' is 1000"),
        (lambda t: person_of(t)["keypoints"].pop(), "person 0 has 16 keypoints, expected 17"),
        (lambda t: person_of(t).update(keypoints=None), "person 0 has NoneType, expected 17"),
        (lambda t: person_of(t)["keypoints"].__setitem__(2, [1, 2]), "keypoint 2 has 2 values"),
        (lambda t: person_of(t)["keypoints"].__setitem__(2, [None, 2, 0]), "keypoint 2 is None"),
        (lambda t: person_of(t).update(track_id="7"), "'track_id' is '7'"),
        (lambda t: person_of(t).update(track_id=1 << 70), "'track_id' is 1180"),
        (lambda t: t["people"].append({**person_of(t), "track_id": 3}), "some people have a track id"),
        (lambda t: person_of(t).update(keypoint=[]), "unknown key 'keypoint'; did you mean keypoints"),
    ],
)
def test_a_wrong_posezoo_file_is_named_with_the_place(tmp_path, change, message):
    table = strict(posezoo.to_json(one_person(), "x.jpg", (3, 2)))
    change(table)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(table))
    with pytest.raises(PosezooError, match=message) as caught:
        posezoo.from_json(path)
    assert "\n" not in str(caught.value)
    if "skeleton" not in message and "coco17" not in message:
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [posezoo.from_json, lambda text: coco.from_json(text, COCO)])
@pytest.mark.parametrize("text", ["", "{", "[NaN]", '{"format": Infinity}', "[" * 100_000, b"\xff\xfe", "hello"])
def test_what_is_no_json_is_an_error(read, text):
    with pytest.raises(PosezooError, match="is not valid JSON"):
        read(text)


@pytest.mark.parametrize("read", [posezoo.from_json, lambda text: coco.from_json(text, COCO)])
def test_files_that_cannot_be_read(tmp_path, read):
    with pytest.raises(PosezooError, match=r"cannot read .*none.json"):
        read(tmp_path / "none.json")
    (tmp_path / "picture.json").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PosezooError, match=r"picture.json is not JSON"):
        read(tmp_path / "picture.json")


@settings(max_examples=30, deadline=None)
@given(st.lists(poses(("coco17",), least=1), max_size=3))
def test_coco_round_trip(many):
    images = [f"{i:012d}.jpg" for i in range(len(many))]
    text = coco.to_json(many, images)
    assert all(set(r) == {"image_id", "category_id", "keypoints", "score"} for r in strict(text))
    back = coco.from_json(text, COCO)
    assert list(back) == list(range(len(many)))
    for people, again in zip(many, back.values(), strict=True):
        # 0, 0, 0 is a joint that was not placed
        placed = np.isfinite(again.keypoints_xy).all(axis=2)
        assert (people.scores[~placed] < 5.1e-5).all() and (np.abs(people.keypoints_xy[~placed]) < 0.0051).all()
        np.testing.assert_allclose(again.keypoints_xy[placed], people.keypoints_xy[placed], atol=0.0065)
        np.testing.assert_allclose(again.scores, people.scores, atol=5.1e-5)
        np.testing.assert_allclose(again.box_scores, person_scores(people), atol=5.1e-5)


def test_coco_layout():
    (result,) = strict(coco.to_json([one_person(), Poses.empty(COCO)], ["val/000000000785.jpg", "x.jpg"]))
    assert list(result) == ["image_id", "category_id", "keypoints", "score"]
    assert result["image_id"] == 785 and result["category_id"] == 1
    assert len(result["keypoints"]) == 51 and result["keypoints"][:6] == [0, 3.33, 0.1, 6.67, 10.0, 0.15]
    assert strict(coco.to_json([], [])) == [] == strict(coco.to_json([Poses.empty(COCO)], ["x.jpg"]))


@pytest.mark.parametrize(
    ("images", "ids"),
    [
        (["000000000785.jpg", "dir/12.png"], [785, 12]),
        (
            ["COCO_val2014_000000000139.jpg", "COCO_12.jpg", "xCOCO_val2014_7.jpg"],
            [139, "COCO_12.jpg", "xCOCO_val2014_7.jpg"],
        ),
        (["street.jpg", "12a.png", "-3.png", "1.5.png"], ["street.jpg", "12a.png", "-3.png", "1.5.png"]),
        (["12.jpg", "0012.png", "13.jpg"], ["12.jpg", "0012.png", 13]),
        (["a/7.jpg", "b/7.jpg", "a/x.jpg", "b/x.jpg"], ["a/7.jpg", "b/7.jpg", "a/x.jpg", "b/x.jpg"]),
        (["٣.jpg", "9" * 30 + ".jpg"], ["٣.jpg", "9" * 30 + ".jpg"]),
        ([], []),
    ],
)
def test_coco_image_ids_are_numbers_where_they_can_be_and_unique(images, ids):
    assert coco.image_ids(images) == ids


def test_coco_an_image_twice_is_an_error():
    with pytest.raises(PosezooError, match=r"image a\.jpg is listed twice"):
        coco.to_json([Poses.empty(COCO)] * 2, ["a.jpg", "a.jpg"])


def test_coco_joints_that_were_not_placed_are_zero():
    xy = one_person().keypoints_xy.copy()
    xy[0, 3] = np.nan
    (result,) = strict(coco.to_json([one_person(keypoints_xy=xy)], ["x"]))
    assert result["keypoints"][9:12] == [0, 0, 0]
    assert not any(math.isnan(v) for v in result["keypoints"])


def test_coco_boxes_come_from_the_file_or_the_joints():
    entry = {"image_id": "x.jpg", "category_id": 1, "score": 0.5}
    keypoints = [10, 20, 0.5, 30, 25, 0.9] + [0, 0, 0] * 15
    boxed, bare, blank = (
        coco.from_json(json.dumps([{**entry, **more}]), COCO)["x.jpg"].boxes_xyxy[0].tolist()
        for more in (
            {"keypoints": keypoints, "bbox": [1, 2, 3, 4]},
            {"keypoints": keypoints},
            {"keypoints": [5, 6, 0] * 17},
        )
    )
    assert (boxed, bare, blank) == ([1, 2, 4, 6], [10, 20, 30, 25], [5, 6, 5, 6])


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "expected a list of results, but it is a dict"),
        ([1], "result 0 is 1, expected an object"),
        ([{"image_id": 1, "score": 1}], "result 0: 'keypoints' is missing"),
        ([{"image_id": 1.5, "score": 1, "keypoints": [0] * 51}], "result 0: 'image_id' is 1.5"),
        ([{"image_id": True, "score": 1, "keypoints": [0] * 51}], "result 0: 'image_id' is True"),
        ([{"image_id": 1, "score": 1, "keypoints": [0] * 50}], "'keypoints' has 50 values, expected 51 numbers"),
        ([{"image_id": 1, "score": 1, "keypoints": "x"}], "'keypoints' is str, expected 51 numbers"),
        ([{"image_id": 1, "score": 1, "keypoints": [None] * 51}], "'keypoints' is None, expected a number"),
        ([{"image_id": 1, "score": "x", "keypoints": [0] * 51}], "'score' is 'x'"),
        ([{"image_id": 1, "score": 1, "keypoints": [0] * 51, "bbox": [0, 0, -1, 1]}], "'bbox' has a negative size"),
    ],
)
def test_a_wrong_coco_file_is_named_with_the_place(tmp_path, results, message):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(results))
    with pytest.raises(PosezooError, match=message) as caught:
        coco.from_json(path, COCO)
    assert str(path) in str(caught.value)


def test_cocos_own_evaluation_reads_it(shared):
    pycocotools = pytest.importorskip("pycocotools.coco")
    file = shared / "samples/coco/test_coco.json"
    truth = json.loads(file.read_text())
    people: dict[str, list[np.ndarray]] = {}
    for annotation in truth["annotations"]:
        if annotation["num_keypoints"] > 0:
            name = f"{annotation['image_id']:012d}.jpg"
            people.setdefault(name, []).append(np.reshape(annotation["keypoints"], (17, 3)))
    many = []
    for rows in people.values():
        xyv = np.array(rows, np.float32)
        many.append(Poses(xyv[..., :2], xyv[..., 2] > 0, np.tile([0, 0, 9, 9], (len(xyv), 1)), np.ones(len(xyv)), COCO))
    from pycocotools.cocoeval import COCOeval

    gt = pycocotools.COCO(str(file))
    evaluation = COCOeval(gt, gt.loadRes(strict(coco.to_json(many, list(people)))), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
