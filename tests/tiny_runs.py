"""Data and a recipe for training runs of a second or two."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn

from posezoo.skeletons import get_skeleton

ARCHS = {"pose": "mobile_pose_fpn_1.0", "detect": "person_detector_1.0"}


class TinyPose(nn.Module):
    """A network of a few hundred weights whose maps are a fourth of its input; it has norms, and can drop out."""

    def __init__(self, joints: int, drop: float = 0.0):
        super().__init__()
        first, second = (nn.Conv2d(i, o, 3, 2, 1, bias=False) for i, o in ((3, 4), (4, 8)))
        self.backbone = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(8), nn.Dropout(drop))
        self.head = nn.Conv2d(8, joints, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, h, w) -> maps (N, joints, h/4, w/4)."""
        return self.head(self.backbone(images))


TINY = {"tiny": TinyPose, "tiny_dropout": lambda joints: TinyPose(joints, drop=0.2)}


def write_people(folder: Path, count: int = 6) -> Path:
    """Pictures of a stick figure each, `people.json` beside them; the folder."""
    skeleton = get_skeleton("coco17")
    rng = np.random.default_rng(0)
    shape = rng.uniform(0.1, 0.9, (17, 2))
    images, annotations = [], []
    for n in range(count):
        box = np.array([rng.uniform(5, 30), rng.uniform(5, 30), 60, 90])
        xy = box[:2] + shape * box[2:]
        picture = np.full((130, 110, 3), (40 + 20 * n) % 256, np.uint8)
        for a, b in skeleton.edge_index:
            cv2.line(picture, tuple(int(v) for v in xy[a]), tuple(int(v) for v in xy[b]), (250, 200, 10 * int(a)), 3)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
        images.append({"id": n, "file_name": f"{n}.png", "width": 110, "height": 130})
        keypoints = np.column_stack([xy, np.full(17, 2)]).reshape(-1).tolist()
        annotations.append(
            {"id": n + 1, "image_id": n, "category_id": 1, "iscrowd": 0, "bbox": box.tolist(),
             "area": float(box[2] * box[3]), "keypoints": keypoints, "num_keypoints": 17}
        )  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "people.json").write_text(json.dumps(content))
    return folder


def write_recipe(folder: Path, data: Path, task: str = "pose", arch: str | None = None) -> Path:
    """A recipe for the people in `data`: two epochs of two steps, with its run in `folder`.

    Args:
        folder: where to write it.
        data: where `write_people` has written.
        task: "pose" or "detect".
        arch: a network of the zoo, or one of `TINY` where a test has added them to the zoo's; None: a small real one.
    """
    text = f"""
    name = "tiny"
    task = "{task}"
    [model]
    arch = "{arch or ARCHS[task]}"
    [data]
    root = "{data.as_posix()}"
    train = {{ annotations = "people.json", images = "." }}
    validate = {{ annotations = "people.json", images = "." }}
    [input]
    size_wh = [64, 64]
    [mosaic]
    canvas = 96
    [optimiser]
    batch_size = 3
    lr = 3e-3
    ema = 0.9
    [schedule]
    epochs = 2
    warmup_steps = 1
    [run]
    folder = "{(folder / "run").as_posix()}"
    workers = 0
    log_every = 1
    """
    path = folder / "recipe.toml"
    path.write_text(text)
    return path
