"""Boxes from files: every layout that others write, and what is wrong with one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from format_results import COCO, some_poses
from posezoo.detect import get_detector, kind_of_file
from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.formats import Result, open_writer


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def corners(boxes: BoxesFile, name: str) -> list[list[float]]:
    found = boxes.find(name)
    assert found is not None, name
    return found.xyxy.tolist()


def test_coco_detections(tmp_path: Path) -> None:
    rows = [
        {"image_id": 139, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5},
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.75},
        {"image_id": 139, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1.0},
        {"file_name": "a.jpg", "bbox": [0, 0, 5, 6]},
    ]
    boxes = BoxesFile.read(write(tmp_path / "b.json", rows))
    found = boxes.find("some/where/000000000139.jpg")
    assert found is not None
    assert found.xyxy.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]] and found.scores.tolist() == [0.5, 0.75]
    plain = boxes.find("x/a.jpg")
    assert plain is not None and plain.xyxy.tolist() == [[0, 0, 5, 6]] and plain.scores.tolist() == [1]
    assert boxes.find("b.jpg") is None


def test_coco_annotations_and_the_plain_layout(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "x.jpg"}, {"id": 8, "file_name": "y.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2]}],
    }
    boxes = BoxesFile.read(write(tmp_path / "a.json", content))
    assert [len(boxes.find(name) or []) for name in ("x.jpg", "y.jpg")] == [1, 0]
    assert boxes.find("y.jpg") is not None
    plain = BoxesFile.read(write(tmp_path / "p.json", {"in/x.jpg": [[1, 2, 3, 4, 0.25], [0, 0, 9, 9]], "y.jpg": []}))
    image = np.zeros((9, 9, 3), np.uint8)
    first, second = plain([image, image], names=["in/x.jpg", "y.jpg"])
    assert first.xyxy.tolist() == [[1, 2, 3, 4], [0, 0, 9, 9]] and first.scores.tolist() == [0.25, 1]
    assert len(second) == 0


def test_a_boxes_file_needs_names(tmp_path: Path) -> None:
    boxes = get_detector(write(tmp_path / "p.json", {"x.jpg": []}))
    with pytest.raises(PosezooError, match="are found by file name: give paths"):
        boxes([np.zeros((9, 9, 3), np.uint8)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("3", "expected a list of detections"),
        ([{"image_id": 1, "bbox": [0, 0, math.nan, 4]}], r"entry 0 \(picture 1\) is not finite"),
        ([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": math.inf}], r"entry 0 \(picture 1\) is not finite"),
        ([{"image_id": 2, "bbox": [0, 0, -5, 4]}], r"entry 0 \(picture 2\) has a negative size"),
        ([{"image_id": 1, "bbox": [0, 0, 1]}], "entry 0 .*must have 4 numbers"),
        ([{"image_id": 1, "bbox": [0, 0, 1, "x"]}], "entry 0 .*numbers only"),
        ([{"bbox": [0, 0, 1, 1]}], "entry 0 names no picture"),
        ([{"image_id": 1}], "entry 0 has no bbox"),
        (["a"], "entry 0 has no bbox"),
        ({"a.jpg": [[0, 0, 5, 5], [9, 0, 5, 5]]}, "box 1 of 'a.jpg' has a negative size"),
        ({"a.jpg": [[0, 0, 5, math.nan]]}, "box 0 of 'a.jpg' is not finite"),
        ({"a.jpg": [[0, 0, 5]]}, "box 0 of 'a.jpg' must have 4 or 5 numbers"),
        ({"a.jpg": 3}, "'a.jpg' must have a list of boxes"),
        ({"images": [{"id": 1}], "annotations": []}, "needs an id and a file_name"),
        ({"annotations": {}}, "'annotations' must be a list"),
    ],
)
def test_broken_boxes_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        BoxesFile.read(write(tmp_path / "b.json", content))
    assert "b.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_boxes_file(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match="no such boxes file"):
        get_detector(tmp_path / "b.json")


def test_alphaposes_results(tmp_path: Path) -> None:
    """Their scores go beyond 1."""
    keypoints = [1.0, 2.0, 0.5] * 17
    rows = [
        {
            "image_id": "a.jpg",
            "category_id": 1,
            "keypoints": keypoints,
            "score": 1.5,
            "box": [10, 20, 30, 40],
            "idx": 1,
        },
        {"image_id": "a.jpg", "category_id": 1, "keypoints": keypoints, "score": 2.5, "box": [0, 0, 5, 6], "idx": 2},
        {"image_id": "7.jpg", "category_id": 1, "keypoints": keypoints, "score": 0.5, "box": [1, 1, 1, 1]},
    ]
    boxes = BoxesFile.read(write(tmp_path / "alphapose-results.json", rows))
    found = boxes.find("in/a.jpg")
    assert found is not None and found.xyxy.tolist() == [[10, 20, 40, 60], [0, 0, 5, 6]]
    assert found.scores.tolist() == [1, 1]
    assert corners(boxes, "clip.mp4#7") == [[1, 1, 2, 2]]


def test_mmposes_results(tmp_path: Path) -> None:
    people = [{"keypoints": [], "bbox": [[1, 2, 3, 4]], "bbox_score": 0.5}, {"bbox": [0, 0, 9, 9, 0.75]}]
    one = BoxesFile.read(write(tmp_path / "street.json", people))
    found = one.find("some/street.jpg")
    assert found is not None
    assert found.xyxy.tolist() == [[1, 2, 3, 4], [0, 0, 9, 9]] and found.scores.tolist() == [0.5, 0.75]
    frames = [{"frame_id": 0, "instances": people}, {"frame_id": 1, "instances": []}]
    for content in (frames, {"meta_info": {}, "instance_info": frames}):
        video = BoxesFile.read(write(tmp_path / "video.json", content))
        assert [len(video.find(f"v.mp4#{n}") or []) for n in range(2)] == [2, 0]
        assert video.find("v.mp4#1") is not None and video.find("v.mp4#2") is None


@pytest.mark.parametrize("written", [int, float])
@pytest.mark.parametrize(("first", "moved"), [(1, -1), (0, 0), (2, 0)])
def test_mmposes_demo_counts_frames_from_one(first: int, moved: int, written: type, tmp_path: Path) -> None:
    """It writes every frame; a file that begins later was cut, nobody knows by whom, and its inferencer has a list."""
    frames = [{"frame_id": written(first + n), "instances": [{"bbox": [[0, 0, 1, n + 1]]}] * (n > 0)} for n in range(3)]
    for content, by in (({"meta_info": {}, "instance_info": frames}, moved), (frames, 0)):
        video = BoxesFile.read(write(tmp_path / "v.json", content))
        assert list(video.by_name) == [str(first + by + n) for n in range(3)]
        assert corners(video, f"v.mp4#{first + by}") == []
        assert corners(video, f"v.mp4#{first + by + 2}") == [[0, 0, 1, 3]]


def test_posezoos_results_and_lines(tmp_path: Path) -> None:
    person = {"box": [1, 2, 3, 4], "box_score": 0.5, "keypoints": []}
    table = {"format": "posezoo/1", "image": "in/a.jpg", "people": [person]}
    assert corners(BoxesFile.read(write(tmp_path / "a.json", table)), "other/a.jpg") == [[1, 2, 3, 4]]
    lines = [{**table, "image": "v.mp4", "frame": n, "people": [person] * n} for n in range(3)]
    boxes = BoxesFile.read(write(tmp_path / "v.jsonl", "\n".join(map(json.dumps, lines)) + "\n"))
    assert [len(corners(boxes, f"v.mp4#{n}")) for n in range(3)] == [0, 1, 2]
    (tmp_path / "many").mkdir()
    write(tmp_path / "many" / "b.json", {**table, "image": "b.jpg"})
    write(tmp_path / "many" / "a.json", table)
    folder = get_detector(tmp_path / "many")
    image = np.zeros((9, 9, 3), np.uint8)
    assert [len(found) for found in folder([image] * 3, names=["b.jpg", "x/a.jpg", "c.jpg"])] == [1, 1, 0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PosezooError, match=r"empty has no \.json file of boxes"):
        get_detector(tmp_path / "empty")


def test_a_folder_that_is_called_like_a_network_is_given_with_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = "yolov3.darknet_coco_608"
    for name in ("embedded", "whole", "yolov3", entry, "mine"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.json", [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1}])
    for name in ("embedded", "whole", "yolov3", "yolov3-spp", "follow", "follow:mine", entry):
        assert kind_of_file(name) is None
    assert not isinstance(get_detector("embedded"), BoxesFile) and not isinstance(get_detector("whole"), BoxesFile)
    for name in ("./embedded", str(tmp_path / "yolov3"), f"./{entry}", "mine"):
        assert kind_of_file(name) == "boxes" and isinstance(get_detector(name), BoxesFile)
    assert [kind_of_file(name) for name in ("a.csv", "a.onnx", "a.weights", "gone")] == [
        *("boxes", "network", "network", None)
    ]


def test_plain_boxes_of_one_picture(tmp_path: Path) -> None:
    assert corners(BoxesFile.read(write(tmp_path / "a.json", [[1, 2, 3, 4, 0.5]])), "a.png") == [[1, 2, 3, 4]]
    assert BoxesFile.read(write(tmp_path / "b.json", [])).by_name == {}


TABLES = {
    "image,x1,y1,x2,y2,score\na.jpg,1,2,3,4,0.5\n": ([1, 2, 3, 4], 0.5),
    "Image_ID; Left; Top; Width; Height; Confidence\n a.jpg; 1; 2; 3; 4; 0.5\n": ([1, 2, 4, 6], 0.5),
    "file_name\tx\ty\tw\th\na.jpg\t1\t2\t3\t4\n": ([1, 2, 4, 6], 1.0),
    "filename,class,xmin,ymin,xmax,ymax\na.jpg,person,1,2,3,4\na.jpg,car,5,5,6,6\n": ([1, 2, 3, 4], 1.0),
    "score,path,left,top,right,bottom,category_id\n.5,in/a.jpg,1,2,3,4,1\n.9,in/a.jpg,1,2,3,4,3\n": ([1, 2, 3, 4], 0.5),
    "\ufeffimage,frame,box_score,box_x1,box_y1,box_x2,box_y2,nose_x\na.jpg,,0.5,1,2,3,4,7\n": ([1, 2, 3, 4], 0.5),
}


@pytest.mark.parametrize("text", TABLES)
def test_tables(text: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(text, encoding="utf-8")
    found = BoxesFile.read(tmp_path / "boxes.csv").find("here/a.jpg")
    box, score = TABLES[text]
    assert found is not None and (found.xyxy.tolist(), found.scores.tolist()) == ([box], [score])


def test_tables_of_videos(tmp_path: Path) -> None:
    boxes = BoxesFile.read(
        write(tmp_path / "a.csv", "frame,bb_left,bb_top,bb_width,bb_height\n0,1,1,2,2\n12.0,2,2,2,2\n")
    )
    assert corners(boxes, "any.mp4#12") == [[2, 2, 4, 4]] and boxes.find("any.mp4#1") is None
    named = BoxesFile.read(write(tmp_path / "b.csv", "image,frame,x1,y1,x2,y2\na.mp4,3,0,0,1,1\nb.mp4,3,0,0,2,2\n"))
    assert corners(named, "in/b.mp4#3") == [[0, 0, 2, 2]] and named.find("c.mp4#3") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1,2,3,4\n", r"its first line is to name the columns.*but it has a\.jpg, 1, 2, 3, 4"),
        ("", "but it has nothing"),
        ("x1,y1,x2,y2\n1,2,3,4\n", "a picture"),
        ("image,x1,y1,x2,y2\na.jpg,1,2,x,4\n", r"line 2 \(picture a\.jpg\): 'x' is no number"),
        ("image,x1,y1,x2,y2\na.jpg,1,2,3\n", "line 2 has not as many cells as the header"),
        ("image,x1,y1,x2,y2\na.jpg,5,2,3,4\n", "line 2 .*has a negative size"),
        ("image,x1,y1,x2,y2\na.jpg,nan,2,3,4\n", "line 2 .*is not finite"),
        ("frame,x1,y1,x2,y2\n1.5,1,2,3,4\n", "line 2: '1.5' is no whole number"),
        (
            "image,class,x1,y1,x2,y2\na.jpg,0,1,2,3,4\n",
            "class 0 is a number: write names, or call the column",
        ),
    ],
)
def test_broken_tables(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        BoxesFile.read(write(tmp_path / "b.csv", text))
    assert "b.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_classes_thresholds_and_suppression(tmp_path: Path) -> None:
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 9], "score": 0.8},
        {"image_id": 1, "category_id": 1, "bbox": [50, 0, 10, 9], "score": 0.2},
        {"image_id": 1, "category_id": 18, "bbox": [70, 0, 10, 9], "score": 0.7},
    ]
    path = write(tmp_path / "b.json", rows)
    counts = {
        3: {},
        2: {"score": 0.5},
        1: {"score": 0.5, "nms": 0.6},
        4: {"classes": ("person", "dog")},
        0: {"classes": ("cat",)},
    }
    for count, asked in counts.items():
        assert len(get_detector(path, **asked)([np.zeros((9, 9, 3), np.uint8)], names=["1.jpg"])[0]) == count, asked
    for asked, message in (
        ({"classes": ("persn",)}, "unknown class 'persn'; did you mean person"),
        ({"classes": "person"}, "classes must be one or more names"),
        ({"score": 2}, "score must be between 0 and 1, but is 2"),
        ({"nms": 0}, "nms must be above 0 and at most 1, but is 0"),
    ):
        with pytest.raises(PosezooError, match=message):
            get_detector(path, **asked)


def test_ground_truth_has_no_crowds_and_its_own_classes(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "val/x.jpg"}],
        "annotations": [
            {"image_id": 7, "category_id": 5, "bbox": [1, 1, 2, 2]},
            {"image_id": 7, "category_id": 5, "bbox": [0, 0, 99, 99], "iscrowd": 1},
            {"image_id": 7, "category_id": 6, "bbox": [3, 3, 2, 2]},
        ],
        "categories": [{"id": 5, "name": "person"}, {"id": 6, "name": "horse"}],
    }
    path = write(tmp_path / "a.json", content)
    assert corners(BoxesFile.read(path), "x.jpg") == [[1, 1, 3, 3]]
    assert len(corners(BoxesFile.read(path, classes=("person", "horse")), "x.jpg")) == 2
    content["categories"] = [{"id": 5, "name": "human"}]  # the only one, whatever it is called
    content["annotations"] = content["annotations"][:2]
    assert corners(BoxesFile.read(write(path, content)), "x.jpg") == [[1, 1, 3, 3]]


@pytest.mark.parametrize("image_id", [7, 7.0, "7"])
@pytest.mark.parametrize("own", [7, 7.0, "7"])
def test_an_id_however_it_is_written(own: Any, image_id: Any, tmp_path: Path) -> None:
    box = {"image_id": image_id, "category_id": 1, "bbox": [1, 1, 2, 2]}
    content = {
        "images": [{"id": own, "file_name": "x.jpg"}],
        "annotations": [box],
        "categories": [{"id": own, "name": "Car"}, {"id": 1.0, "name": "Person"}],
    }
    assert corners(BoxesFile.read(write(tmp_path / "a.json", content)), "x.jpg") == [[1, 1, 3, 3]]
    assert corners(BoxesFile.read(write(tmp_path / "d.json", [box])), "000000000007.jpg") == [[1, 1, 3, 3]]
    frames = [{"frame_id": image_id, "instances": [{"bbox": [1, 1, 3, 3]}]}]
    assert corners(BoxesFile.read(write(tmp_path / "f.json", frames)), "v.mp4#7") == [[1, 1, 3, 3]]
    content["annotations"] = [box, {**box, "image_id": 8}]
    with pytest.raises(PosezooError, match=r"a\.json: entry 1 is of image_id 8, which none of 'images' has"):
        BoxesFile.read(write(tmp_path / "a.json", content))
    content["images"] = [{"id": own, "file_name": "x.jpg"}, {"id": image_id, "file_name": "y.jpg"}]
    with pytest.raises(PosezooError, match=r"'images' has 'x\.jpg' and 'y\.jpg' under one id 7"):
        BoxesFile.read(write(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("category", "people"),
    [(5, 1), (5.0, 1), (None, 1), ("Person ", 1), (6, 0), (6.0, 0), (5.5, 0), (math.inf, 0), ([5], 0), (7, 0)],
)
def test_a_class_however_it_is_spelt(category: Any, people: int, tmp_path: Path) -> None:
    box = {"image_id": 7, "category_id": category, "bbox": [1, 1, 2, 2]}
    content = {
        "images": [{"id": 7, "file_name": "x.jpg"}],
        "annotations": [box],
        "categories": [{"id": 5, "name": "Person"}, {"id": 6, "name": "Car"}],
    }
    path = write(tmp_path / "a.json", content)
    assert len(corners(BoxesFile.read(path), "x.jpg")) == people
    named = {"Car": int(category == 6), "PERSON": people}
    for name, count in named.items():
        assert len(corners(BoxesFile.read(path, classes=(name,)), "x.jpg")) == count


@pytest.mark.parametrize(
    ("category", "people"), [(1, 1), (1.0, 1), ("1", 1), (None, 1), ("Person", 1), (3.0, 0), (0, 0), (91, 0)]
)
def test_a_class_of_coco_however_it_is_spelt(category: Any, people: int, tmp_path: Path) -> None:
    rows = [{"image_id": 7, "category_id": category, "bbox": [1, 1, 2, 2]}]
    path = write(tmp_path / "a.json", rows)
    assert len(BoxesFile.read(path).find("7.jpg") or []) == people
    assert len(BoxesFile.read(path, classes=("Car",)).find("7.jpg") or []) == (category == 3)


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_file_names_with_what_some_take_for_the_end_of_a_line(format: str, tmp_path: Path) -> None:
    names = [f"a{between}b.jpg" for between in ("\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c")]
    names += ["a\nb.jpg"]  # which the one escapes and the other quotes
    with open_writer(format, tmp_path, COCO) as writer:
        for name in names:
            writer.add(Result(some_poses(COCO), name))
    (written,) = tmp_path.iterdir()
    boxes = BoxesFile.read(written)
    assert list(boxes.by_name) == names and {len(found) for found in boxes.by_name.values()} == {len(some_poses(COCO))}


def test_names_with_folders(tmp_path: Path) -> None:
    boxes = BoxesFile.read(write(tmp_path / "p.json", {"one/a.jpg": [[0, 0, 1, 1]], "two/b.jpg": [], "one/b.jpg": []}))
    assert corners(boxes, "/elsewhere/a.jpg") == [[0, 0, 1, 1]]
    assert boxes.find("/elsewhere/b.jpg") is None  # which of the two?
    assert boxes.find("two/b.jpg") is not None


def test_a_file_for_other_pictures(tmp_path: Path) -> None:
    boxes = BoxesFile.read(write(tmp_path / "p.json", {"a.jpg": []}))
    boxes.check_has_any(["b.jpg", "in/a.jpg"])
    with pytest.raises(PosezooError, match=r"p\.json has none of the pictures \(it has, for example, 'a\.jpg'\)"):
        boxes.check_has_any(["b.jpg", "c.jpg"])
    with pytest.raises(PosezooError, match="it is empty"):
        BoxesFile.read(write(tmp_path / "e.json", {})).check_has_any(["b.jpg"])


def test_files_that_are_no_boxes(tmp_path: Path) -> None:
    (tmp_path / "song.json").write_bytes(b"ID3\x04\xff\xfe" + bytes(50))
    with pytest.raises(PosezooError, match=r"song\.json is not text"):
        get_detector(tmp_path / "song.json")
    (tmp_path / "song.mp3").write_bytes(b"ID3")
    with pytest.raises(PosezooError, match=r"unknown detector '.*song\.mp3'.*a file: boxes as \.json, \.jsonl, \.csv"):
        get_detector(tmp_path / "song.mp3")
    lines = write(tmp_path / "b.jsonl", '{"people": []}\n{"peo')
    with pytest.raises(PosezooError, match=r"b\.jsonl is not JSON"):
        get_detector(lines)
    with pytest.raises(PosezooError, match=r"line 1 is no result of posezoo"):
        get_detector(write(tmp_path / "c.jsonl", '{"image_id": 1}'))
