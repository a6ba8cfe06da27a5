"""What evaluation looks at: made up pictures with people, and an estimator that knows where they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from posezoo.estimator import Estimator, NetworkSpec
from posezoo.evaluate.report import Report
from posezoo.evaluate.run import run_evaluation
from posezoo.media.images import write_image
from posezoo.types import Poses

BODY = np.random.default_rng(0).uniform(0.1, 0.9, (17, 2))  # joints as shares of a box


class Oracle(Estimator):
    """Finds in every box the joints that `answer` gives for the picture's name and the box."""

    def __init__(self, answer, skeleton="coco17", error=None):
        spec = {"name": "oracle", "skeleton": skeleton, "codec": "heatmap", "input_size_wh": (192, 256)}
        rest = {"channels": "rgb", "mean": (0, 0, 0), "std": (1, 1, 1), "box_scale": 1.25, "flip_shift": False}
        self.spec = NetworkSpec.of({**spec, **rest})
        facts = {"name": "oracle", "device": "cpu", "precision": "fp32", "threads": 1}
        self.runtime, self.detector = SimpleNamespace(**facts, metadata=dict), None
        self.flip, self.batch_size, self.max_megapixels = False, 4, None
        self.answer, self.error, self.seen = answer, error, []
        self.opened = "oracle", None

    def _people(self, images, boxes):
        raise AssertionError("unused")

    def stream(self, images, boxes_xyxy=None, look_ahead=8):
        for picture, boxes in zip(images, boxes_xyxy, strict=False):
            self.seen.append(Path(picture.name).name)
            if self.error is not None and len(self.seen) > self.error:
                raise KeyboardInterrupt
            xy, scores = self.answer(picture.name, boxes.xyxy)
            yield Poses(xy, scores, boxes.xyxy, boxes.scores, self.skeleton)


def in_box(name, boxes):
    """The joints of `BODY` in each box."""
    xy = boxes[:, None, :2] + BODY * (boxes[:, None, 2:] - boxes[:, None, :2])
    return xy, np.full(xy.shape[:2], 0.9)


def pictures_with_people(folder: Path) -> SimpleNamespace:
    """Six grey pictures with one to three people of `BODY`, COCO-style; the folder and the file."""
    rng, pictures, entries = np.random.default_rng(1), [], []
    for number in range(6):
        name = f"{number + 1:012d}.png"
        write_image(folder / "pictures" / name, np.full((240, 320, 3), 40 * number, np.uint8))
        pictures.append({"id": number + 1, "file_name": name, "width": 320, "height": 240})
        for _ in range(1 + number % 3):
            x, y = rng.uniform(0, 150), rng.uniform(0, 100)
            box = np.array([x, y, x + 100, y + 120])
            joints = np.column_stack([in_box(name, box[None])[0][0], np.full(17, 2)])
            entry = {"id": len(entries) + 1, "image_id": number + 1, "bbox": [x, y, 100, 120], "area": 9000}
            entries.append({**entry, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                            "keypoints": joints.ravel().tolist()})  # fmt: skip
    person = {"id": 1, "name": "person"}
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": pictures, "annotations": entries, "categories": [person]}))
    return SimpleNamespace(images=folder / "pictures", annotations=file, out=folder / "out", entries=entries)


def run(estimator, dataset, protocol=None, **options) -> Report:
    report = run_evaluation(
        estimator, "coco", dataset.images, dataset.annotations, protocol, dataset.out, command="test", **options
    )
    assert report is not None
    return report


def predictions(dataset) -> list:
    return json.loads((dataset.out / "predictions.json").read_text())
