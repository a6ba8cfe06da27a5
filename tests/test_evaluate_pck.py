"""PCKh, PCK by box and torso, MPII-TRB's accuracies and the hands': the reference's own figures, and literal loops."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.evaluate import pck, trb


def array(field) -> np.ndarray:
    return np.array(field["data"]).reshape(field["shape"])


def listed(poses) -> list[dict]:
    """A predictions list, in some other order than the annotations'."""
    rows = [
        {"annotation": n, "keypoints": [v for x, y in pose for v in (float(x), float(y), 0.5)], "score": 0.5}
        for n, pose in enumerate(poses)
    ]
    return rows[::-1]


# ---- the functions on arrays


@pytest.fixture(scope="module")
def mmpose(parity) -> dict:
    return json.loads((parity / "ops" / "mmpose_pck.json").read_text())


def test_pck_auc_epe_nme_are_mmposes_to_the_last_bit(mmpose):
    predicted, truth, visible, scale = (array(mmpose[name]) for name in ("pred", "gt", "mask", "normalize"))
    for threshold, (shares, mean, count) in mmpose["pck"].items():
        found = pck.pck_accuracy(predicted, truth, visible, float(threshold), scale)
        np.testing.assert_array_equal(found[0], array(shares))
        assert found[1:] == (float(array(mean)), int(array(count)))
    assert pck.auc(predicted, truth, visible, 30) == mmpose["auc"]
    assert pck.epe(predicted, truth, visible) == mmpose["epe"]
    assert pck.nme(predicted, truth, visible, scale) == mmpose["nme"]


def test_pck_of_heatmaps_is_mmposes(parity, mmpose):
    from fill import make_heatmaps

    maps, target = make_heatmaps(2, 17, 64, 48), make_heatmaps(2, 17, 64, 48, seed=6)
    shares, mean, count = next(value for name, value in mmpose.items() if name.startswith("pose_pck_accuracy"))
    found = pck.pose_pck_accuracy(maps, target, np.ones((2, 17), bool))
    np.testing.assert_array_equal(found[0], array(shares))
    assert found[1:] == (float(array(mean)), int(array(count)))
    assert pck.pose_pck_accuracy(maps, maps, np.ones((2, 17), bool))[1] == 1.0


def loop_pck(predicted, truth, visible, threshold, scale):
    shares = []
    for joint in range(predicted.shape[1]):
        right = people = 0
        for n in range(len(predicted)):
            if visible[n, joint] and scale[n, 0] and scale[n, 1]:
                off = [(predicted[n, joint, axis] - truth[n, joint, axis]) / scale[n, axis] for axis in (0, 1)]
                people += 1
                right += math.hypot(*off) < threshold
        shares.append(right / people if people else -1)
    known = [share for share in shares if share >= 0]
    return shares, sum(known) / len(known) if known else 0, len(known)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 5))
def test_pck_is_what_a_loop_counts(seed, people, joints):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 100, (people, joints, 2))
    predicted = truth + rng.normal(0, 20, truth.shape)
    predicted[rng.random((people, joints)) < 0.1] = np.nan
    visible = rng.random((people, joints)) < 0.7
    scale = rng.choice([0.0, 40.0, 90.0], (people, 2), p=[0.1, 0.5, 0.4])
    before = scale.copy()
    shares, mean, count = pck.pck_accuracy(predicted, truth, visible, 0.4, scale)
    expected = loop_pck(predicted, truth, visible, 0.4, scale)
    np.testing.assert_allclose(shares, expected[0], atol=1e-15)
    assert mean == pytest.approx(expected[1]) and count == expected[2]
    np.testing.assert_array_equal(scale, before)
    means = [loop_pck(predicted, truth, visible, step / 20, np.full((people, 2), 30.0))[1] for step in range(20)]
    assert pck.auc(predicted, truth, visible, 30) == pytest.approx(sum(means) / 20)


def test_a_joint_that_was_not_predicted_is_infinitely_far():
    truth = np.zeros((1, 2, 2))
    predicted = np.array([[[3.0, 4.0], [np.nan, 0.0]]])
    assert pck.epe(predicted, truth, [[1, 0]]) == 5
    assert pck.epe(predicted, truth, [[1, 1]]) == np.inf
    assert pck.epe(predicted, truth, [[0, 0]]) == 0


# ---- MPII


@pytest.fixture(scope="module")
def mpii(parity) -> tuple[Path, dict, list[dict]]:
    fixture = json.loads((parity / "ops" / "hrnet_mpii_pckh.json").read_text())
    return parity / "ops" / fixture["gt_mat"], fixture, listed(array(fixture["pred_0based"]))


def as_json(fixture: dict, boxes: bool = True) -> list[dict]:
    """The people of the .mat file as MMPose's list."""
    joints, missing, heads = (array(fixture[name]) for name in ("pos_gt_src", "jnt_missing", "headboxes_src"))
    people = [
        {
            "image": "a.jpg",
            "center": [0, 0],
            "scale": 1.0,
            "joints": joints[..., n].tolist(),
            "joints_vis": (1 - missing[:, n]).tolist(),
            "headbox": heads[..., n].ravel().tolist(),
        }
        for n in range(joints.shape[-1])
    ]
    return people if boxes else [{k: v for k, v in p.items() if k != "headbox"} for p in people]


def test_pckh_is_hrnets_to_the_last_bit(mpii):
    path, fixture, predictions = mpii
    found = pck.evaluate(predictions, path, "mpii")
    assert found == fixture["result"]
    assert list(found) == list(fixture["result"])


def test_pckh_from_the_list_of_people(mpii, tmp_path):
    path, fixture, predictions = mpii
    assert pck.evaluate(predictions, as_json(fixture), "mpii") == fixture["result"]
    file = tmp_path / "mpii_val.json"
    file.write_text(json.dumps(as_json(fixture)))
    assert pck.evaluate(predictions, file, "mpii") == fixture["result"]
    file.write_text(json.dumps(as_json(fixture, boxes=False)))
    with pytest.raises(PosezooError, match=r"person 0 has no 'headbox'.*gt_valid\.mat"):
        pck.evaluate(predictions, file, "mpii")
    (tmp_path / "mpii_gt_val.mat").write_bytes(path.read_bytes())
    assert pck.evaluate(predictions, file, "mpii") == fixture["result"]
    file.write_text(json.dumps(as_json(fixture, boxes=False)[:3]))
    with pytest.raises(PosezooError, match=r"3 people.*20"):
        pck.evaluate(predictions, file, "mpii")


def test_pckh_at_a_tenth_as_mmpose_has_it(mpii):
    path, fixture, predictions = mpii
    people = as_json(fixture)
    poses = [np.reshape(p["keypoints"], (16, 3))[:, :2] for p in predictions[::-1]]
    hits = labels = 0
    for person, pose in zip(people, poses, strict=True):
        box = person["headbox"]
        head = 0.6 * math.hypot(box[2] - box[0], box[3] - box[1])
        for joint in (j for j in range(16) if j not in (6, 7) and person["joints_vis"][j]):
            off = math.dist(pose[joint] + 1, person["joints"][joint])
            labels += 1
            hits += off <= 0.1 * head
    found = pck.evaluate(predictions, path, "mpii", fine_threshold=0.1)
    assert found["Mean@0.1"] == pytest.approx(100 * hits / labels)


def test_truth_scores_100_and_nobody_scores_0(mpii):
    _, fixture, _ = mpii
    people = as_json(fixture)
    perfect = pck.evaluate(listed([np.array(p["joints"]) - 1 for p in people]), people, "mpii")
    assert perfect == pytest.approx(dict.fromkeys(fixture["result"], 100.0))
    assert pck.evaluate([], people, "mpii") == dict.fromkeys(fixture["result"], 0.0)
    half = pck.evaluate(listed([np.array(p["joints"]) - 1 for p in people])[10:], people, "mpii")
    assert 0 < half["Mean"] < 100


def test_a_joint_nobody_has_is_not_a_number():
    person = {"joints": [[9, 9]] * 16, "joints_vis": [1] * 9 + [0] + [1] * 6, "headbox": [0, 0, 30, 40]}
    found = pck.evaluate(listed([[[8, 8]] * 16]), [person], "mpii")
    assert math.isnan(found["Head"]) and found["Mean"] == pytest.approx(100)
    assert all(math.isnan(value) for value in pck.evaluate([], [], "mpii").values())


# ---- JHMDB


@pytest.fixture(scope="module")
def jhmdb(shared) -> Path:
    return shared / "samples" / "jhmdb" / "test_jhmdb_sub1.json"


def labels(content: dict, joints: int) -> np.ndarray:
    return np.array([a["keypoints"] for a in content["annotations"]], float).reshape(-1, joints, 3)


def test_jhmdb_is_the_reference(parity, jhmdb):
    example = json.loads((parity / "ops" / "metrics_examples.json").read_text())["examples"]["jhmdb@0.02"]
    found = pck.evaluate(example["predictions"], jhmdb, "jhmdb")
    assert found == {"/".join(reversed(name.split())): value for name, value in example["metrics"].items()}


def loop_jhmdb(poses, content, offset=1.0) -> dict[str, float]:
    """MMPose's protocol for one sub, literally."""
    images = {image["id"]: image for image in content["images"]}
    rows = {"Sho": (3, 4), "Elb": (7, 8), "Wri": (11, 12), "Hip": (5, 6), "Knee": (9, 10), "Ank": (13, 14)}
    result = {}
    for name in ("PCK", "tPCK"):
        right, people = [0] * 15, [0] * 15
        for pose, person in zip(poses, content["annotations"], strict=True):
            x, y, w, h = person["bbox"]
            image = images[person["image_id"]]
            left, top = max(0, x - 1), max(0, y - 1)
            width, height = min(image["width"] - 1, left + w) - left, min(image["height"] - 1, top + h) - top
            label = np.reshape(person["keypoints"], (15, 3))
            unit = max(width, height) if name == "PCK" else math.dist(label[4, :2], label[5, :2])
            for joint in range(15):
                if label[joint, 2] > 0:
                    people[joint] += 1
                    right[joint] += math.dist(pose[joint] + offset, label[joint, :2] - 1) / unit < 0.2
        share = [r / n if n else -1 for r, n in zip(right, people, strict=True)]
        known = [s for s in share if s >= 0]
        result[f"{name}/Head"] = share[2]
        result |= {f"{name}/{row}": (share[a] + share[b]) / 2 for row, (a, b) in rows.items()}
        result[f"{name}/Mean"] = sum(known) / len(known)
    return result


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1, 0.2])
def test_jhmdb_is_what_a_loop_counts(jhmdb, noise):
    rng = np.random.default_rng(int(noise * 100))
    content = json.loads(jhmdb.read_text())
    for person in content["annotations"]:
        person["keypoints"][2::3] = rng.integers(0, 3, 15).tolist()
        person["keypoints"][5] = 0  # nobody's belly
    poses = labels(content, 15)[..., :2] - 1
    poses += (
        rng.normal(0, 1, poses.shape) * noise * np.array([a["bbox"][3] for a in content["annotations"]])[:, None, None]
    )
    for offset in (0.0, 1.0):
        found = pck.evaluate(listed(poses), content, "jhmdb", offset=offset)
        assert found == pytest.approx(loop_jhmdb(poses, content, offset), abs=1e-12)
    assert pck.evaluate([], content, "jhmdb")["PCK/Mean"] == 0


def test_the_torso_of_a_folded_person_is_the_predicted_one(jhmdb):
    content = json.loads(jhmdb.read_text())
    person = content["annotations"][0]
    content["annotations"] = [person]
    person["keypoints"][15:17] = person["keypoints"][12:14]  # right hip on left shoulder
    pose = labels(content, 15)[0, :, :2] - 2
    assert pck.evaluate(listed([pose]), content, "jhmdb")["tPCK/Mean"] == 0  # a torso of no length has no joint near
    pose[5] += 100
    found = pck.evaluate(listed([pose]), content, "jhmdb")
    assert found["tPCK/Mean"] == pytest.approx(14 / 15)


# ---- MPII-TRB and hands


@pytest.fixture(scope="module")
def trb_content(shared) -> dict:
    content = json.loads((shared / "samples" / "mpii" / "test_mpii_trb.json").read_text())
    for n, person in enumerate(content["annotations"]):
        person["headbox"] = [100, 100, 130 + 10 * n, 140]
    return content


@pytest.mark.parametrize("noise", [0.0, 10.0, 30.0])
def test_trb_is_what_a_loop_counts(trb_content, noise):
    rng = np.random.default_rng(5)
    truth = labels(trb_content, 40)
    poses = truth[..., :2] + rng.normal(0, 1, (*truth.shape[:2], 2)) * noise
    hits, counts = np.zeros(40), np.zeros(40)
    for pose, label, person in zip(poses, truth, trb_content["annotations"], strict=True):
        head = 0.3 * math.dist(person["headbox"][:2], person["headbox"][2:])
        for joint in range(40):
            if label[joint, 2]:
                counts[joint] += 1
                hits[joint] += math.dist(pose[joint], label[joint, :2]) < head
    found = trb.evaluate(listed(poses), trb_content, "mpii_trb")
    expected = [hits[:14].sum() / counts[:14].sum(), hits[14:].sum() / counts[14:].sum(), hits.sum() / counts.sum()]
    assert list(found) == ["Skeleton_acc", "Contour_acc", "Mean_acc"]
    assert list(found.values()) == [float(np.float32(value)) for value in expected]
    assert set(found.values()) == {1.0} or noise
    assert set(trb.evaluate([], trb_content).values()) == {0.0}


def test_trb_without_head_boxes_says_so(shared, tmp_path):
    path = shared / "samples" / "mpii" / "test_mpii_trb.json"
    with pytest.raises(PosezooError, match=r"test_mpii_trb\.json: annotation 0 has no 'headbox'"):
        trb.evaluate([], path, "mpii_trb")


@pytest.mark.parametrize("noise", [0.0, 4.0, 20.0])
def test_hands_are_what_a_loop_counts(shared, noise):
    path = shared / "samples" / "onehand10k" / "test_onehand10k.json"
    content = json.loads(path.read_text())
    truth = labels(content, 21)
    poses = truth[..., :2] + np.random.default_rng(6).normal(0, 1, (*truth.shape[:2], 2)) * noise
    visible = truth[..., 2] > 0
    side = np.array([[max(a["bbox"][2:])] * 2 for a in content["annotations"]], float)
    found = pck.evaluate(listed(poses), path, "hand21")
    assert found["PCK"] == pytest.approx(loop_pck(poses, truth, visible, 0.2, side)[1])
    steps = [loop_pck(poses, truth, visible, step / 20, np.full((4, 2), 30.0))[1] for step in range(20)]
    assert found["AUC"] == pytest.approx(sum(steps) / 20)
    assert found["EPE"] == pytest.approx(np.linalg.norm(poses - truth[..., :2], axis=2)[visible].mean(), rel=1e-6)
    if not noise:
        assert found == {"PCK": 1.0, "AUC": pytest.approx(0.95), "EPE": 0.0}
    assert pck.evaluate([], path, "hand21") == {"PCK": 0.0, "AUC": 0.0, "EPE": np.inf}


def test_a_crowd_of_hands_is_not_judged(shared):
    content = json.loads((shared / "samples" / "onehand10k" / "test_onehand10k.json").read_text())
    content["annotations"][1]["iscrowd"] = 1
    poses = labels(content, 21)[..., :2]
    poses[1] += 1000
    assert pck.evaluate(listed(poses), content, "hand21")["EPE"] == 0


def test_predictions_that_belong_to_no_annotation(jhmdb):
    good = listed(labels(json.loads(jhmdb.read_text()), 15)[..., :2])
    for change, message in (
        ({"annotation": 3}, "annotation"),
        ({"annotation": -1}, "annotation"),
        ({"annotation": 1}, "annotation 1 has 2 predictions"),
        ({"keypoints": [0.0] * 48}, "16 keypoints"),
        ({"keypoints": [math.nan] * 45}, "expected a finite number"),
    ):
        bad = copy.deepcopy(good)
        bad[0] |= change
        with pytest.raises(PosezooError, match=message):
            pck.evaluate(bad, jhmdb, "jhmdb")
    with pytest.raises(PosezooError, match="did you mean mpii"):
        pck.evaluate(good, jhmdb, "mpi")
    with pytest.raises(PosezooError, match="unknown dataset"):
        trb.evaluate(good, jhmdb, "mpii")


@pytest.mark.parametrize("content", [[], {}, {"annotations": 3}, 5, [{"joints": 1}], "x"])
def test_annotations_of_another_form(content, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    for dataset in ("jhmdb", "hand21", "mpii"):
        if (dataset, content) != ("mpii", []):  # a list of nobody
            with pytest.raises(PosezooError, match=r"a\.json (is|has no|has the joints of mpii)"):
                pck.evaluate([], file, dataset)
    with pytest.raises(PosezooError, match=r"a\.json (is|has no)"):
        trb.evaluate([], file)
