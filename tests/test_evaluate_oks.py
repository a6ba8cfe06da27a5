"""Average precision by keypoint similarity: the peers' own figures, pycocotools as the oracle, and bad predictions."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.errors import PosezooError, UnknownNameError
from posezoo.evaluate.average_precision import _pairs, _place_in_run
from posezoo.evaluate.oks import CROWDPOSE_KEYS, KEYPOINT_KEYS, RULES, evaluate, keypoint_ap
from posezoo.evaluate.predictions import PART_FIELDS, SKELETONS, check_predictions, read_predictions
from posezoo.skeletons import get_skeleton, map_joints

pyeval = pytest.importorskip("pycocotools.cocoeval")
pycoco = pytest.importorskip("pycocotools.coco")

Entries = list[dict[str, Any]]
SAMPLES = {
    "coco": "coco/test_coco.json",
    "ochuman": "ochuman/test_ochuman.json",
    "crowdpose": "crowdpose/test_crowdpose.json",
    "aic": "aic/test_aic.json",
    "mhp": "mhp/test_mhp.json",
    "halpe26": "halpe/test_halpe.json",
    "halpe68": "halpe/test_halpe.json",
    "halpe136": "halpe/test_halpe.json",
    "wholebody133": "coco/test_coco_wholebody.json",
}
PART_SLICES = {
    "body": slice(17),
    "foot": slice(17, 23),
    "face": slice(23, 91),
    "lefthand": slice(91, 112),
    "righthand": slice(112, 133),
}


# ---- the peers' own figures


def reference_name(metric: str, dataset: str) -> str:
    """AP50 for "AP .5", APM for "AP (M)", but APMedium for CrowdPose's "AP(M)"."""
    name = re.sub(r"[ .()]", "", f"{metric}0" if metric.endswith(".5") else metric)
    return {"APM": "APMedium"}.get(name, name) if dataset == "crowdpose" else name


@pytest.mark.parametrize("dataset", ["coco", "ochuman", "crowdpose", "aic", "mhp", "wholebody133", "halpe136"])
def test_the_reference_evaluators_figures(dataset: str, parity: Path) -> None:
    example = json.loads((parity / "ops" / "metrics_examples.json").read_text())["examples"][f"{dataset}@0.02"]
    got = evaluate(example["predictions"], parity.parent / example["annotations"], dataset)
    # to the last bit: the same operations on the same doubles in the same order leave nothing to tolerate
    assert {k: got[reference_name(k, dataset)] for k in example["metrics"]} == example["metrics"]


# ---- the oracle


def coco_api(content: dict[str, Any]) -> Any:
    api = pycoco.COCO()
    api.dataset = {"info": {}, **copy.deepcopy(content)}
    api.createIndex()
    return api


def oracle(
    content: dict[str, Any], predictions: Entries, sigmas: np.ndarray, images: Sequence[int] | None = None
) -> Any:
    """pycocotools' evaluation, after summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_api(content)
        judge = pyeval.COCOeval(truth, truth.loadRes(copy.deepcopy(predictions)), "keypoints")
        judge.params.kpt_oks_sigmas = sigmas
        if images is not None:
            judge.params.imgIds = list(images)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def make_truth(seed: int, joints: int, images: int = 30, people: int = 70) -> dict[str, Any]:
    """People in the first two thirds of the pictures: twins, crowds, some without a label, of every size."""
    rng = np.random.default_rng(seed)
    annotations: Entries = []
    for n in range(people):
        box = np.array([*rng.uniform(0, 400, 2), *rng.uniform(15, 250, 2)]).round(2)
        keypoints = np.zeros((joints, 3))
        keypoints[:, :2] = (box[:2] + rng.uniform(0, 1, (joints, 2)) * box[2:]).round()
        keypoints[:, 2] = (rng.random(joints) < rng.uniform(0.1, 1)) * rng.integers(1, 3, joints)
        crowd = n % 17 == 5
        if crowd or n % 5 == 4:
            keypoints[:] = 0
        keypoints[keypoints[:, 2] == 0] = 0
        annotations.append(
            {
                "id": 1000 + n,
                "image_id": 7 + 3 * int(rng.integers(images * 2 // 3)),
                "category_id": 1,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3] * rng.uniform(0.3, 0.8)),
                "iscrowd": int(crowd),
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "keypoints": keypoints.ravel().tolist(),
            }
        )
    annotations += [{**a, "id": a["id"] + 500} for a in annotations[::6]]  # twins are exactly as similar
    order = rng.permutation(images)
    pictures = [{"id": 7 + 3 * int(i), "crowdIndex": float(rng.choice([0.05, 0.15, 0.5, 0.8, 0.95]))} for i in order]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def make_predictions(content: dict[str, Any], seed: int, joints: int, each: int = 4) -> Entries:
    """`each` poses around every annotation and some at random: many scores tie, some pictures get more than 20."""
    rng = np.random.default_rng(seed)
    predictions: Entries = []
    for entry in content["annotations"] * each:
        keypoints = np.reshape(entry["keypoints"], (joints, 3)).copy()
        box = np.array(entry["bbox"])
        hidden = keypoints[:, 2] == 0
        keypoints[hidden, :2] = box[:2] + rng.uniform(-0.2, 1.2, (hidden.sum(), 2)) * box[2:]
        keypoints[:, :2] += rng.normal(0, 1, (joints, 2)) * rng.choice([0, 1, 4, 15]) * rng.uniform(0, 1)
        keypoints[:, 2] = rng.uniform(0.01, 1, joints)
        image = entry["image_id"] if rng.random() < 0.9 else int(rng.choice([i["id"] for i in content["images"]]))
        predictions.append(
            {
                "image_id": image,
                "category_id": 1,
                "keypoints": keypoints.ravel().tolist(),
                "score": float(rng.random().__round__(1)),
            }
        )
    busiest = max((p["image_id"] for p in predictions), key=[p["image_id"] for p in predictions].count)
    crowded = [p for p in predictions if p["image_id"] == busiest]
    predictions += [{**p, "score": p["score"] + 0.01 * n} for n in range(3) for p in crowded]
    return [predictions[n] for n in rng.permutation(len(predictions))]


def test_the_made_up_people_have_what_makes_judging_hard() -> None:
    content = make_truth(0, 17)
    predictions = make_predictions(content, 0, 17)
    used = [p["image_id"] for p in predictions]
    assert max(map(used.count, used)) > 20
    assert {i["id"] for i in content["images"]} - {a["image_id"] for a in content["annotations"]}
    assert any(a["iscrowd"] for a in content["annotations"])
    assert any(not a["num_keypoints"] and not a["iscrowd"] for a in content["annotations"])
    assert len({p["score"] for p in predictions}) < len(predictions) / 4


@pytest.mark.parametrize("seed", range(3))
def test_coco_is_pycocotools_to_the_last_bit(seed: int) -> None:
    content, sigmas = make_truth(seed, 17), get_skeleton("coco17").oks_sigmas
    predictions = make_predictions(content, seed, 17)
    wanted = oracle(content, predictions, sigmas).stats.tolist()
    assert list(evaluate(predictions, content, "coco").values()) == wanted
    assert 0.05 < wanted[0] < 0.95 and min(wanted) >= 0
    # a pose's own box sets its area
    boxed = [{**p, "bbox": [0, 0, 40 + n % 90, 70]} for n, p in enumerate(predictions)]
    assert list(evaluate(boxed, content, "coco").values()) == oracle(content, boxed, sigmas).stats.tolist() != wanted


def test_coco_judges_poses_without_a_scored_joint_and_takes_the_files_word_for_who_is_labelled() -> None:
    content, sigmas = make_truth(5, 17), get_skeleton("coco17").oks_sigmas
    predictions = make_predictions(content, 5, 17)
    for prediction in predictions[::4]:
        prediction["keypoints"][2::3] = [0] * 17
    for entry in content["annotations"][::7]:
        entry["num_keypoints"] = 0 if entry["num_keypoints"] else 3
    wanted = oracle(content, predictions, sigmas).stats.tolist()
    assert list(evaluate(predictions, content, "coco").values()) == wanted
    # the others leave such poses out, and count themselves
    counted = [{**a, "num_keypoints": int(np.count_nonzero(a["keypoints"][2::3]))} for a in content["annotations"]]
    scored = [p for p in predictions if any(p["keypoints"][2::3])]
    wanted = oracle({**content, "annotations": counted}, scored, sigmas).stats.tolist()
    assert list(evaluate(predictions, content, "ochuman").values()) == wanted


@pytest.mark.parametrize("dataset", ["aic", "mhp"])
def test_aic_and_mhp_take_the_area_from_the_box(dataset: str) -> None:
    skeleton = get_skeleton(SKELETONS[dataset])
    content = make_truth(1, len(skeleton))
    predictions = make_predictions(content, 1, len(skeleton))
    boxed = [{**a, "area": a["bbox"][2] * a["bbox"][3] * 0.53} for a in content["annotations"]]
    wanted = oracle({**content, "annotations": boxed}, predictions, skeleton.oks_sigmas).stats.tolist()
    unsized = [{k: v for k, v in a.items() if k not in ("area", "iscrowd")} for a in boxed if not a["iscrowd"]]
    assert list(evaluate(predictions, content, dataset).values()) == wanted
    assert evaluate(predictions, {**content, "annotations": unsized}, dataset)["AP"] > 0.05


def test_crowdpose_by_its_crowd_index() -> None:
    skeleton = get_skeleton("crowdpose14")
    content = make_truth(2, 14)
    predictions = make_predictions(content, 2, 14)
    for entry in content["annotations"][::9]:
        entry["num_keypoints"] = 0  # there it counts only visible joints
    boxed = [{**a, "area": a["bbox"][2] * a["bbox"][3] * 0.53} for a in content["annotations"]]
    judged = {**content, "annotations": boxed}
    whole = dict(zip(KEYPOINT_KEYS, oracle(judged, predictions, skeleton.oks_sigmas).stats.tolist(), strict=True))
    got = evaluate(predictions, content, "crowdpose")
    assert tuple(got) == CROWDPOSE_KEYS
    assert {k: got[k] for k in CROWDPOSE_KEYS[:6]} == {k: whole[k] for k in CROWDPOSE_KEYS[:6]}

    def precision(low: float, high: float) -> float:
        images = [i["id"] for i in content["images"] if low <= i["crowdIndex"] < high]
        return round(float(oracle(judged, predictions, skeleton.oks_sigmas, images).stats[0]), 4)

    assert [got[k] for k in CROWDPOSE_KEYS[6:]] == [precision(0, 0.2), precision(0.2, 0.8), precision(0.8, 2)]
    papers = evaluate(predictions, content, "crowdpose", crowd_index=(0.1, 0.8))
    assert [papers[k] for k in CROWDPOSE_KEYS[6:8]] == [precision(0, 0.1), precision(0.1, 0.8)]
    assert len({got["APE"], papers["APE"], got["APMedium"], got["APH"]}) == 4
    with pytest.raises(PosezooError, match="crowdIndex"):
        evaluate(predictions, {**content, "images": [{"id": i["id"]} for i in content["images"]]}, "crowdpose")
    with pytest.raises(PosezooError, match="crowd_index is for crowdpose"):
        evaluate(predictions, content, "aic", crowd_index=(0.1, 0.8))


@pytest.mark.parametrize("dataset", ["halpe26", "halpe68"])
def test_halpes_smaller_sets_are_judged_on_its_own_file(dataset: str) -> None:
    skeleton = get_skeleton(dataset)
    columns = map_joints(get_skeleton("halpe136"), skeleton)
    content = make_truth(3, 136, images=12, people=24)
    taken = [np.reshape(a["keypoints"], (136, 3))[columns] for a in content["annotations"]]
    small = [
        {**a, "keypoints": k.ravel().tolist(), "num_keypoints": int((k[:, 2] > 0).sum())}
        for a, k in zip(content["annotations"], taken, strict=True)
    ]
    judged = {**content, "annotations": small}
    predictions = make_predictions(judged, 3, len(skeleton), each=3)
    wanted = oracle(judged, predictions, skeleton.oks_sigmas).stats.tolist()
    assert list(evaluate(predictions, content, dataset).values()) == wanted
    assert list(evaluate(predictions, judged, dataset).values()) == wanted


def test_whole_body_parts_each_by_their_own_joints_sigmas_and_scores() -> None:
    sigmas = get_skeleton("wholebody133").oks_sigmas
    content = make_truth(4, 133, images=12, people=24)
    predictions = make_predictions(content, 4, 133, each=3)
    for n, prediction in enumerate(predictions):
        prediction["foot_score"] = 0.1 * (n % 7)
    body_areas = []
    for prediction in predictions:
        x, y = (np.reshape(prediction["keypoints"], (133, 3))[:17, axis] for axis in (0, 1))
        body_areas.append(float((x.max() - x.min()) * (y.max() - y.min())))
    got = evaluate(predictions, content, "wholebody133")
    assert len(got) == 70 and {k: got[k] for k in KEYPOINT_KEYS} == {k: got[f"wholebody/{k}"] for k in KEYPOINT_KEYS}
    for part, joints in {**PART_SLICES, "wholebody": slice(None)}.items():
        people = []
        for entry in content["annotations"]:
            own = np.reshape(entry["keypoints"], (133, 3))[joints]
            people.append({**entry, "keypoints": own.ravel().tolist(), "num_keypoints": int((own[:, 2] > 0).sum())})
        poses = [
            {
                "image_id": p["image_id"],
                "category_id": 1,
                "keypoints": np.reshape(p["keypoints"], (133, 3))[joints].ravel().tolist(),
                "score": p["foot_score"] if part == "foot" else p["score"],
                "bbox": [0, 0, area, 1],  # how pycocotools can be told the area
            }
            for p, area in zip(predictions, body_areas, strict=True)
        ]
        wanted = oracle({**content, "annotations": people}, poses, sigmas[joints]).stats.tolist()
        assert [got[f"{part}/{k}"] for k in KEYPOINT_KEYS] == wanted, part


def test_a_whole_body_in_one_list_or_in_five_is_the_same(shared: Path) -> None:
    apart = json.loads((shared / "samples" / "coco" / "test_coco_wholebody.json").read_text())
    poses = as_predictions("wholebody133", apart, noise=3.0)
    whole = [{**p, "keypoints": [v for f in PART_FIELDS.values() for v in p[f]]} for p in poses]
    for prediction in whole:
        for field in list(PART_FIELDS.values())[1:]:
            del prediction[field]
    joined = copy.deepcopy(apart)
    for entry in joined["annotations"]:
        entry["keypoints"] = [v for f in PART_FIELDS.values() for v in entry.pop(f)]
    figures = evaluate(poses, apart, "wholebody133")
    assert 0 < figures["AP"] < 1
    assert figures == evaluate(whole, apart, "wholebody133") == evaluate(whole, joined, "wholebody133")
    with pytest.raises(PosezooError, match="lefthand_kpts"):
        evaluate([{k: v for k, v in p.items() if k != "lefthand_kpts"} for p in poses], apart, "wholebody133")


# ---- the samples


def as_predictions(dataset: str, content: dict[str, Any], noise: float = 0.0) -> Entries:
    """Everybody who has a label, moved by `noise` pixels; a joint's score says whether it is labelled."""
    rng = np.random.default_rng(0)
    columns = None
    if dataset.startswith("halpe"):
        columns = map_joints(get_skeleton("halpe136"), get_skeleton(dataset))
    predictions = []
    for entry in content["annotations"]:
        prediction = {"image_id": entry["image_id"], "score": 0.9}
        for field in PART_FIELDS.values():
            if field in entry:
                keypoints = np.reshape(entry[field], (-1, 3)).astype(float)
                keypoints = keypoints if columns is None else keypoints[columns]
                keypoints[:, :2] += noise * rng.normal(0, 1, keypoints[:, :2].shape)
                keypoints[:, 2] = keypoints[:, 2] > 0
                prediction[field] = keypoints.ravel().tolist()
        if any(any(prediction[field][2::3]) for field in PART_FIELDS.values() if field in prediction):
            predictions.append(prediction)
    return predictions


@pytest.mark.parametrize("dataset", SAMPLES)
def test_the_truth_as_predictions_scores_one(dataset: str, shared: Path) -> None:
    path = shared / "samples" / SAMPLES[dataset]
    content = json.loads(path.read_text())
    figures = evaluate(as_predictions(dataset, content), path, dataset)
    assert all(value == -1 or value == pytest.approx(1, abs=1e-12) for value in figures.values())
    assert figures["AP"] == pytest.approx(1, abs=1e-12)
    check_predictions(as_predictions(dataset, content), dataset, {i["id"] for i in content["images"]})
    assert evaluate(as_predictions(dataset, content, noise=40.0), content, dataset)["AP"] < 0.95


def test_predictions_by_the_names_of_files() -> None:
    content = make_truth(0, 17)
    predictions = make_predictions(content, 0, 17)
    wanted = evaluate(predictions, content, "coco")
    number = {picture["id"]: n for n, picture in enumerate(content["images"])}  # some of which are ids of others
    content["images"] = [{**each, "file_name": f"val/{number[each['id']]:06d}.jpg"} for each in content["images"]]
    assert set(number) & set(number.values())
    for called in (lambda n: n, "{:06d}.jpg".format):
        named = [{**each, "image_id": called(number[each["image_id"]])} for each in predictions]
        assert evaluate(named, content, "coco") == wanted
    with pytest.raises(PosezooError, match=r"1 of \d+ predictions .*of 'gone.jpg'; the others go by the names"):
        evaluate([*named, {**named[0], "image_id": "gone.jpg"}], content, "coco")
    assert evaluate(predictions, content, "coco") == wanted  # ids stay ids
    with pytest.raises(PosezooError, match=r"of image_id 'gone.jpg'; image_ids there are such as"):
        evaluate([{**each, "image_id": "gone.jpg"} for each in predictions], content, "coco")


def test_nothing_found_scores_nothing(tmp_path: Path) -> None:
    content = make_truth(0, 17)
    assert set(evaluate([], content, "coco").values()) == {0.0}
    small = {**content, "annotations": [{**a, "area": 2000} for a in content["annotations"]]}
    (tmp_path / "people.json").write_text(json.dumps(small))
    figures = keypoint_ap(tmp_path / "people.json", make_predictions(small, 0, 17), get_skeleton("coco17"))
    assert figures["APL"] == figures["ARL"] == -1 and figures["APM"] > 0
    nobody = evaluate(make_predictions(content, 0, 17), {**content, "annotations": []}, "coco")
    assert set(nobody.values()) == {-1.0}
    assert set(keypoint_ap(tmp_path / "people.json", [], get_skeleton("coco17")).values()) == {0.0}


def test_pairs_are_those_of_one_picture() -> None:
    found, truth = np.array([0, 0, 2, 5]), np.array([5, 0, 3, 5, 2])
    pose, person = _pairs(found, truth)
    assert list(zip(pose.tolist(), person.tolist(), strict=True)) == [(0, 1), (1, 1), (2, 4), (3, 0), (3, 3)]
    assert _place_in_run(np.array([4, 4, 4, 1, 9, 9])).tolist() == [0, 1, 2, 0, 0, 1]
    assert _place_in_run(np.array([], int)).tolist() == []


# ---- what is not a dataset's file


def test_annotations_of_another_form_are_one_line(tmp_path: Path) -> None:
    content = make_truth(0, 17)
    with pytest.raises(UnknownNameError, match="crowdpose"):
        evaluate([], content, "crowd_pose")
    with pytest.raises(PosezooError, match="has pictures but no 'annotations'"):
        evaluate([], {"images": []}, "coco")
    (tmp_path / "wrong.json").write_text("[1, 2]")
    with pytest.raises(PosezooError, match=r"wrong\.json is a list without annotated people; coco wants"):
        evaluate([], tmp_path / "wrong.json", "coco")
    with pytest.raises(PosezooError, match=r"has the joints of coco or .*, not those of crowdpose \(left_shoulder"):
        evaluate([], content, "crowdpose")


# ---- predictions


def good(number: int = 3) -> Entries:
    return [{"image_id": n, "keypoints": [float(n), 2.0, 0.5] * 17, "score": 0.5} for n in range(number)]


def refused(predictions: Any, dataset: str = "coco", ids: Sequence[int] = (0, 1, 2)) -> str:
    with pytest.raises(PosezooError) as caught:
        check_predictions(predictions, dataset, ids, where="poses.json")
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.startswith("poses.json: ")
    return message


def test_good_predictions_pass() -> None:
    check_predictions(good(), "coco", [2, 1, 0])
    check_predictions([*good(), {**good()[0], "score": 0.4}], "coco", [2, 1, 0])  # another score is another pose
    people = [{"annotation": n, "keypoints": [1, 2, 1] * 16, "score": 1} for n in range(4)]
    check_predictions(people, "mpii", range(4))


def test_every_dataset_has_a_skeleton() -> None:
    assert len(SKELETONS) == 14 and all(get_skeleton(name) for name in SKELETONS.values())
    assert set(RULES) <= set(SKELETONS)
    with pytest.raises(UnknownNameError, match="mpii_trb"):
        check_predictions(good(), "mpii-trb", [0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keypoints": [1, 2, 1] * 14}, r"prediction 1 has 14 keypoints, but coco has 17; 14 is what crowdpose and"),
        ({"keypoints": [1, 2, 1] * 19}, "has 19 keypoints.*no dataset has so many"),
        ({"keypoints": [1, 2] * 17}, "34 numbers for 17 keypoints: the scores are missing"),
        ({"keypoints": [1, 2, 1] * 17 + [4]}, "52 numbers as keypoints.*coco has 17, so 51"),
        ({"keypoints": [[1, 2, 1]] * 17}, "one flat list"),
        ({"keypoints": "123"}, "one flat list"),
        ({"keypoints": [1, 2, None] + [1, 2, 1] * 16}, r"score of keypoint 0 \(nose\) is nan"),
        ({"keypoints": [1, 2, "hip"] + [1, 2, 1] * 16}, "prediction 1: 'hip' in the keypoints is no number"),
        ({"keypoints": [1, 2, 1] * 5 + [1, float("nan")] + [1] * 34}, r"y of keypoint 5 \(left_shoulder\) is nan"),
        ({"score": float("inf")}, "prediction 1: its score is inf"),
        ({"score": None}, "prediction 1: its score is nan"),
        ({"score": [0.5]}, r"prediction 1: \[0.5\] in the score is no number"),
        ({"image_id": 9}, r"1 of 3 predictions are of pictures .* \(prediction 1\) of image_id 9; .* 0, 1, 2"),
        ({"image_id": "1"}, "image_id '1'"),
        ({"image_id": [1]}, "'image_id' must be a number"),
        (good()[0], r"prediction 1 \(image_id 0\) is the same as prediction 0"),
    ],
)  # fmt: skip
def test_a_bad_prediction_is_named(change: dict[str, Any], said: str) -> None:
    predictions = good()
    predictions[1] |= change
    assert re.search(said, refused(predictions)), refused(predictions)


def test_bad_lists_are_named() -> None:
    assert "empty" in refused([])
    assert "no 'score'" in refused([{k: v for k, v in good()[0].items() if k != "score"}])
    assert "no 'annotation'; expected {annotation, keypoints" in refused(good(), "mpii")
    people = [{"annotation": 0, "keypoints": [n, 2, 1] * 16, "score": 1} for n in range(2)]
    assert "prediction 1 (annotation 0) is for the same annotation as prediction 0" in refused(people, "mpii")
    assert "of people that the annotation file lacks" in refused([{**people[0], "annotation": 3}], "mpii")


def test_reading_a_predictions_file(tmp_path: Path) -> None:
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(good()))
    assert read_predictions(path) == good()

    def said(text: str | None = None, at: Path = path) -> str:
        if text is not None:
            path.write_text(text)
        with pytest.raises(PosezooError) as caught:
            read_predictions(at)
        assert len(str(caught.value).splitlines()) == 1 and str(at) in str(caught.value)
        return str(caught.value)

    assert f"is a folder, expected a JSON file of predictions; did you mean {path}?" in said(at=tmp_path)
    assert "cannot read" in said(at=tmp_path / "none.json")
    assert "cut off" in said(json.dumps(good())[:-40])
    assert "empty file" in said(" \n")
    assert "not valid JSON" in said("[{'image_id': 1}]")
    assert "not valid JSON" in said("\x89PNG")
    assert "an object with annotations, images" in said('{"images": [], "annotations": []}')
    assert "not a list of predictions {image_id" in said("[1, 2]")
    assert "not a list of predictions" in said("3")
