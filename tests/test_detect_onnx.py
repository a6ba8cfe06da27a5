"""Detectors of others as ONNX files: each kind is told, fed as it wants to be, and read; what is unclear is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto

from posezoo.detect import get_detector
from posezoo.detect.network import Fit
from posezoo.detect.onnx_graph import read_graph
from posezoo.detect.onnx_read import misread
from posezoo.detect.onnx_told import kinds, names_in, told_of
from posezoo.errors import PosezooError
from tiny_detectors import (
    BGR_255,
    PERSON_BOX,
    RGB,
    RTMDET,
    SCENE,
    SCORE,
    SIDE,
    STRETCHED,
    TOP_LEFT,
    Eye,
    at,
    detr,
    dets,
    graph,
    plain,
    yolov5,
    yolov6,
    yolov8,
    yolov10,
    yolox,
)
from tiny_networks import pose_network

TF_NAMES = ("detection_boxes", "detection_classes", "detection_scores")
STRETCHED_EYE = Eye(xy=(44, 32))


def tensorflow(path: Path) -> Path:
    shares = np.array([0.2, 0.6, 0.8, 0.8])  # y first
    shape = ("N", "H", "W", 3)
    return plain(path, shares, Eye(xy=(140, 50), scale=1 / 255), 1, TF_NAMES, shape=shape, dtype=np.uint8)


def torchvision(path: Path, **options: Any) -> Path:
    return plain(path, np.array(PERSON_BOX), Eye(xy=(140, 50)), **{"shape": (3, "H", "W"), **options})


def rtdetr_with_sizes(path: Path) -> Path:
    sizes = [("orig_target_sizes", TensorProto.INT64, ["N", 2])]
    return plain(path, STRETCHED, STRETCHED_EYE, 0, ("boxes", "labels", "scores"), others=sizes)


KINDS: dict[str, Any] = {
    "yolox": yolox,
    "yolox, decoded": lambda path: yolox(path, raw=False),
    "yolox, one class": lambda path: yolox(path, classes=1),
    "yolox, any size of batch": lambda path: yolox(path, shape=(1, 3, SIDE, SIDE)),
    "yolov5": yolov5,
    "yolov6": yolov6,
    "yolov8": yolov8,
    "yolov10": lambda path: yolov10(path, {"author": "Ultralytics", "task": "detect"}),
    "rtmdet": lambda path: dets(path, RTMDET),
    "yolox of MMDeploy": lambda path: dets(path, BGR_255, first="Slice"),
    "torchvision": torchvision,
    "torchvision, of a batch of one": lambda path: torchvision(path, shape=(1, 3, "H", "W"), bare=True),
    "tensorflow": tensorflow,
    "rtdetr with sizes": rtdetr_with_sizes,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_person_of_the_scene(kind: str, tmp_path: Path) -> None:
    detector = get_detector(KINDS[kind](tmp_path / "d.onnx"))
    twice = detector([SCENE, SCENE])
    for found in twice:
        assert len(found) == 1
        assert found.xyxy[0] == pytest.approx(PERSON_BOX, abs=0.05)
        assert found.scores[0] == pytest.approx(SCORE, abs=0.02)
    assert detector([]) == []


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    dark = np.zeros_like(SCENE)
    for number, make in enumerate(KINDS.values()):
        assert len(get_detector(make(tmp_path / f"{number}.onnx"))([dark])[0]) == 0


@pytest.mark.parametrize("classes", [92, 80])
def test_logits(classes: int, tmp_path: Path) -> None:
    """DETR's are shares of all classes with "nothing", in any size; RT-DETR's are each for itself, in a square."""
    scene, person = np.ascontiguousarray(SCENE[:, ::-1]), np.array([40.0, 20, 80, 80])
    if classes == 92:
        eye = Eye(xy=(400, 333), scale=0.229, offset=0.485)
        path = detr(tmp_path / "d.onnx", 92, eye, (1344, 672), 6.665 * person, 1, -5.0)
        expected = 1 / (1 + 91 * math.exp(-9 + 5 - SCORE))
    else:
        box = person * np.tile([SIDE / 200, SIDE / 100], 2)
        path = detr(tmp_path / "d.onnx", 80, Eye(xy=(19, 32)), (SIDE, SIDE), box, 0, 1.0)
        expected = 1 / (1 + math.exp(-1 - SCORE))
    (found,) = get_detector(path)([scene])
    assert len(found) == 1 and found.xyxy[0] == pytest.approx(person, abs=0.3)
    assert found.scores[0] == pytest.approx(expected, abs=0.01)


def test_classes_by_name(tmp_path: Path) -> None:
    path = dets(tmp_path / "d.onnx", RTMDET)
    both = get_detector(path, classes=("car", "person"))([SCENE])[0]
    assert both.scores.tolist() == pytest.approx([0.9, SCORE], abs=0.01)
    assert len(get_detector(path, classes=("dog",))([SCENE])[0]) == 0
    with pytest.raises(PosezooError, match=r"unknown class 'persn'; did you mean person\? .*tells 80 apart"):
        get_detector(path, classes=("persn",))
    with pytest.raises(PosezooError, match="classes must be one or more names"):
        get_detector(path, classes="person")


def test_boxes_of_two_classes_do_not_suppress_each_other(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 30, 30, 0.9], [0, 0, 30, 29, 0.8], [1, 0, 30, 30, 0.7]], np.float32)
    labels = {"labels": (np.array([0, 2, 0]), None)}
    path = graph(tmp_path / "d.onnx", {"dets": (boxes, None), **labels}, RTMDET)
    assert len(get_detector(path, classes=("person", "car"), nms=0.5)([SCENE])[0]) == 2
    assert len(get_detector(path, classes=("person", "car"))([SCENE])[0]) == 3  # the graph has done it already


def test_thresholds_and_batches(tmp_path: Path) -> None:
    path = dets(tmp_path / "d.onnx", RTMDET, shape=(2, 3, SIDE, SIDE))
    assert [len(found) for found in get_detector(path, score=0.05, batch_size=4)([SCENE] * 3)] == [2, 2, 2]
    assert len(get_detector(path, score=0.95)([SCENE])[0]) == 0
    for wrong, message in (
        ({"score": 1.5}, "score must be between 0 and 1, but is 1.5"),
        ({"nms": 0.0}, "nms must be"),
    ):
        with pytest.raises(PosezooError, match=message):
            get_detector(path, **wrong)
    with pytest.raises(PosezooError, match="batch_size must be 1 or more, but is 0"):
        get_detector(path, batch_size=0)


def test_class_names_in_the_file_and_beside_it(tmp_path: Path) -> None:
    named = yolov8(tmp_path / "named.onnx", 3, 2, {"names": "{0: 'cat', 1: 'dog', 2: 'person'}", "task": "detect"})
    assert len(get_detector(named)([SCENE])[0]) == 1
    assert len(get_detector(named, classes=("cat",))([SCENE])[0]) == 0
    bare = yolov8(tmp_path / "bare.onnx", 3, 2)
    with pytest.raises(PosezooError, match=r"tells 3 classes apart and does not say which .* say so in .*bare\.toml"):
        get_detector(bare)
    (tmp_path / "bare.toml").write_text('classes = ["cat", "dog", "person"]')
    assert len(get_detector(bare)([SCENE])[0]) == 1
    (tmp_path / "bare.toml").write_text('classes = ["person"]')
    with pytest.raises(PosezooError, match="tells 3 classes apart, but 1 names are given"):
        get_detector(bare)


def test_mmdeploys_own_file_beside_it(tmp_path: Path) -> None:
    """It goes before what the operators would say."""
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "keep_ratio": True, "size": [SIDE, SIDE]},
        {"type": "Pad", "size": [SIDE, SIDE], "pad_val": {"img": [7, 7, 7]}},
        {"type": "Normalize", "mean": [100.0, 0.0, 0.0], "std": [51.0, 1.0, 1.0], "to_rgb": True},
        {"type": "Pad", "size_divisor": 1},
    ]
    path = dets(tmp_path / "end2end.onnx", Eye(0, scale=51 / 255, offset=100 / 255), more=["Relu"])
    with pytest.raises(PosezooError, match=r"neither RTMDet nor YOLOX \(pipeline\.json beside it would help\)"):
        get_detector(path)
    (tmp_path / "pipeline.json").write_text(json.dumps({"pipeline": {"tasks": [{"transforms": steps}, {"name": "x"}]}}))
    detector = get_detector(path)
    assert detector([SCENE])[0].scores == pytest.approx([SCORE], abs=0.01)
    assert (detector.fit.fill, detector.fit.place) == (7, "top-left")
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(PosezooError, match=r"is not the pipeline\.json that MMDeploy writes"):
        get_detector(path)


def test_plain_boxes_have_to_be_told(tmp_path: Path) -> None:
    scores = np.array([[0.1, 0], [0.9, 0.2]], np.float32)
    boxes = np.array([[38.4, 6.4, 12.8, 19.2], [0, 0, 9, 9]], np.float32)
    outputs = {"b": (boxes, None), "s": (scores, at((2, 2), 0, 1)), "z": (np.zeros((2, 2), np.float32), None)}
    path = graph(tmp_path / "d.onnx", outputs, BGR_255, ("N", 3, "H", "W"))
    with pytest.raises(PosezooError) as caught:
        get_detector(path)
    said = str(caught.value)
    assert "image (any, 3, any, any) float and gives b (any, 2, 4) float, s (any, 2, 2) float" in said
    assert f'write {tmp_path / "d.toml"} with kind = "plain"' in said and "size_wh" in said and "\n" not in said
    told = 'kind = "plain"\nsize_wh = [64, 64]\nchannels = "bgr"\nrange = 255\nboxes = "xywh"\n'
    told += 'classes = ["dog", "person"]\noutputs = { boxes = "b", scores = "s" }\n'
    (tmp_path / "d.toml").write_text(told)
    (found,) = get_detector(path)([SCENE])
    assert found.xyxy[0] == pytest.approx(PERSON_BOX, abs=0.05) and found.scores == pytest.approx([SCORE], abs=0.01)
    (tmp_path / "d.toml").write_text(told.replace('"s"', '"score"'))
    with pytest.raises(PosezooError, match="has no output 'score': it gives b"):
        get_detector(path)
    (tmp_path / "d.toml").write_text('kind = "plain"\noutputs = { boxes = "b" }')
    with pytest.raises(PosezooError, match="which of its outputs has the scores is not clear"):
        get_detector(path)


def test_six_numbers_a_box_have_to_be_told(tmp_path: Path) -> None:
    """Whose they are nothing says; others begin with the class."""
    path = yolov10(tmp_path / "d.onnx")
    with pytest.raises(PosezooError, match=r'six numbers a box, .*d\.toml with kind = "yolov10"'):
        get_detector(path)
    (tmp_path / "d.toml").write_text('kind = "yolov10"')
    (found,) = get_detector(path)([SCENE])
    assert found.xyxy[0] == pytest.approx(PERSON_BOX, abs=0.05) and found.scores == pytest.approx([SCORE], abs=0.02)
    (car,) = get_detector(path, classes=("car",))([SCENE])
    assert car.scores == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "yolx"', r"unknown kind 'yolx'; did you mean yolox"),
        ('kind = "yolox"\ncolour = 1', r"unknown key 'colour'.*d\.toml"),
        ('kind = "yolox"\nplace = "left"', r"d\.toml: unknown place 'left'.*valid: top-left, centre"),
        ('kind = "yolox"\nsize_wh = [640]', "size_wh must be two positive whole numbers"),
        ('kind = "yolox"\nstd = [0, 1, 1]', "std must be three positive numbers"),
        ('kind = "yolox"\nmean = "dark"', "mean must be three numbers"),
        ('kind = "yolox"\nclasses = "coco"', "classes must be names, or one of coco80"),
        ('kind = "yolox"\nrange = 0', "range must be a positive number"),
        ('kind = "yolox"\noutputs = { box = "a" }', "outputs must name boxes, scores, labels"),
        (
            'kind = "yolox"\noutputs = { boxes = ["a"], scores = "b" }',
            r"outputs must name .*text.*, but is \{'boxes': \['a'",
        ),
        ('kind = "yolox"\noutputs = "boxes"', "outputs must name .*, but is 'boxes'"),
        ('kind = [["yolox"]]', "unknown kind"),
        ("kind = { name = 1 }", "unknown kind"),
        ('kind = "yolox"\nclasses = { a = 1 }', "classes must be names, or one of coco80"),
        ('kind = "yolox"\nclasses = [["person"]]', "classes must be names, or one of coco80"),
        ('kind = "yolox"\nfill = true', "fill must be a grey level in 0..255, but is True"),
        ('kind = "yolox"\nsize_wh = [-64, 64]', r"size_wh must be two positive whole numbers, .* but is \(-64, 64\)"),
        ('kind = "yolox"\nsize_wh = [1000000, 1000000]', "size_wh must be two positive whole numbers, at most 4096"),
        (f'kind = "yolox"\nmean = [1{"0" * 400}, 0, 0]', "mean must be three numbers"),
        ("kind = ", "is not valid TOML"),
    ],
)
def test_a_wrong_file_beside_it(text: str, message: str, tmp_path: Path) -> None:
    path = yolox(tmp_path / "d.onnx")
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(PosezooError, match=message):
        get_detector(path)


@pytest.mark.parametrize("size", ["[-64, 64]", "[1000000, 1000000]", "[true, 64]"])
def test_a_size_that_cannot_be_is_not_tried(size: str, tmp_path: Path) -> None:
    path = torchvision(tmp_path / "d.onnx")
    (tmp_path / "d.toml").write_text(f'kind = "torchvision"\nsize_wh = {size}')
    with pytest.raises(PosezooError, match=r"d\.toml: size_wh must be two positive whole numbers"):
        get_detector(path)


@pytest.mark.parametrize(
    ("reads", "boxes", "other", "message"),
    [
        (
            "softmax",
            (2, 4),
            (2,),
            r"as its scores, read as softmax, 's' must be numbers \(n, classes \+ 1\) with n = 2 ",
        ),
        (
            "sigmoid",
            (2, 4),
            (2,),
            r"read as sigmoid, 's' must be numbers \(n, classes\) with n = 2 .* is float32 \(2,\)",
        ),
        ("found", (2, 5), (2,), r"'b' must be numbers \(n, 6\)"),
        ("softmax", (2, 4), (2, 1), r"'s' must be numbers \(n, classes \+ 1\) .* is float32 \(2, 1\)"),
        ("sigmoid", (2, 4), (3, 80), r"'s' must be numbers \(n, classes\) with n = 2 .* is float32 \(3, 80\)"),
        ("softmax", (2, 5), (2, 92), r"as its boxes, read as softmax, 'b' must be numbers \(n, 4\) .* \(2, 5\)"),
        ("plain", (2, 4), (2, 3, 1), r"'s' must be numbers \(n,\) or \(n, classes\) .* \(2, 3, 1\): say in .*d\.toml"),
        ("dets", (2, 4), (2,), r"'b' must be numbers \(n, 5\)"),
        ("dets", (2, 5), (2, 1), r"as its labels, read as dets, 's' must be numbers \(n,\)"),
        ("grid", (84,), (2,), r"'b' must be numbers \(A, 5 \+ classes\) .* \(84,\)"),
        ("rows", (84, 5), (2,), r"'b' must be numbers \(A, 5 \+ classes\) .* \(84, 5\)"),
        ("columns", (84,), (2,), r"'b' must be numbers \(4 \+ classes, A\)"),
    ],
)
def test_outputs_that_are_not_those_of_the_kind(
    reads: str, boxes: tuple[int, ...], other: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    outputs = {"b": (np.zeros(boxes, np.float32), None), "s": (np.zeros(other, np.float32), None)}
    path = graph(tmp_path / "d.onnx", outputs, RGB)
    named = {"dets": "labels"}.get(reads, "scores")
    (tmp_path / "d.toml").write_text(f'reads = "{reads}"\noutputs = {{ boxes = "b", {named} = "s" }}')
    with pytest.raises(PosezooError, match=message) as caught:
        get_detector(path)
    assert "\n" not in str(caught.value)


def test_detr_whose_scores_are_one_a_box(tmp_path: Path) -> None:
    path = plain(tmp_path / "d.onnx", STRETCHED, STRETCHED_EYE, names=("pred_boxes", "classes", "logits"))
    (tmp_path / "d.toml").write_text('kind = "detr"')
    with pytest.raises(
        PosezooError, match=r"'logits' must be numbers \(n, classes \+ 1\) with n = 2 .* float32 \(2,\)"
    ):
        get_detector(path)


def test_outputs_that_change_with_the_picture() -> None:
    """How many boxes there are a graph tells with each picture; as many scores must be there."""
    boxes, scores = np.zeros((3, 4)), np.zeros((3, 80))
    assert misread("sigmoid", {"boxes": boxes, "scores": scores}) is None
    assert misread("sigmoid", {"boxes": boxes[:0], "scores": scores[:0]}) is None
    assert misread("sigmoid", {"boxes": boxes, "scores": scores[:2]}) == ("scores", "numbers (n, classes) with n = 3")
    assert misread("plain", {"boxes": boxes, "scores": np.array(["a"] * 3)}) is not None


@pytest.mark.parametrize("names", ["{[]: 1}", "[" * 5000, "{0: 'a'", "{1: 'a'}"])
def test_class_names_in_the_file_that_are_none(names: str) -> None:
    assert names_in({"names": names}) is None


@pytest.mark.parametrize("fill", [[], float("inf"), "a"])
def test_a_damaged_pipeline(fill: Any, tmp_path: Path) -> None:
    path = dets(tmp_path / "d.onnx", RTMDET)
    steps = [{"type": "Resize", "size": [SIDE, SIDE]}, {"type": "Pad", "pad_val": fill}]
    (tmp_path / "pipeline.json").write_text(json.dumps({"pipeline": {"tasks": [{"transforms": steps}]}}))
    with pytest.raises(PosezooError, match=r"is not the pipeline\.json that MMDeploy writes"):
        get_detector(path)


def test_a_kind_that_it_is_not(tmp_path: Path) -> None:
    path = yolov5(tmp_path / "d.onnx")
    (tmp_path / "d.toml").write_text('kind = "yolox"')
    with pytest.raises(PosezooError, match=r"gives \(252, 85\) for an input of 64 x 64, which is no YOLOX grid"):
        get_detector(path)


def test_pose_networks_are_no_detectors(tmp_path: Path) -> None:
    blob = {"output": (np.zeros((17, 16, 16), np.float32), None)}
    simcc = {"simcc_x": (np.zeros((17, 128), np.float32), None), "simcc_y": (np.zeros((17, 128), np.float32), None)}
    yolo = yolov8(tmp_path / "yolo.onnx", 52, 0, {"task": "pose", "names": "{0: 'person'}"})
    for path, why in (
        (graph(tmp_path / "maps.onnx", blob, RGB), r"output \(any, 17, 16, 16\)"),
        (graph(tmp_path / "simcc.onnx", simcc, RGB), "simcc_x"),
        (yolo, "its task is pose"),
        (pose_network(tmp_path / "ours.onnx"), "is no detector, but a pose network: -m takes those"),
    ):
        with pytest.raises(PosezooError, match=why) as caught:
            get_detector(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_graphs_that_are_nothing_we_know(tmp_path: Path) -> None:
    vector = graph(tmp_path / "class.onnx", {"logits": (np.zeros(1000, np.float32), None)}, RGB)
    with pytest.raises(PosezooError, match=r"of no kind that is known: it takes image .*kind = one of yolox, "):
        get_detector(vector)
    odd = yolox(tmp_path / "odd.onnx", others=[("strength", TensorProto.FLOAT, [1])])
    with pytest.raises(PosezooError, match=r"takes strength \(1\) float beside the picture, and nobody knows"):
        get_detector(odd)


def test_damaged_files(tmp_path: Path) -> None:
    whole = dets(tmp_path / "d.onnx", RTMDET).read_bytes()
    assert read_graph(tmp_path / "d.onnx", {"image"}).first == {"Conv"}
    for length in (0, 40, len(whole) // 2):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(PosezooError, match=r"cut\.onnx") as caught:
            get_detector(tmp_path / "cut.onnx")
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PosezooError, match="is not a whole ONNX file"):
        read_graph(tmp_path / "cut.onnx", {"image"})
    (tmp_path / "song.onnx").write_bytes(b"ID3\x04\0\0" + bytes(100))
    with pytest.raises(PosezooError, match=r"song\.onnx is not an ONNX file"):
        get_detector(tmp_path / "song.onnx")


def test_every_kind_says_what_it_needs() -> None:
    for name in kinds():
        told = told_of(name, {}, "here")
        assert told.title and told.reads


@pytest.mark.parametrize(
    ("fit", "size", "scaled", "corner", "canvas"),
    [
        (Fit((64, 64)), (200, 100), (64, 32), (0, 0), (64, 64)),
        (Fit((64, 64), "centre"), (200, 100), (64, 32), (0, 16), (64, 64)),
        (Fit((64, 64), "stretch"), (200, 100), (64, 64), (0, 0), (64, 64)),
        (Fit((64, 64), "as-is"), (200, 100), (200, 100), (0, 0), (200, 100)),
        (Fit((1333, 800), "tight"), (640, 480), (1067, 800), (0, 0), (1088, 800)),
        (Fit((1333, 800), "tight"), (480, 640), (800, 1067), (0, 0), (800, 1088)),
        (Fit((640, 640), rounding="down"), (333, 501), (425, 640), (0, 0), (640, 640)),
        (Fit((64, 64)), (1, 9000), (1, 64), (0, 0), (64, 64)),
    ],
)
def test_where_a_picture_lies(fit: Fit, size: Any, scaled: Any, corner: Any, canvas: Any) -> None:
    view = fit.view(size)
    assert (view.scaled_wh, view.corner_xy, fit.canvas_wh(size)) == (scaled, corner, canvas)
    whole = np.array([[*corner, corner[0] + scaled[0], corner[1] + scaled[1]]], float)
    assert view.to_picture(whole)[0] == pytest.approx([0, 0, *size])
    planes = fit.inputs([np.full((size[1], size[0], 3), 255, np.uint8)])
    assert planes.shape == (1, 3, canvas[1], canvas[0])
    assert int((planes[0, 0] == 1).sum()) == scaled[0] * scaled[1]


def test_top_left_is_where_the_graphs_look() -> None:
    planes = Fit((SIDE, SIDE), channels="bgr", std=(1 / 255,) * 3).inputs([SCENE])
    x, y = ((TOP_LEFT[:2] + TOP_LEFT[2:]) / 2).astype(int)
    assert planes[0, :, y, x].tolist() == [51, 102, 204] and planes[0, 0, 50, 0] == 114
