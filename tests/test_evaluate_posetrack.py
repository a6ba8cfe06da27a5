"""PoseTrack18: poseval's own figures on the samples, and a literal account of its protocol on made up videos."""

from __future__ import annotations

import copy
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.evaluate import posetrack
from posezoo.evaluate.mot import Followed, assignment, follow
from posezoo.skeletons import get_skeleton

NAMES = get_skeleton("posetrack17").joints
JUDGED = [n for n, name in enumerate(NAMES) if "ear" not in name]
ROWS = {
    "Head": ("nose", "head_bottom", "head_top"),
    "Shou": ("left_shoulder", "right_shoulder"),
    "Elb": ("left_elbow", "right_elbow"),
    "Wri": ("left_wrist", "right_wrist"),
    "Hip": ("left_hip", "right_hip"),
    "Knee": ("left_knee", "right_knee"),
    "Ankl": ("left_ankle", "right_ankle"),
}


@pytest.fixture(scope="module")
def example(parity) -> dict:
    return json.loads((parity / "ops" / "metrics_examples.json").read_text())["examples"]["posetrack18@0.02"]


def test_precisions_are_posevals_to_the_last_bit(shared, example):
    expected = {name.removesuffix(" AP"): value for name, value in example["metrics"].items()}
    predictions = [{k: v for k, v in p.items() if k != "track_id"} for p in example["predictions"]]
    for where in ("samples/posetrack18/annotations/val", example["annotations"]):
        assert posetrack.evaluate(predictions, shared / where) == expected
    content = json.loads((shared / example["annotations"]).read_text())
    assert posetrack.evaluate(predictions, content) == expected
    followed = posetrack.evaluate(example["predictions"], content)
    assert expected.items() <= followed.items() and {"MOTA", "MOTP", "Precision", "Recall", "MOTA/Knee"} <= set(
        followed
    )


def test_the_scores_of_joints_may_stand_beside_them(shared, example):
    predictions = copy.deepcopy(example["predictions"])
    for prediction in predictions:
        prediction["keypoints"][2::3] = [1.0] * 17
    found = posetrack.evaluate(predictions, shared / example["annotations"])
    assert found["Total"] == example["metrics"]["Total AP"]


# ---- the protocol, literally


def within(x, y, polygon) -> bool:
    """Whether the outline goes round the point: its angles as seen from there add up to a whole turn."""
    turn = 0.0
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        angle = math.atan2(by - y, bx - x) - math.atan2(ay - y, ax - x)
        turn += (angle + math.pi) % (2 * math.pi) - math.pi
    return abs(turn) > 1


def literal_frames(videos, predictions):
    """Per video, its labelled frames: (truth, found), each a list of {joints: {j: (x, y, score)}, head, track}."""
    result = []
    for video in videos:
        frames = []
        for image in video["images"]:
            truth, found = [], []
            for people, rows in ((truth, video["annotations"]), (found, predictions)):
                for row in (r for r in rows if r["image_id"] == image["id"]):
                    points = np.reshape(row["keypoints"], (17, 3)).tolist()
                    joints = {j: points[j] for j in JUDGED if any(points[j])}
                    _, _, width, height = row.get("bbox_head", (0, 0, 1, 1))
                    head = 0.6 * math.hypot(width, height)
                    people.append({"joints": joints, "head": head, "track": row.get("track_id")})
            if not truth:
                continue
            regions = [
                list(zip(*o, strict=True))
                for o in zip(image["ignore_regions_x"], image["ignore_regions_y"], strict=True)
            ]
            if regions:
                for people in (truth, found):
                    for person in people:
                        person["joints"] = {
                            j: p for j, p in person["joints"].items() if not any(within(p[0], p[1], r) for r in regions)
                        }
                truth = [p for p in truth if p["joints"]]
                found = [p for p in found if p["joints"]]
            frames.append((truth, found))
        result.append(frames)
    return result


def near(a, b, j) -> bool:
    return j in a["joints"] and j in b["joints"] and distance(a, b, j) <= 0.5


def distance(a, b, j) -> float:
    return math.dist(a["joints"][j][:2], b["joints"][j][:2]) / b["head"]


def literal_precision(videos, j) -> float:
    detections, labelled = [], 0
    for truth, found in itertools.chain.from_iterable(videos):
        share = [
            [sum(near(f, t, k) for k in JUDGED) / len(t["joints"]) if t["joints"] else 0.0 for t in truth]
            for f in found
        ]
        choice = [max(range(len(truth)), key=lambda t, row=row: (row[t], -t)) if truth else None for row in share]
        owner = {}
        for t in range(len(truth)):
            rivals = [f for f in range(len(found)) if choice[f] == t and share[f][t] > 0]
            if rivals:
                owner[max(rivals, key=lambda f: (share[f][t], -f))] = t
        for f, person in enumerate(found):
            if j in person["joints"]:
                right = f in owner and near(person, truth[owner[f]], j)
                detections.append((person["joints"][j][2], len(detections), right))
        labelled += sum(j in t["joints"] for t in truth)
    if not detections:
        return 0.0
    if not labelled:
        return math.nan
    curve, hits = [], 0
    for n, (_, _, right) in enumerate(sorted(detections, reverse=True)):
        hits += right
        curve.append((hits / labelled, hits / (n + 1)))
    area, before = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[n:])
        before = recall
    return 100 * area


def literal_tracking(videos, j) -> dict[str, float]:
    labels = positives = hits = switches = 0
    total = 0.0
    for frames in videos:
        last = {}
        for truth, found in frames[:-1] if len(frames) > 1 else frames:
            if not truth or not found:
                labels, positives = labels + 1, positives + 1
                continue
            ts, fs = [t for t in truth if j in t["joints"]], [f for f in found if j in f["joints"]]
            labels, positives = labels + len(ts), positives + len(fs)
            pairs = []
            for t in ts:
                for f in fs:
                    if near(f, t, j) and last.get(t["track"]) == f["track"] and not any(f is g for _, g in pairs):
                        pairs.append((t, f))
            ts = [t for t in ts if not any(t is u for u, _ in pairs)]
            fs = [f for f in fs if not any(f is g for _, g in pairs)]
            options = [[]]  # every way to pair what is left
            for t in ts:
                options += [
                    [*o, (t, f)] for o in options for f in fs if near(f, t, j) and all(f is not g for _, g in o)
                ]
            new = min(options, key=lambda o: (-len(o), sum(distance(f, t, j) for t, f in o)))
            switches += sum(last.get(t["track"], f["track"]) != f["track"] for t, f in new)
            for t, f in pairs + new:
                last[t["track"]] = f["track"]
                total += distance(f, t, j)
            hits += len(pairs + new)
    return {
        "MOTA": 100 * (1 - (labels - hits + switches + positives - hits) / labels) if labels else math.nan,
        "MOTP": 100 * (1 - total / hits) if hits else 0.0,
        "Precision": 100 * hits / positives if positives else math.nan,
        "Recall": 100 * hits / labels if labels else math.nan,
    }


def literal_table(videos, predictions) -> dict[str, float]:
    frames = literal_frames(videos, predictions)
    values = {"": {NAMES[j]: literal_precision(frames, j) for j in JUDGED}}
    if predictions and "track_id" in predictions[0]:
        every = {NAMES[j]: literal_tracking(frames, j) for j in JUDGED}
        values |= {key: {n: v[key] for n, v in every.items()} for key in ("MOTA", "MOTP", "Precision", "Recall")}
    table = {}
    for key, joints in values.items():
        known = [v for v in joints.values() if not math.isnan(v)]
        table[key or "Total"] = sum(known) / len(known) if known else math.nan
        for row, names in ROWS.items():
            table[f"{key}/{row}" if key else row] = sum(joints[n] for n in names) / len(names)
    return table


# ---- made up videos


def made_up(seed: int, videos: int = 2, frames: int = 4, people: int = 3):
    """Videos of people who stand about, with some labels missing; and rough, wandering, sometimes doubled poses."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], []
    for v in range(videos):
        images, annotations = [], []
        places = rng.uniform(0, 60, (people, 1, 2)) + rng.uniform(0, 60, (people, 17, 2))
        for n in range(frames):
            image = {"id": 1000 * v + n, "vid_id": f"{v:06d}", "ignore_regions_x": [], "ignore_regions_y": []}
            for _ in range(rng.integers(0, 3)):
                corner, size = rng.uniform(0, 100, 2), rng.uniform(5, 60, 2)
                outline = corner + np.array([[0, 0], [1, 0.2], [0.8, 1], [0.4, 0.5], [0.1, 1]]) * size
                image["ignore_regions_x"].append(outline[:, 0].tolist())
                image["ignore_regions_y"].append(outline[:, 1].tolist())
            images.append(image)
            present = rng.permutation(people)[: rng.integers(0, people + 1)]
            for track in present:
                joints = np.concatenate([places[track], np.ones((17, 1))], axis=1)
                joints[rng.random(17) < 0.3] = 0
                head = [0, 0, *rng.uniform(5, 30, 2).tolist()]
                annotations.append(
                    {
                        "image_id": image["id"],
                        "keypoints": joints.ravel().tolist(),
                        "bbox_head": head,
                        "track_id": int(track),
                    }
                )
            rows = []
            for track in rng.permutation(people + 2)[: rng.integers(0, people + 3)]:
                pose = places[track % people] + rng.normal(0, 4, (17, 2))
                joints = np.concatenate([pose, rng.choice([0.2, 0.5, 0.7, 0.9], (17, 1))], axis=1)
                joints[rng.random(17) < 0.2] = 0
                other = int(track) if rng.random() < 0.8 else 20 + int(track)
                rows.append(
                    {"image_id": image["id"], "keypoints": joints.ravel().tolist(), "score": 1.0, "track_id": other}
                )
            predictions += rows
        truth.append({"images": images, "annotations": annotations})
    return truth, predictions


def write(folder, videos):
    folder.mkdir(exist_ok=True)
    for n, video in enumerate(videos):
        (folder / f"{n:06d}.json").write_text(json.dumps(video))
    return folder


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_figures_are_the_literal_ones(tmp_path_factory, seed, videos, frames, people, tracked):
    truth, predictions = made_up(seed, videos, frames, people)
    if not tracked:
        predictions = [{k: v for k, v in p.items() if k != "track_id"} for p in predictions]
    merged = {key: [row for video in truth for row in video[key]] for key in ("images", "annotations")}
    expected = literal_table(truth, predictions)
    assert posetrack.evaluate(predictions, merged) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_folder_is_its_files(tmp_path):
    truth, predictions = made_up(1, videos=3)
    found = posetrack.evaluate(predictions, write(tmp_path / "val", truth))
    assert found == pytest.approx(literal_table(truth, predictions), nan_ok=True)


def test_truth_as_predictions_scores_100_and_nothing_scores_0():
    truth, _ = made_up(2, videos=1, frames=12, people=4)
    for image in truth[0]["images"]:
        image["ignore_regions_x"], image["ignore_regions_y"] = [], []
    perfect = [{**person, "score": 1.0} for person in truth[0]["annotations"]]
    found = posetrack.evaluate(perfect, truth[0])
    assert found == pytest.approx(dict.fromkeys(found, 100.0))
    assert posetrack.evaluate([], truth[0]) == dict.fromkeys(
        ("Head", "Shou", "Elb", "Wri", "Hip", "Knee", "Ankl", "Total"), 0
    )


def test_every_pose_is_for_one_person_and_each_person_has_one_pose():
    """The better pose has the lower scores: it is the one that counts, so the other's joints are the first mistakes."""
    joints = np.concatenate([np.arange(34.0).reshape(17, 2) + 100, np.ones((17, 1))], axis=1)
    person = {"image_id": 1, "keypoints": joints.ravel().tolist(), "bbox_head": [0, 0, 30, 40]}
    worse = joints * [1, 1, 0.9]
    worse[:3, 0] += 50
    better = joints * [1, 1, 0.5]
    content = {"images": [{"id": 1}], "annotations": [person]}
    listed = [{"image_id": 1, "keypoints": pose.ravel().tolist(), "score": 1} for pose in (worse, better)]
    assert posetrack.evaluate(listed, content)["Total"] == 50
    assert posetrack.evaluate(listed[1:], content)["Total"] == 100


def test_frames_without_labels_do_not_count():
    truth, predictions = made_up(3, videos=1, frames=6, people=4)
    content = truth[0]
    gone = content["images"][2]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != gone]
    without = [p for p in predictions if p["image_id"] != gone]
    assert len(without) < len(predictions)
    assert posetrack.evaluate(predictions, content) == pytest.approx(posetrack.evaluate(without, content), nan_ok=True)


def test_inside_a_polygon_and_not_on_its_outline():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    points = np.array([[5, 5], [0, 5], [10, 10], [5, 0], [5, 10], [-1, 5], [5, 0.001], [11, 10], [-5, 0]], float)
    inside = [True, False, False, False, False, False, True, False, False]
    for outline in (square, square[::-1], np.roll(square, 1, axis=0), np.append(square, square[:1], axis=0)):
        assert posetrack.inside(points, outline).tolist() == inside
    notched = np.array([[0, 0], [5, 5], [10, 0], [10, 10], [0, 10]], float)
    points = np.array([[5, 5], [5, 4], [5, 6], [1, 5], [9, 5], [2.5, 2.5], [11, 5]], float)
    assert posetrack.inside(points, notched).tolist() == [False, False, True, True, True, False, False]
    assert not posetrack.inside(points, notched[:2]).any() and posetrack.inside(points[:0], notched).shape == (0,)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_inside_is_where_the_outline_goes_round(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * math.pi, 12))
    star = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(1, 9, (12, 1))
    points = rng.uniform(-9, 9, (60, 2))
    found = posetrack.inside(points, star)
    assert found.tolist() == [within(x, y, star.tolist()) for x, y in points]


# ---- following


def test_pairs_last_while_they_are_near_and_changing_partners_is_a_switch():
    assert follow([]) == Followed()
    first = [(1, 7, 0.1), (1, 8, 0.0)]  # 8 is nearer
    assert follow([first]) == Followed(1, 0, 0.0)
    assert follow([first, [(1, 7, 0.0), (1, 8, 0.4)]]) == Followed(2, 0, 0.4)  # but once paired they stay
    assert follow([first, [], [(1, 7, 0.2)]]) == Followed(2, 1, 0.2)  # however long ago
    assert follow([[(1, 7, 0.0)], [(2, 7, 0.0)], [(1, 7, 0.0), (2, 7, 0.0)]]) == Followed(3, 0, 0.0)
    crossed = [(1, 7, 0.3), (1, 8, 0.1), (2, 8, 0.4)]  # two pairs rather than the one nearest
    assert follow([crossed]) == Followed(2, 0, pytest.approx(0.7))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_assignment_is_the_cheapest_of_all(seed, rows, columns, whole):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 4, (rows, columns)).astype(float) if whole else rng.random((rows, columns))
    row, column = assignment(cost)
    assert len(row) == len(column) == min(rows, columns) == len(set(row.tolist())) == len(set(column.tolist()))
    wide = cost if rows <= columns else cost.T
    ways = itertools.permutations(range(wide.shape[1]), wide.shape[0])
    assert cost[row, column].sum() == pytest.approx(min(sum(wide[n, m] for n, m in enumerate(way)) for way in ways))


# ---- what cannot be judged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "image_id 77"),
        ({"keypoints": [0.0] * 48}, "16 keypoints"),
        ({"keypoints": [math.nan] * 51}, "expected a finite number"),
        ({"track_id": "a"}, "'track_id' that is no whole number"),
        ({"track_id": None}, "prediction 0 has no 'track_id', but others do"),
        ({"scores": [1.0]}, "prediction 0 has"),
    ],
)
def test_bad_predictions(change, message):
    truth, predictions = made_up(4, videos=1)
    if "scores" in change:
        change = {"scores": [1.0] * 5}
    with pytest.raises(PosezooError, match=message):
        posetrack.evaluate([predictions[0] | change, *predictions[1:]], truth[0])


def test_two_people_of_one_frame_with_one_track():
    truth, predictions = made_up(4, videos=1)
    labelled = truth[0]["annotations"][0]["image_id"]
    twice = {"image_id": labelled, "keypoints": [1.0] * 51, "score": 1.0, "track_id": 99}
    with pytest.raises(PosezooError, match=rf"image {labelled} has two predictions with the 'track_id' 99"):
        posetrack.evaluate([*predictions, twice, twice], truth[0])


def test_annotations_that_cannot_be_used(tmp_path):
    with pytest.raises(PosezooError, match=r"has no \.json file"):
        posetrack.evaluate([], tmp_path)
    with pytest.raises(PosezooError, match="cannot read"):
        posetrack.evaluate([], tmp_path / "none.json")
    truth, predictions = made_up(5, videos=1)
    with pytest.raises(PosezooError, match="unknown dataset"):
        posetrack.evaluate([], truth[0], "posetrack")
    for name, value in (("images", 3), ("annotations", [3]), ("annotations", [{"image_id": 0}])):
        with pytest.raises(PosezooError, match=r"PoseTrack18|no list of 'images'|not a COCO keypoint file"):
            posetrack.evaluate([], {**truth[0], name: value})
    people = [{k: v for k, v in a.items() if k != "track_id"} for a in truth[0]["annotations"]]
    with pytest.raises(PosezooError, match="people without a 'track_id'"):
        posetrack.evaluate(predictions, {**truth[0], "annotations": people})


def test_nobody_anywhere():
    empty = posetrack.evaluate([], {"images": [], "annotations": []})
    assert set(empty.values()) == {0.0}
    truth, predictions = made_up(6, videos=1)
    found = posetrack.evaluate(predictions, {**truth[0], "annotations": []})
    assert found["Total"] == 0.0 and math.isnan(found["MOTA"])
