"""Detectors: the packaged network's contract, boxes from files, the whole image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.detect import Detector, get_detector
from posezoo.detect.embedded import Settings, box_nms, fit_of, network_input, select
from posezoo.errors import PosezooError
from tiny_networks import detector_network, picture


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return get_detector(detector_network(tmp_path_factory.mktemp("networks") / "detector.onnx"))


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(("width", "height", "unit"), [(640, 480, 64), (320, 320, 32), (480, 640, 64), (160, 96, 16)])
def test_boxes_come_back_in_pixels_of_the_image(detector: Detector, width: int, height: int, unit: int) -> None:
    (found,) = detector([picture(width, height, [(2, 2), (6, 3)], unit)])
    corners = np.array([[c - 1, r - 1, c + 2, r + 2] for c, r in [(2, 2), (6, 3)]]) * unit
    expected = np.clip(corners, 0, [width, height] * 2)
    assert np.allclose(sorted(found.xyxy.tolist()), expected, atol=0.01)
    assert (found.scores > 0.9).all() and (found.scores <= 1).all()


def test_many_images_of_several_sizes_and_none(detector: Detector) -> None:
    images = [picture(640, 480, [(2, 2)]), picture(320, 320, [], 32), picture(640, 480, [(1, 1), (5, 4), (8, 1)])]
    assert [len(boxes) for boxes in detector(images)] == [1, 0, 3]
    assert detector([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2), (5000, 4000)])
def test_odd_sizes(detector: Detector, shape: tuple[int, int]) -> None:
    (found,) = detector([np.full((*shape, 3), (0, 255, 0), np.uint8)])
    assert len(found) <= 100
    assert (found.xyxy >= 0).all() and (found.xyxy <= [*shape[::-1], *shape[::-1]]).all()


def test_the_input_is_top_left_padded_and_in_range() -> None:
    x = network_input(np.full((100, 200, 3), 255, np.uint8), 320)
    assert x.shape == (1, 3, 160, 320) and x.dtype == np.float32 and (x == 1).all()
    x = network_input(np.zeros((150, 200, 3), np.uint8), 320)
    assert x.shape == (1, 3, 256, 320)
    assert (x[:, :, :240] == -1).all() and np.allclose(x[:, :, 240:], 114 / 127.5 - 1)
    red = network_input(np.full((64, 64, 3), (255, 0, 0), np.uint8), 64)
    assert red[0, :, 0, 0].tolist() == [1, -1, -1]


def test_scaled_size_keeps_the_aspect_and_never_vanishes() -> None:
    assert fit_of(320).view((640, 480)).scaled_wh == (320, 240)
    assert fit_of(320).view((1, 5000)).scaled_wh == (1, 320)
    assert fit_of(320).view((1, 1)).scaled_wh == (320, 320)


def test_suppression_keeps_the_better_of_two() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [20, 0, 30, 10], [0, 0, 10, 5]], float)
    scores = np.array([0.8, 0.9, 0.5, 0.7])
    assert box_nms(boxes, scores, 0.6).tolist() == [1, 3, 2]
    assert box_nms(boxes, scores, 0.4).tolist() == [1, 2]
    assert box_nms(np.zeros((0, 4)), np.zeros(0), 0.6).tolist() == []


def test_selection_thresholds_limits_and_drops_broken_boxes() -> None:
    x = np.arange(300) * 10.0
    boxes = np.stack([x, x * 0, x + 8, x * 0 + 50], 1)
    boxes[0, 0] = np.nan
    boxes[1] = [30, 0, 20, 50]
    scores = np.linspace(1, 0, 300)
    settings = Settings(long_side=3000, score=0.1, max_people=100)
    found = select(scores, boxes, (100, 3000), settings)
    assert len(found) == 100 and found.xyxy[0].tolist() == [20, 0, 28, 50]
    assert len(select(scores, boxes, (100, 3000), Settings(long_side=3000, score=0.9))) == 28
    assert len(select(scores * 0, boxes, (100, 3000), settings)) == 0


def test_settings_travel_with_the_file(tmp_path: Path) -> None:
    file = detector_network(tmp_path / "d.onnx", {"detector": {"long_side": 640, "score": 0.99}})
    assert get_detector(file).settings == Settings(long_side=640, score=0.99)
    wrong = detector_network(tmp_path / "w.onnx", {"detector": {"long_sid": 640}})
    with pytest.raises(PosezooError, match="unknown detector setting 'long_sid'; did you mean long_side"):
        get_detector(wrong)
    with pytest.raises(PosezooError, match=r"detector's score must be between 0 and 1, but is 2$"):
        Settings.of({"score": 2.0})


def test_names_and_files_that_are_no_detector(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=r"unknown detector 'embeded'; did you mean embedded\?"):
        get_detector("embeded")
    with pytest.raises(PosezooError, match=r"no such file: .*x\.onnx"):
        get_detector(tmp_path / "x.onnx")
    with pytest.raises(PosezooError, match=r"text\.onnx is not an ONNX file"):
        get_detector(write(tmp_path / "text.onnx", "no network"))
    with pytest.raises(PosezooError, match="must be a name, a file or a callable, but is int"):
        get_detector(3)  # type: ignore[arg-type]


def test_any_callable_is_a_detector() -> None:
    whole = get_detector("whole")
    assert get_detector(whole) is whole
    assert [b.xyxy.tolist() for b in whole([np.zeros((5, 7, 3), np.uint8)])] == [[[0, 0, 7, 5]]]
