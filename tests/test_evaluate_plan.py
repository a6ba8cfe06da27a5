"""Who is looked for where: boxes as each zoo cuts them, whose annotation a pose is of, and files of detections."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError
from posezoo.evaluate.plan import plan
from posezoo.evaluate.protocol import Protocol, get_protocol, need_boxes


def write(folder: Path, pictures: list[dict], entries: list[dict]) -> Path:
    file = folder / "people.json"
    file.write_text(json.dumps({"images": pictures, "annotations": entries}))
    return file


def entry(number: int, image: int, bbox: list[float], joints: int = 17, **more: object) -> dict:
    return {"id": number, "image_id": image, "bbox": bbox, "keypoints": [5, 5, 2] * joints, **more}


def test_squares_about_a_centre_are_never_cut(tmp_path: Path) -> None:
    picture = {"id": 1, "file_name": "a.jpg", "width": 300, "height": 200}
    person = {"id": 1, "image_id": 1, "center": [150, 100], "scale": 0.5, "keypoints": [9, 9, 1] * 40}
    people = read_dataset("mpii_trb", write(tmp_path, [picture], [person]), tmp_path)
    protocol = get_protocol("mmpose", "mpii_trb")
    (task,) = plan(people, "mpii_trb", protocol)
    half = 256 / 1.25 / 0.5 / 2
    np.testing.assert_allclose(task.boxes.xyxy, [[150 - half, 100 - half, 150 + half, 100 + half]], rtol=1e-6)
    assert "cut at" not in protocol.describe("mpii_trb")
    with pytest.raises(PosezooError, match="made of centre and scale, which no zoo cuts: cut_boxes must be false"):
        need_boxes(protocol.with_overrides(["cut_boxes=true"]), "mpii_trb")


def test_each_zoo_cuts_boxes_in_its_own_way(tmp_path: Path) -> None:
    picture = {"id": 1, "file_name": "a.jpg", "width": 300, "height": 200}
    file = write(tmp_path, [picture], [entry(1, 1, [250, 20, 40, 30]), entry(2, 1, [280, -9, 40, 300])])
    people = read_dataset("coco", file, tmp_path)
    wanted = {
        "hrnet": [[250, 20, 289, 49], [280, 0, 299, 199]],
        "gluoncv": [[250, 20, 289, 49], [280, 0, 299, 199]],
        "mmpose": [[250, 20, 290, 50], [280, 0, 299, 199]],
        "alphapose": [[250, 20, 290, 50], [280, -9, 320, 291]],
    }
    for name, boxes in wanted.items():
        protocol = replace(get_protocol(name, "coco"), boxes="gt", nms="none")
        assert plan(people, "coco", protocol)[0].boxes.xyxy.tolist() == boxes, name
    file = write(tmp_path, [picture], [entry(1, 1, [280, -9, 40, 300], joints=21)])
    people = read_dataset("hand21", file, tmp_path)
    assert plan(people, "hand21", get_protocol("mmpose", "hand21"))[0].boxes.xyxy.tolist() == [[280, -9, 320, 291]]


def test_a_suppressed_box_takes_its_annotation_with_it(tmp_path: Path) -> None:
    boxes = [[10, 20, 100, 100], [12, 20, 100, 100], [200, 20, 100, 100]]
    entries = [entry(number, 1, box, joints=21) for number, box in enumerate(boxes)]
    people = read_dataset("hand21", write(tmp_path, [{"id": 1, "file_name": "a.jpg"}], entries), tmp_path)
    protocol = Protocol(nms="box", nms_threshold=0.5)
    (task,) = plan(people, "hand21", protocol)
    assert task.annotations is not None and task.annotations.tolist() == [0, 2]
    assert task.boxes.xyxy[:, 0].tolist() == [10, 200]
    for nms in ("box", "oks"):  # a person without a prediction would count as missed
        with pytest.raises(PosezooError, match=f"one prediction for each annotated person: nms must be none, .* {nms}"):
            need_boxes(get_protocol("plain", "mpii").with_overrides([f"nms={nms}"]), "mpii")


def test_a_file_that_goes_by_ids_is_not_looked_up_by_names(tmp_path: Path) -> None:
    pictures = [{"id": row, "file_name": f"{number:06d}.jpg"} for row, number in enumerate((3, 1, 2), 1)]
    people = read_dataset("coco", write(tmp_path, pictures, []), tmp_path)
    found = tmp_path / "found.json"
    rows = [{"image_id": number, "category_id": 1, "bbox": [10 * number, 0, 5, 5], "score": 0.9} for number in (1, 2)]
    found.write_text(json.dumps(rows))
    tasks = plan(people, "coco", Protocol(boxes=str(found)))
    assert [(task.image_id, task.boxes.xyxy[0, 0]) for task in tasks] == [(1, 10), (2, 20)]  # nobody in picture 3
    # a file that goes by names, one of which is a picture's id by chance
    found.write_text(json.dumps({str(number): [[number, 0, 30, 5]] for number in (1, 2, 3)}))
    chance = [{"id": 100 + number if number > 1 else 3, "file_name": f"{number}.jpg"} for number in (1, 2, 3)]
    others = read_dataset("coco", write(tmp_path, chance, []), tmp_path)
    tasks = plan(others, "coco", Protocol(boxes=str(found)))
    assert [(task.path.name, task.boxes.xyxy[0, 0]) for task in tasks] == [("1.jpg", 1), ("2.jpg", 2), ("3.jpg", 3)]
    found.write_text(json.dumps({"000001.jpg": [[10, 0, 15, 5]], "000002.jpg": [], "2.jpg": [[7, 7, 8, 8]]}))
    tasks = plan(people, "coco", Protocol(boxes=str(found)))
    assert [(task.path.name, task.boxes.xyxy[0, 0]) for task in tasks] == [("000001.jpg", 10)]
