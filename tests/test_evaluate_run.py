"""A model over a dataset: the whole way from pictures to figures, stopped and gone on with, alone and in company."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from evaluate_fixtures import Oracle, in_box, pictures_with_people, predictions, run
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.evaluate import evaluate_predictions
from posezoo.evaluate.journal import Journal
from posezoo.evaluate.protocol import Protocol, get_protocol
from posezoo.evaluate.run import processes_of_environment, run_evaluation
from posezoo.skeletons import get_skeleton

SAMPLES = {
    "coco": ("coco/test_coco.json", "coco", "AP", 1.0),
    "ochuman": ("ochuman/test_ochuman.json", "ochuman", "AP", 1.0),
    "crowdpose": ("crowdpose/test_crowdpose.json", "crowdpose", "AP", 1.0),
    "aic": ("aic/test_aic.json", "aic", "AP", 1.0),
    "mhp": ("mhp/test_mhp.json", "mhp", "AP", 1.0),
    "halpe136": ("halpe/test_halpe.json", "coco", "AP", 1.0),
    "halpe26": ("halpe/test_halpe.json", "coco", "AP", 1.0),
    "wholebody133": ("coco/test_coco_wholebody.json", "coco", "wholebody/AP", 1.0),
    "jhmdb": ("jhmdb/test_jhmdb_sub1.json", "jhmdb", "PCK/Mean", 1.0),
    "mpii_trb": ("mpii/test_mpii_trb.json", "mpii", "Mean_acc", 1.0),
    "hand21": ("onehand10k/test_onehand10k.json", "onehand10k", "PCK", 1.0),
    "posetrack18": ("posetrack18/annotations/test_posetrack18_val.json", "posetrack18", "Total", 100.0),
}


@pytest.fixture
def dataset(tmp_path):
    return pictures_with_people(tmp_path)


def exif(folder: Path, name: str, sides_wh: tuple[int, int], orientation: int) -> None:
    """Write a grey JPEG under a picture's name, with an Exif orientation."""
    data = cv2.imencode(".jpg", np.full((*sides_wh[::-1], 3), 90, np.uint8))[1].tobytes()
    app1 = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    (folder / name).write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + data[2:])


def test_pictures_are_seen_as_their_annotators_saw_them(dataset):
    names = [f"{number + 1:012d}.png" for number in range(4)]
    for name, sides_wh, orientation in zip(
        names, [(320, 240), (240, 320), (320, 240), (320, 200)], [6, 8, 3, 1], strict=True
    ):
        exif(dataset.images, name, sides_wh, orientation)
    shapes = {}

    class Looks(Oracle):
        def stream(self, images, boxes_xyxy=None, look_ahead=8):
            def looked(pictures):
                for picture in pictures:
                    shapes[Path(picture.name).name] = picture.image_rgb.shape
                    yield picture

            return super().stream(looked(images), boxes_xyxy, look_ahead)

    with pytest.raises(PosezooError, match=r"1 of 6 .* \(is 320x200 instead of 320x240\)"):
        run(Looks(in_box), dataset)
    assert not shapes  # it is said before the work
    report = run(Looks(in_box), dataset, max_missing=0.2)
    # as stored where only that is of the stated size, upright elsewhere, and not at all where neither is
    assert {shapes.get(name) for name in names[:3]} == {(240, 320, 3)} and names[3] not in shapes
    assert report.counts["missing"] == 1 and list(report.missing) == [str(dataset.images / names[3])]


def test_a_perfect_network_scores_one_and_everything_is_written(dataset):
    steps = []
    report = run(Oracle(in_box), dataset, progress=lambda done, total: steps.append((done, total)))
    assert report.metrics["AP"] == report.metrics["AR"] == 1.0
    assert report.counts == {"images": 6, "people": 12, "predictions": 12, "missing": 0}
    assert steps == [(number, 6) for number in range(1, 7)]
    assert sorted(path.name for path in dataset.out.glob("[!.]*")) == ["predictions.json", "report.json", "report.txt"]
    stored = json.loads((dataset.out / "report.json").read_text())
    assert stored["protocol"] == report.protocol == Protocol(
        box_scale=1.25, decode="heatmap", flip_shift=False
    ).describe("coco")  # fmt: skip
    assert stored["metrics"] == report.metrics
    assert {"model", "dataset", "settings", "versions", "date", "command", "device"} <= stored.keys()
    assert report.protocol in (dataset.out / "report.txt").read_text()
    again = evaluate_predictions(dataset.out / "predictions.json", "coco", dataset.annotations)
    assert again == report.metrics


def with_heads(file: Path, target: Path) -> Path:
    """The sample of MPII-TRB is of its training file, which has no head boxes."""
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry["headbox"] = [0, 0, 60, 80]
    target.write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("name", SAMPLES)
def test_ground_truth_of_every_dataset_scores_full_marks(shared, tmp_path, name):
    file, folder, metric, full = SAMPLES[name]
    annotations, images = shared / "samples" / file, shared / "samples" / folder
    if name == "mpii_trb":
        annotations = with_heads(annotations, tmp_path / "trb.json")
    people = read_dataset(name, annotations, images)
    by_box = {}
    for row, image in enumerate(people.image_row):
        key = (str(people.images[image]), *people.boxes_xyxy[row].round(2).tolist())
        by_box[key] = people.keypoints_xy[row], people.weights[row] * 0.9  # PoseTrack counts joints without a label

    def answer(picture, boxes):
        found = [by_box[(picture, *box.round(2).tolist())] for box in boxes]
        return np.array([xy for xy, _ in found]), np.array([scores for _, scores in found])

    oracle = Oracle(answer, people.skeleton.name)
    report = run_evaluation(oracle, name, images, annotations, get_protocol("plain", name), tmp_path / "out")
    assert report.metrics[metric] == pytest.approx(full)


def test_a_stopped_run_goes_on(dataset):
    straight = run(Oracle(in_box), dataset)
    wanted = predictions(dataset)
    stopped = Oracle(in_box, error=3)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, dataset)
    journal = dataset.out / "running.0of1.jsonl"
    with journal.open("a") as file:
        file.write('{"row":5,"predictions":[{"image_id":6,"keyp')  # killed while it wrote
    second = Oracle(in_box)
    report = run(second, dataset)
    assert (len(stopped.seen) - 1, len(second.seen)) == (3, 3)
    assert not set(stopped.seen[:3]) & set(second.seen)
    assert report.notes == ["went on after 3 pictures of an earlier run"]
    assert predictions(dataset) == wanted
    assert report.metrics == straight.metrics
    assert not journal.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": Protocol(flip=True)}, "protocol flip was False, now True"),
        ({"resume": False}, None),
        ({"shift": 1}, "annotations was"),
    ],
)
def test_other_arguments_start_anew(dataset, change, says):
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(in_box, error=2), dataset)
    change = dict(change)
    if change.pop("shift", None):
        dataset.annotations.write_text(dataset.annotations.read_text() + " ")
    second = Oracle(in_box)
    report = run(second, dataset, **change)
    assert len(second.seen) == 6
    assert len(report.notes) == (says is not None)
    assert says is None or f"started anew, since {says}" in report.notes[0]


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_several_processes_give_the_figure_of_one(dataset, processes):
    alone = run(Oracle(in_box), dataset)
    wanted = predictions(dataset)
    shares = [Oracle(in_box) for _ in range(processes)]
    for rank in range(1, processes):
        arguments = (shares[rank], "coco", dataset.images, dataset.annotations, None, dataset.out)
        assert run_evaluation(*arguments, shard=(rank, processes)) is None
    together = run(shares[0], dataset, shard=(0, processes))
    assert predictions(dataset) == wanted
    assert together.metrics == alone.metrics
    assert sorted(name for share in shares for name in share.seen) == sorted(
        path.name for path in dataset.images.iterdir()
    )
    assert together.device.endswith(f", {processes} processes")
    assert not list(dataset.out.glob("running*"))


def test_a_process_that_is_never_heard_of(tmp_path):
    with Journal.open(tmp_path / "a.jsonl", {"x": 1}) as journal:
        with pytest.raises(PosezooError, match="was silent for"):
            journal.join(tmp_path / "b.jsonl", {"x": 1}, patience=0.2)
        with Journal.open(tmp_path / "b.jsonl", {"x": 2}) as other:
            other.finish()
        with pytest.raises(PosezooError, match="was silent for"):  # left there by another run
            journal.join(tmp_path / "b.jsonl", {"x": 1}, patience=0.2)


def test_the_environment_tells_the_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes_of_environment() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert processes_of_environment() == (3, 4)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(PosezooError, match="RANK=4, WORLD_SIZE=4"):
        processes_of_environment()


def test_missing_pictures_are_counted_or_refused(dataset):
    (dataset.images / "000000000002.png").unlink()
    (dataset.images / "000000000003.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(PosezooError, match=r"2 of 6 pictures cannot be used, more than 1%.*000000000002\.png"):
        run(Oracle(in_box), dataset)
    with pytest.raises(PosezooError, match="2 of 6 pictures cannot be used, more than 20%"):
        run(Oracle(in_box), dataset, max_missing=0.2)
    report = run(Oracle(in_box), dataset, max_missing=0.4)
    assert report.counts["missing"] == 2
    assert {Path(file).name for file in report.missing} == {"000000000002.png", "000000000003.png"}
    assert report.metrics["AR"] == pytest.approx(7 / 12)  # nobody counts as found in them
    assert "2 pictures missing" in report.text()


def test_an_unreadable_picture_is_tried_again(dataset):
    broken = dataset.images / "000000000003.png"
    good = broken.read_bytes()
    broken.write_bytes(good[:-20])  # which only who decodes it finds out
    with pytest.raises(PosezooError, match="1 of 6 pictures"):
        run(Oracle(in_box), dataset)
    broken.write_bytes(good)
    second = Oracle(in_box)
    report = run(second, dataset)
    assert second.seen == [broken.name]
    assert (report.counts["missing"], report.metrics["AP"]) == (0, 1.0)


def detections(dataset, extra=()) -> Path:
    """Everybody twice, the second time a pixel off and less sure; and what else is given."""
    rows = []
    for entry in dataset.entries:
        x, y, width, height = entry["bbox"]
        rows.append({"image_id": entry["image_id"], "category_id": 1, "bbox": [x, y, width, height], "score": 0.9})
        rows.append({**rows[-1], "bbox": [x + 1, y, width, height], "score": 0.6})
    file = dataset.annotations.with_name("found.json")
    file.write_text(json.dumps([*rows, *extra]))
    return file


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"nms": "none"}, 24),
        ({"nms": "oks"}, 12),
        ({"nms": "soft-oks"}, 24),
        ({"nms": "parametric"}, 12),
        ({"nms": "box", "nms_threshold": 0.7}, 12),
        ({"box_threshold": 0.7}, 12),
    ],
)
def test_detected_people_are_suppressed_as_the_protocol_says(dataset, settings, kept):
    protocol = Protocol(boxes=str(detections(dataset)), rescoring="none", **settings)
    report = run(Oracle(in_box), dataset, protocol)
    assert report.counts["predictions"] == kept
    found = predictions(dataset)
    assert sum(prediction["score"] == pytest.approx(0.9) for prediction in found) == 12
    assert report.metrics["AR"] == 1.0
    assert "boxes found.json scoring" in report.protocol


@pytest.mark.parametrize(
    ("rescoring", "wanted"), [("none", 0.8), ("joints", (16 * 0.9 + 0.5) / 17), ("product", 0.8 * (14.9 / 17))]
)
def test_the_score_is_what_the_protocol_says(dataset, rescoring, wanted):
    def answer(name, boxes):
        xy, scores = in_box(name, boxes)
        scores[:, 3] = 0.5
        return xy, scores

    x, y, width, height = dataset.entries[0]["bbox"]
    file = dataset.annotations.with_name("found.json")
    file.write_text(json.dumps([{"image_id": 1, "bbox": [x, y, width, height], "score": 0.8}]))
    run(Oracle(answer), dataset, Protocol(boxes=str(file), rescoring=rescoring))
    assert [prediction["score"] for prediction in predictions(dataset)] == [pytest.approx(wanted)]


def test_the_estimator_given_is_left_as_it_was(dataset):
    oracle = Oracle(in_box)
    before = oracle.spec
    run(oracle, dataset, Protocol(flip=True, box_scale=2.0, decode="heatmap-dark"))
    assert (oracle.spec, oracle.flip) == (before, False)


def test_joints_are_picked_by_name(shared, tmp_path):
    """A network of 136 joints on a dataset of 17."""
    halpe, coco = get_skeleton("halpe136"), get_skeleton("coco17")
    annotations, images = shared / "samples/coco/test_coco.json", shared / "samples/coco"
    people = read_dataset("coco", annotations, images)
    by_box = {tuple(box.round(2).tolist()): xy for box, xy in zip(people.boxes_xyxy, people.keypoints_xy, strict=True)}

    def answer(name, boxes):
        xy = np.zeros((len(boxes), 136, 2))
        rows = [halpe.index(joint) for joint in coco.joints]
        xy[:, rows] = [by_box[tuple(box.round(2).tolist())] for box in boxes]
        return xy, np.full((len(boxes), 136), 0.9)

    report = run_evaluation(Oracle(answer, "halpe136"), "coco", images, annotations, Protocol(), tmp_path)
    assert report.metrics["AP"] == 1.0


def test_what_cannot_be_run_says_why(dataset, tmp_path):
    with pytest.raises(PosezooError, match=r"gives mpii16, which has no nose, left_eye, right_eye and 2 more"):
        run(Oracle(in_box, "mpii16"), dataset)
    with pytest.raises(PosezooError, match="give --boxes FILE, or --boxes gt"):
        run(Oracle(in_box), dataset, get_protocol("hrnet", "coco"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"image_id": 77, "bbox": [0, 0, 9, 9], "score": 1}]))
    with pytest.raises(PosezooError, match=r"has boxes for none of the 6 pictures \(it has, for example, '77'\)"):
        run(Oracle(in_box), dataset, Protocol(boxes=str(other)))
    with pytest.raises(PosezooError, match="there is no box in 6 pictures"):
        run(Oracle(in_box), dataset, Protocol(boxes=str(detections(dataset)), box_threshold=1.0))
    with pytest.raises(PosezooError, match=r"gave a joint in .* that is not a finite number"):
        run(Oracle(lambda name, boxes: (np.full((len(boxes), 17, 2), np.nan), np.ones((len(boxes), 17)))), dataset)
    with pytest.raises(PosezooError, match="unknown model 'resnet99'"):
        run("resnet99", dataset)


def test_the_result_of_another_run_is_not_replaced(dataset):
    run(Oracle(in_box), dataset)
    written = {path.name: path.read_bytes() for path in dataset.out.iterdir()}
    other = Oracle(in_box)
    with pytest.raises(PosezooError) as caught:
        run(other, dataset, Protocol(flip=True))
    said = str(caught.value)
    assert f"{dataset.out / 'report.json'} is the result of oracle on coco: protocol flip was False, now True" in said
    assert "name another folder (-o DIR" in said and "--fresh" in said
    assert other.seen == []  # it is said before the work
    other.spec = replace(other.spec, name="other")
    with pytest.raises(PosezooError, match="is the result of oracle on coco: model was oracle, now other"):
        run(other, dataset)
    assert {path.name: path.read_bytes() for path in dataset.out.iterdir()} == written
    assert run(Oracle(in_box), dataset).metrics["AP"] == 1.0  # the same again
    assert run(other, dataset, resume=False).model == "other"
    assert json.loads((dataset.out / "report.json").read_text())["model"] == "other"
    (dataset.out / "report.json").write_text("[]")
    with pytest.raises(PosezooError, match=r"report.json is a file that does not say which run it is of"):
        run(other, dataset)


@pytest.fixture
def two_photographs(shared, tmp_path):
    """Two of COCO's pictures with their people."""
    content = json.loads((shared / "samples/coco/test_coco.json").read_text())
    content["images"] = content["images"][:2]
    ids = {picture["id"] for picture in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    file = tmp_path / "two.json"
    file.write_text(json.dumps(content))
    return SimpleNamespace(images=shared / "samples/coco", annotations=file, out=tmp_path / "out")


def test_the_embedded_network_on_two_photographs(two_photographs):
    """Equal to the estimator called picture by picture, whatever the batch."""
    report = run("embedded", two_photographs, batch_size=3, runtime="onnx", device="cpu")
    assert report.model == "mobile_pose_fpn_1.75.embedded_256x192"
    found = predictions(two_photographs)
    people = read_dataset("coco", two_photographs.annotations, two_photographs.images)
    estimator, wanted = Estimator("embedded", detector=None, runtime="onnx", device="cpu"), []
    for row, (path, image_id) in enumerate(zip(people.images, people.image_ids.tolist(), strict=True)):
        here = (people.image_row == row) & (people.weights > 0).any(axis=1)
        if not here.any():
            continue
        poses = estimator(path, people.boxes_xyxy[here])
        for pose in poses:
            joints = pose.scores[0][pose.scores[0] > 0.2]
            score = float(joints.mean()) if len(joints) else 0.0
            wanted.append({"image_id": image_id, "keypoints": pose.keypoints_xy[0].tolist(), "score": score})
    assert [one["image_id"] for one in found] == [one["image_id"] for one in wanted]
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.reshape(got["keypoints"], (-1, 3))[:, :2], want["keypoints"], atol=0.05)
        assert got["score"] == pytest.approx(want["score"], abs=1e-3)
    assert report.metrics["AP50"] > 0.5
    assert report.versions["onnxruntime"]


@pytest.mark.slow
def test_two_real_processes_give_the_figure_of_one(two_photographs):
    alone = run("embedded", two_photographs, runtime="onnx", device="cpu")
    wanted = predictions(two_photographs)
    code = (
        "from pathlib import Path; from posezoo.evaluate.run import run_evaluation\n"
        f"run_evaluation('embedded', 'coco', Path({str(two_photographs.images)!r}), "
        f"Path({str(two_photographs.annotations)!r}), out_dir=Path({str(two_photographs.out)!r}), "
        "runtime='onnx', device='cpu')"
    )
    started = []
    for rank in (1, 0):
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
    assert [process.wait(120) for process in started] == [0, 0]
    report = json.loads((two_photographs.out / "report.json").read_text())
    assert report["metrics"] == pytest.approx(alone.metrics)
    assert [p["image_id"] for p in predictions(two_photographs)] == [p["image_id"] for p in wanted]
