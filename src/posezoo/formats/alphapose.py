"""AlphaPose's results: one JSON list for all images, one object a person; or such a list for each image.

    [{"image_id": "street.jpg", "category_id": 1, "keypoints": [x1, y1, c1, x2, y2, c2, ...], "score": 0.83,
      "box": [x, y, width, height], "idx": 3}, ...]

`image_id` is the file name of the image, and "7.jpg" for frame 7 of a video. `idx` is the track id, there when people
were tracked. `score` is the whole person's, in [0, 1]: the box score times the mean of the joint scores above 0.2, see
`posezoo.suppress.person_scores`. AlphaPose's own is that of its pose NMS and may be above 1, and the `c` of its old
releases went up to 6 for COCO networks; ours stay in [0, 1]. What others wrote is read as it stands, and written again
so.

The list has no place for images without people, nor for the name of the skeleton, whose order the keypoints follow.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from posezoo.formats import coco
from posezoo.formats.coco import list_text
from posezoo.formats.result import Result, ResultWriter, Settings
from posezoo.formats.values import rounded
from posezoo.formats.writers import FileEach, ImageIds, NumberOrName, json_list
from posezoo.skeletons import Skeleton

read = coco.read


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of one list, or of one list each image."""
    ids = ImageIds(settings.video, _names)

    def of(record: Result) -> list[dict[str, Any]]:
        image_id = ids(record)
        return entries(record, f"{image_id}.jpg" if isinstance(image_id, int) else image_id)

    if settings.per_frame:
        return FileEach(output, skeleton, lambda record: list_text(of(record)), settings)
    return json_list(output, skeleton, of)


def _names(image: str) -> list[NumberOrName]:
    return [PurePath(image).name]


def entries(record: Result, image_id: str) -> list[dict[str, Any]]:
    """The entries of one image.

    Raises:
        PosezooError: a score or a box is not finite.
    """
    found = []
    for row, entry in enumerate(coco.entries(record, image_id)):
        x1, y1, x2, y2 = record.poses.boxes_xyxy[row].tolist()
        entry["box"] = [rounded(v) for v in (x1, y1, x2 - x1, y2 - y1)]
        if record.poses.track_ids is not None:
            entry["idx"] = int(record.poses.track_ids[row])
        found.append(entry)
    return found
