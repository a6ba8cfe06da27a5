"""YOLOv3 as a detector: the peer's letterbox and suppression, darknet's files, and what is wrong with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.detect import get_detector, yolov3
from posezoo.detect.classes import COCO, COCO_IDS
from posezoo.detect.network import Candidates, Settings, View, box_nms, select
from posezoo.errors import PosezooError
from posezoo.zoo import get_entry

torch = pytest.importorskip("torch")

# a network of one convolution: every cell of 32 x 32 pixels has a box of 64 x 96 there, as sure as it is red
CFG = """
[net]
width=128
height=32
[maxpool]
size=32
stride=32
[convolutional]
filters=7
size=1
stride=1
pad=1
activation=linear
[yolo]
anchors=64,96
classes=2
"""
WIDE = View((10_000, 10_000), (10_000, 10_000), (0, 0))


def weights_of(bias: list[float], matrix: np.ndarray, version: tuple[int, int, int] = (0, 2, 0)) -> bytes:
    numbers = np.concatenate([bias, matrix.ravel()]).astype("<f4")
    return struct.pack("<3iq", *version, 7) + numbers.tobytes()


def red_finder(folder: Path, label: int = 0) -> Path:
    """The files of the network above; of class 1 what is blue."""
    matrix = np.zeros((7, 3), np.float32)
    matrix[4, 0] = 40  # objectness: red
    matrix[5 + 1 - label, 2] = 5
    bias = np.zeros(7)
    bias[4], bias[5 + label] = -25, 3
    (folder / "red.cfg").write_text(CFG)
    (folder / "red.weights").write_bytes(weights_of(bias.tolist(), matrix))
    (folder / "red.names").write_text("person\nball\n")
    return folder / "red.weights"


def scene(blue: int = 0) -> np.ndarray:
    """Twice as large as its place in the input, where it has 16 pixels of grey on either side: red in column 1."""
    image = np.zeros((64, 192, 3), np.uint8)
    image[:, 32:96] = (190, 0, blue)
    return image


# ---- against the peer


def read(parity: Path, name: str) -> dict[str, Any]:
    return json.loads((parity / "ops" / f"yolo_{name}.json").read_text())


def array(entry: dict[str, Any]) -> np.ndarray:
    return np.array(entry["data"], np.float32).reshape(entry["shape"])


def test_the_letterbox_is_the_peers(parity: Path) -> None:
    from fill import make_image, sample_index

    wanted = read(parity, "prep_frame")
    planes = yolov3.fit_of((416, 416)).inputs([make_image(240, 320)])
    pixels = np.round(planes[0].transpose(1, 2, 0)[..., ::-1] * 255)
    places = sample_index(planes.size)
    assert np.abs(pixels.ravel()[places] - wanted["letterbox"]["values"]).max() == 0
    assert pixels[206].ravel()[:60].tolist() == wanted["row_206_first_60"]["data"]
    assert planes.ravel()[places].tolist() == wanted["tensor"]["values"]


def test_the_suppression_is_the_peers(parity: Path) -> None:
    """The fixture has no classes: those that it gives back are people, as is every second box; the others are not."""
    wanted = read(parity, "write_results")
    boxes, found = array(wanted["prediction_data_first5"]), array(wanted["output"])
    settings = Settings.of({**yolov3.SETTINGS, "score": 0.1})
    for picture, table in enumerate(boxes):
        rows = found[found[:, 0] == picture]
        corners = np.concatenate([table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2], 1)
        known = {int(np.abs(corners - row[1:5]).max(1).argmin()) for row in rows}
        people = [n % 2 == 0 or n in known for n in range(len(table))]
        assert sum(people) > len(rows) + 5
        classes = np.eye(80, dtype=np.float32)[[0 if person else 7 for person in people]]
        got = select(yolov3.read([np.concatenate([table, classes], 1)], WIDE, 0.1), WIDE, settings)
        assert np.abs(np.c_[got.xyxy, got.scores] - rows[:, 1:6]).max() < 1e-4


def test_overlaps_count_the_last_pixel() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 4, 9, 13]], float)  # 10 x 10 pixels, 6 rows of both: 60 of 140
    scores = np.array([0.9, 0.8])
    share = 60 / 140
    assert len(box_nms(boxes, scores, share + 1e-9, pixel=1)) == 2 and len(box_nms(boxes, scores, share - 1e-9, 1)) == 1
    assert len(box_nms(boxes, scores, share - 0.03)) == 2  # without it 45 of 117


def test_a_crowd_is_suppressed_with_a_lower_threshold() -> None:
    """Pairs that overlap by 0.57: both stay up to 100 boxes, and one of them above."""
    for pairs, stay in ((50, 100), (51, 51)):
        left = np.repeat(np.arange(pairs) * 100.0, 2)
        boxes = np.stack([left, left * 0, left + 79, left * 0 + 99], axis=1)
        boxes[1::2, [1, 3]] += 27
        found = Candidates(boxes, np.linspace(0.9, 0.5, len(boxes)))
        assert len(select(found, WIDE, Settings.of(yolov3.SETTINGS))) == stay


# ---- darknet's files


def test_boxes_of_a_network_from_its_files(tmp_path: Path) -> None:
    (found,) = get_detector(red_finder(tmp_path), threads=1)([scene()])
    # the cell's middle is at (48, 16) of the input; cubic scaling makes the red near its edge a little brighter
    assert len(found) == 1 and 1 / (1 + np.exp(25 - 40 * 190 / 255)) <= found.scores[0] < 1
    assert found.xyxy[0] == pytest.approx([(48 - 32 - 16) * 2, 0, (48 + 32 - 16) * 2, 64], abs=1e-3)
    by_cfg = get_detector(tmp_path / "red.cfg", threads=1)([scene(), scene()])
    assert [boxes.xyxy.tolist() for boxes in by_cfg] == [found.xyxy.tolist()] * 2


def test_its_best_class_counts(tmp_path: Path) -> None:
    path = red_finder(tmp_path)
    assert len(get_detector(path)([scene(blue=255)])[0]) == 0  # more of a ball
    assert len(get_detector(path, classes=("ball",))([scene(blue=255)])[0]) == 1
    assert len(get_detector(path, score=0.9999)([scene()])[0]) == 0
    with pytest.raises(
        PosezooError, match=r"unknown class 'dog'; valid: ball, person \(.*red\.weights tells 2 apart\)"
    ):
        get_detector(path, classes=("dog",))
    (tmp_path / "red.names").unlink()
    with pytest.raises(PosezooError, match=r"tells 2 classes apart and does not say .* name them in .*red\.names"):
        get_detector(path)


def test_the_mini_network_of_the_peer(parity: Path, tmp_path: Path) -> None:
    for suffix in (".cfg", ".weights"):
        (tmp_path / f"mini{suffix}").write_bytes((parity / "yolo" / f"mini{suffix}").read_bytes())
    (tmp_path / "mini.names").write_text("person\ncar\n")
    detector = get_detector(tmp_path / "mini.weights", threads=1)
    (found,) = detector([np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)])
    assert len(found) and (found.scores >= 0.05).all() and (np.diff(found.scores) <= 0).all()
    assert (found.xyxy >= 0).all() and (found.xyxy <= [150, 100, 150, 100]).all()
    assert detector.fit.size_wh == (64, 64)


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    path = red_finder(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(PosezooError, match=r"red\.weights does not fit .* 26 numbers where .* 28: 2 are missing"):
        get_detector(path)
    path.write_bytes(whole[:-3])
    with pytest.raises(PosezooError, match="is not a whole darknet weights file"):
        get_detector(path)
    path.write_bytes(b"RIFF\x24\x08\0\0WAVEfmt " + bytes(500))  # a sound
    with pytest.raises(PosezooError, match="is no darknet weights file: it begins with version"):
        get_detector(path)
    path.unlink()
    with pytest.raises(PosezooError, match=r"red\.cfg says how .*weights are missing: expected .*red\.weights"):
        get_detector(tmp_path / "red.cfg")
    for name in ("red.weights", "no.cfg"):
        with pytest.raises(PosezooError, match=rf"no such file: .*{name}"):
            get_detector(tmp_path / name)


def test_weights_without_a_cfg_are_known_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "yolov3-spp.weights"
    path.write_bytes(bytes(5000))
    message = r"has 5000 bytes, neither 248007048 of yolov3 nor 252209544 of yolov3_spp: it is cut off, or of another"
    with pytest.raises(PosezooError, match=message):
        get_detector(path)
    opened: list[Any] = []
    monkeypatch.setattr(yolov3, "open_yolov3", lambda entry, *where, **asked: opened.append((entry.name, asked)))
    for size, name in ((252209544, "yolov3_spp.darknet_coco_608"), (248007044, "yolov3.darknet_coco_608")):
        with path.open("wb") as file:
            file.truncate(size)  # takes no room on the disk
        get_detector(path)
        assert opened[-1][0] == name and opened[-1][1]["weights"] == path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width=128", "width=100", r"multiples of 32, but are \(100, 32\)"),
        ("[yolo]", "[yollo]", r"red\.cfg: unknown darknet section 'yollo'"),
        ("filters=7", "filters=8", r"red\.cfg: darknet \[yolo\] of 2 classes needs 7 filters"),
        ("classes=2", "classes", "line 16: expected"),
    ],
)
def test_a_wrong_cfg(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = red_finder(tmp_path)
    (tmp_path / "red.cfg").write_text(CFG.replace(old, new))
    with pytest.raises(PosezooError, match=message):
        get_detector(path)
    (tmp_path / "red.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PosezooError, match=r"cannot read .*red\.cfg: it is not text"):
        get_detector(path)


# ---- the zoo's


@pytest.mark.parametrize(("name", "file"), [("yolov3-spp", "yolov3-spp.weights"), ("yolov3", "yolov3.weights")])
def test_entries(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.models.build import outline
    from posezoo.zoo.weights.darknet import count

    entry = get_entry(name)
    assert entry.detector == {**yolov3.SETTINGS} and entry.input_size_wh == (608, 608)
    (weights,) = entry.weights
    assert weights.file == file and weights.urls == (f"https://pjreddie.com/media/files/{file}",)
    assert weights.bytes == 20 + 4 * count(outline(entry.arch, 0))
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path))
    with pytest.raises(PosezooError, match=rf"offline, and {file} .*download https://pjreddie.* and put it at "):
        get_detector(name)
    with pytest.raises(PosezooError, match="unknown class 'persons'; did you mean person"):
        get_detector(name, classes=("persons",))


@pytest.mark.slow
def test_the_whole_network_by_its_size(tmp_path: Path) -> None:
    """All numbers are zero: every box is as sure as not, of class 0, and of its anchor's size."""
    from posezoo.models.build import outline
    from posezoo.zoo.weights.darknet import count

    path = tmp_path / "some.weights"
    numbers = np.zeros(count(outline("yolov3", 0)), "<f4")
    path.write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + numbers.tobytes())
    (found,) = get_detector(path, threads=2)([np.zeros((480, 640, 3), np.uint8)])
    assert len(found) > 100 and (found.scores == 0.5).all()
    assert (found.xyxy >= 0).all() and (found.xyxy <= [640, 480, 640, 480]).all()


def test_the_names_of_classes() -> None:
    assert len(COCO) == 80 and len(COCO_IDS) == 91
    assert (COCO[0], COCO[79], COCO_IDS[1], COCO_IDS[90], COCO_IDS[44]) == (
        "person",
        "toothbrush",
        "person",
        "toothbrush",
        "bottle",
    )


def test_a_file_that_posezoo_exported(tmp_path: Path) -> None:
    """One output, and metadata that name the entry: it is read as YOLOv3, with the settings that travel with it."""
    pytest.importorskip("onnx")
    from tiny_detectors import CENTRED, PERSON_BOX, SCENE, SCORE, Eye, at, graph, middle

    rows = np.zeros((3, 85), np.float32)
    rows[1, :4], rows[1, 5] = middle(CENTRED), 1
    values = {"name": "yolov3.darknet_coco_608", "detector": {**yolov3.SETTINGS, "long_side": 64, "score": 0.2}}
    told = {"posezoo": json.dumps(values)}
    shape = ("N", 3, "H", "W")
    outputs = {"boxes": (rows, at(rows.shape, 1, 4))}
    path = graph(tmp_path / "d.onnx", outputs, Eye(xy=(44, 32)), shape, metadata=told)
    detector = get_detector(path)
    (found,) = detector([SCENE])
    assert found.xyxy[0] == pytest.approx(PERSON_BOX, abs=0.05) and found.scores == pytest.approx([SCORE], abs=0.01)
    assert (detector.settings.score, detector.settings.crowd, detector.fit.fill) == (0.2, 100, 128)
