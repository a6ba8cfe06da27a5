"""The files that the pages of the documentation speak of: small ones of the same names, made of examples/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
_PICTURES = {"000000000139.jpg": "grace_hopper.jpg", "000000000285.jpg": "astronaut.png"}


def lay_out(folder: Path, text: str) -> None:
    """Make those files in `folder` that `text` speaks of."""
    (folder / "examples").symlink_to(EXAMPLES)
    makers = {"photos": photos, "photo.jpg": photo, "clip.mp4": clip, "val2017": val2017}
    for name, make in makers.items():
        if name in text:
            make(folder / name)


def photo(path: Path) -> None:
    """Two people."""
    from posezoo.media.images import read_image, write_image

    write_image(path, read_image(EXAMPLES / "basketball.png"))


def photos(path: Path) -> None:
    path.mkdir()
    for name in ("astronaut.png", "grace_hopper.jpg"):
        shutil.copy(EXAMPLES / name, path)


def clip(path: Path) -> None:
    """Half a second of a square seen from above, the camera moving a little."""
    import cv2

    picture = cv2.imread(str(EXAMPLES / "pedestrians_1.jpg"))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (384, 288))
    for step in range(6):
        writer.write(np.ascontiguousarray(picture[100 : 100 + 288, 60 + 4 * step : 60 + 4 * step + 384]))
    writer.release()


def val2017(path: Path) -> None:
    """Two pictures under names of COCO's, and beside them annotations: what the embedded pair finds in them."""
    import posezoo
    from posezoo.media.images import read_image, write_image

    path.mkdir()
    images, annotations = [], []
    estimator = posezoo.Estimator("embedded", threads=1)
    for number, (name, source) in enumerate(_PICTURES.items()):
        image = read_image(EXAMPLES / source)
        write_image(path / name, image)
        poses = estimator(image)
        height, width = image.shape[:2]
        images.append({"id": int(Path(name).stem), "file_name": name, "width": width, "height": height})
        joints = np.concatenate([poses.keypoints_xy[0], np.full((17, 1), 2)], axis=1)
        x1, y1, x2, y2 = poses.boxes_xyxy[0].tolist()
        annotations.append(
            {
                "id": number + 1,
                "image_id": images[-1]["id"],
                "category_id": 1,
                "iscrowd": 0,
                "area": (x2 - x1) * (y2 - y1),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "num_keypoints": 17,
                "keypoints": joints.ravel().tolist(),
            }
        )
    from posezoo.skeletons import get_skeleton

    category = {"id": 1, "name": "person", "keypoints": list(get_skeleton("coco17").joints), "skeleton": []}
    table = {"images": images, "annotations": annotations, "categories": [category]}
    (path.parent / "person_keypoints_val2017.json").write_text(json.dumps(table), encoding="utf-8")
