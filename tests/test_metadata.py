"""What a network's file says of itself: whatever a stranger wrote there, it is used, or refused in one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from posezoo import Estimator, get_entry, list_models
from posezoo.deploy.metadata import LONGEST_SIDE, check_values, metadata_of, parse_metadata, weights_metadata
from posezoo.detect import get_detector
from posezoo.errors import PosezooError
from posezoo.estimator import NetworkSpec
from posezoo.zoo.owner import facts_with
from tiny_networks import METADATA, detector_network, picture, pose_network

HUGE = 10**400  # JSON holds it, and no float does
SIZE = f"input_size_wh must be two whole numbers in 1..{LONGEST_SIDE}, the width and the height, but is"

WRONG: list[tuple[str, Any, str]] = [
    ("input_size_wh", [192], rf"{SIZE} \[192\]"),
    ("input_size_wh", "192x256", f"{SIZE} '192x256'"),
    ("input_size_wh", [192.5, 256], SIZE),
    ("input_size_wh", [192, 0], SIZE),
    ("input_size_wh", [True, 256], SIZE),
    ("input_size_wh", [10**9, 10**9], SIZE),
    ("channels", "xyz", "unknown channels 'xyz'; valid: bgr, rgb"),
    ("channels", ["rgb"], r"channels must be text of at most 100 letters, but is \['rgb'\]"),
    ("mean", [0.5], r"mean must be three finite numbers, but is \[0.5\]"),
    ("mean", "abc", "mean must be three finite numbers, but is 'abc'"),
    ("mean", [0, 0, "0"], "mean must be three finite numbers"),
    ("mean", [0, 0, float("nan")], "mean must be three finite numbers"),
    ("mean", [0, 0, HUGE], "mean must be three finite numbers"),
    ("std", [1, 1], "std must be three finite numbers above 0"),
    ("std", [1, 0, 1], r"std must be three finite numbers above 0, but is \[1, 0, 1\]"),
    ("std", [1, 1e-50, 1], "std must be three finite numbers above 0"),  # which is 0 in single precision
    ("box_scale", "a", "box_scale must be a finite number above 0, but is 'a'"),
    ("box_scale", float("inf"), "box_scale must be a finite number above 0, but is inf"),
    ("box_scale", -1.25, "box_scale must be a finite number above 0"),
    ("box_scale", True, "box_scale must be a finite number above 0"),
    ("flip_shift", "no", "flip_shift must be true or false, but is 'no'"),
    ("flip_shift", 1, "flip_shift must be true or false, but is 1"),
    ("skeleton", ["coco17"], "skeleton must be text"),
    ("skeleton", "coco18", r"unknown skeleton 'coco18'; did you mean coco17\?"),
    ("codec", {"heatmap": 1}, "codec must be text"),
    ("codec", "heatmap-drk", "unknown codec 'heatmap-drk'; did you mean heatmap-dark"),
    ("codec", "heatmap-dark-blur" + "9" * 5000, "codec must be text of at most 100 letters"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_what_a_file_says_wrongly(key: str, value: Any, message: str, tmp_path: Path) -> None:
    """The file is named where it is read, and whatever says it where a network is described from values."""
    path = pose_network(tmp_path / "a.onnx", metadata={**METADATA, key: value})
    with pytest.raises(PosezooError, match=message) as caught:
        Estimator(path, detector=None, threads=1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(PosezooError, match=message) as caught:
        NetworkSpec.of({"name": "mine", **METADATA, key: value})
    assert "mine" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input", ["planes"], r"does not know its input \['planes'\]"),
        ("output", {}, r"does not know its output \{\}"),
        ("precision", ["fp32"], "precision must be text"),
        ("precision", "fp61", "unknown precision 'fp61'; did you mean fp16"),
        ("name", 3, "name must be text, but is 3"),
        ("entry", ["embedded"], "entry must be text"),
    ],
)
def test_what_a_file_says_wrongly_of_its_graph(key: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=message):
        Estimator(pose_network(tmp_path / "a.onnx", metadata={**METADATA, key: value}), detector=None, threads=1)


def test_input_and_output_of_values() -> None:
    """Of a .safetensors file, say, which has no format that would tell of another version."""
    for key, valid in (("input", "crops"), ("output", "joints")):
        assert getattr(NetworkSpec.of({"name": "mine", **METADATA, key: valid}), key) == valid
        with pytest.raises(PosezooError, match=rf"unknown {key} '{valid}x'; did you mean {valid}\? \(in mine\)"):
            NetworkSpec.of({"name": "mine", **METADATA, key: f"{valid}x"})


@pytest.mark.parametrize(
    "settings", ["a", [1], {"score": "a"}, {"nms": None}, {"long_side": 320.5}, {"long_side": 10**9}, {"score": HUGE}]
)
def test_settings_of_a_detector(settings: Any, tmp_path: Path) -> None:
    path = detector_network(tmp_path / "d.onnx", metadata={"name": "d", "detector": settings})
    with pytest.raises(PosezooError, match="detector must be a table of numbers"):
        get_detector(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"mean": ' + "9" * 5000 + "}", "{"])
def test_metadata_that_is_no_json(text: str) -> None:
    with pytest.raises(PosezooError, match=r"^a\.onnx: its 'posezoo' metadata is not JSON"):
        parse_metadata(text, "a.onnx")


def test_the_zoo_says_nothing_wrongly() -> None:
    for name in itertools.chain(list_models(), list_models(task="detection")):
        check_values(vars(get_entry(name)), name)


def header(path: Path, said: Any) -> Path:
    """A .safetensors file without arrays."""
    text = json.dumps({"__metadata__": said}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


SAID = {
    "name": "mine",
    "arch": "mobile_pose_mobilenetv3_small",
    "skeleton": "coco17",
    "codec": "heatmap",
    "channels": "rgb",
    "input_size_wh": "192 256",
    "mean": "0.5 0.5 0.5",
    "std": "1 1 1",
    "box_scale": "1.25",
    "flip_shift": "false",
}


def test_weights_say_it_as_text(tmp_path: Path) -> None:
    spec = NetworkSpec.of(weights_metadata(header(tmp_path / "a.safetensors", SAID)))
    assert (spec.input_size_wh, spec.mean, spec.box_scale, spec.flip_shift) == ((192, 256), (0.5,) * 3, 1.25, False)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("input_size_wh", "192x256", f"{SIZE} '192x256'"),
        ("input_size_wh", "192", rf"{SIZE} \[192\]"),
        ("mean", "0 0", "mean must be three finite numbers"),
        ("std", "1 1 nan", "std must be three finite numbers above 0"),
        ("box_scale", "a", "box_scale must be a finite number above 0, but is 'a'"),
        ("flip_shift", "maybe", "flip_shift must be true or false, but is 'maybe'"),
        ("skeleton", "coco18", "unknown skeleton 'coco18'"),
        ("detector", "none", "detector must be a table of numbers"),
    ],
)
def test_what_weights_say_wrongly(key: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        weights_metadata(header(tmp_path / "a.safetensors", {**SAID, key: text}))
    assert "a.safetensors" in str(caught.value)


@pytest.mark.parametrize("said", [[1], 3, "arch", {**SAID, "entry": ["embedded"]}, {**SAID, "arch": 1}])
def test_weights_that_do_not_say_it_as_text(said: Any, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=r"a\.safetensors is not a whole safetensors file"):
        weights_metadata(header(tmp_path / "a.safetensors", said))


def test_a_header_too_deep(tmp_path: Path) -> None:
    text = b"[" * 100_000
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(PosezooError, match="is not a whole safetensors file"):
        weights_metadata(tmp_path / "a.safetensors")


# ---- what is given to an estimator


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    return Estimator(pose_network(tmp_path_factory.mktemp("a") / "a.onnx"), detector="whole", threads=1)


IMAGE = picture(64, 64, [])
BOXES = [[0, 0, 32, 32], [8, 8, 32, 32]]


def test_boxes_from_an_iterator(estimator: Estimator) -> None:
    for given in ((boxes for boxes in (BOXES, None)), iter([BOXES, None]), (BOXES, None), [np.array(BOXES), None]):
        assert [len(poses) for poses in estimator([IMAGE, IMAGE], given)] == [2, 1]  # type: ignore[arg-type]
    assert [len(poses) for poses in estimator([IMAGE, IMAGE], np.array([BOXES, BOXES]))] == [2, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([BOXES], "2 images were given, but boxes for 1"),
        ((boxes for boxes in [BOXES]), "2 images were given, but boxes for 1"),
        ([BOXES] * 3, "2 images were given, but boxes for more"),
        (itertools.repeat(BOXES), "2 images were given, but boxes for more"),
        ("abc", r"boxes_xyxy must be a list or an iterator of \(N, 4\) boxes, not str"),
        ("ab", r"boxes_xyxy must be a list or an iterator of \(N, 4\) boxes, not str"),
        (5, r"boxes_xyxy must be a list or an iterator of \(N, 4\) boxes, not int"),
        ({"a.png": BOXES, "b.png": BOXES}, "must be a list or an iterator .* not dict"),
        (["abc", BOXES], r"image 0: boxes_xyxy must be \(any, 4\) numbers: str, "),
        ([BOXES, (box for box in BOXES)], r"image 1: boxes_xyxy must be \(any, 4\) numbers: generator, "),
    ],
)
def test_boxes_of_images_that_are_none(estimator: Estimator, given: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        estimator([IMAGE, IMAGE], given)


@pytest.mark.parametrize("given", ["abc", object(), {}, [[0, 0, 9, 9], [1]], [[0, 0, HUGE, 9]]])
def test_boxes_of_an_image_that_are_none(estimator: Estimator, given: Any) -> None:
    with pytest.raises(PosezooError, match=r"image 0: boxes_xyxy must be \(any, 4\) numbers"):
        estimator(IMAGE, given)


@pytest.mark.parametrize("given", ["abc", 5])
def test_boxes_of_a_stream_that_are_none(estimator: Estimator, given: Any) -> None:
    with pytest.raises(PosezooError, match="must be a list or an iterator"):
        next(estimator(iter([IMAGE]), given))


@pytest.mark.parametrize("name", ["threads", "batch_size"])
@pytest.mark.parametrize("value", [1.5, "2", 0, -1])
def test_counts_that_are_none(estimator: Estimator, name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=rf"{name} must be .*, but is '?{value}'?"):
        Estimator(pose_network(tmp_path / "a.onnx"), detector="whole", **{name: value})


def test_a_file_states_the_licence_of_weights_that_are_known() -> None:
    entry = get_entry("res50_coco_256x192")
    spec = NetworkSpec.of(facts_with(entry, None))
    for weights in (None, entry.weights[0].file):
        assert metadata_of(spec, entry, weights=weights)["licence"] == dict(entry.licence)
    for weights in ("random", "mine.pth"):
        assert metadata_of(spec, entry, weights=weights)["licence"] == {"code": entry.licence["code"]}
