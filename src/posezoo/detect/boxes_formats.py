"""The layouts that files of boxes have, each read to `Row`s: one box, of which picture, how sure, and of what class."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from posezoo.detect.classes import COCO_IDS
from posezoo.errors import PosezooError

PERSON = "person"
_COCO_CLASSES = {str(number): name for number, name in enumerate(COCO_IDS) if number}
_BEYOND = 3e38  # what a float32 holds, and a whole number of JSON may be beyond


class Row(NamedTuple):
    """One box of a file.

    Attributes:
        picture: the name that the file has for its picture; "VIDEO#7" for frame 7 of a video, or "7" alone.
        xyxy: left, top, right, bottom.
        score: as the file has it.
        label: the name of its class.
    """

    picture: str
    xyxy: list[float]
    score: float
    label: str = PERSON


class Content(NamedTuple):
    """What a file has.

    Attributes:
        pictures: those that it names even where they have no box.
        rows: its boxes.
    """

    pictures: list[str]
    rows: list[Row]


def frame_name(video: str, frame: object) -> str:
    """The name of a frame of a video; with no video, the number alone."""
    return f"{video}#{frame}" if video else str(frame)


def read_content(path: Path) -> Content:
    """The boxes of a file, whatever its layout.

    Raises:
        PosezooError: it cannot be read, or is of no layout that is known; the message names file and entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return _table(text)
        if path.suffix.lower() == ".jsonl":
            # not splitlines: a file name may hold what that takes for the end of a line, such as U+2028
            return _many(json.loads(line) for line in text.split("\n") if line.strip())
        return _json(json.loads(text), path.stem)
    except FileNotFoundError:
        raise PosezooError(f"no such boxes file: {path}") from None
    except UnicodeDecodeError:
        raise PosezooError(f"the boxes file {path} is not text") from None
    except (ValueError, RecursionError) as err:  # of JSON: a number of thousands of digits is one too
        raise PosezooError(f"the boxes file {path} is not JSON: {err}") from None
    except OSError as err:
        raise PosezooError(f"cannot read the boxes file {path}: {err.strerror or err}") from None
    except PosezooError as err:
        raise PosezooError(f"boxes file {path}: {err}") from None


def _json(content: Any, stem: str) -> Content:
    if isinstance(content, list):
        return _list(content, stem)
    if not isinstance(content, dict):
        raise PosezooError("expected a list of detections or an object of boxes by file name")
    if "annotations" in content:
        return _annotations(content)
    if "instance_info" in content:
        return _list(_from_zero(content["instance_info"]), stem)
    if "people" in content and "format" in content:
        return _many([content])
    return Content(list(content), list(_plain_rows(content)))


def _from_zero(frames: Any) -> Any:
    """Frames as numbered from 0: MMPose's demo counts from 1, and writes those without people too."""
    numbered = isinstance(frames, list) and all(
        isinstance(f, dict) and isinstance(f.get("frame_id"), int | float) for f in frames
    )
    if not numbered or min((frame["frame_id"] for frame in frames), default=0) != 1:
        return frames
    return [{**frame, "frame_id": frame["frame_id"] - 1} for frame in frames]


def _list(entries: Any, stem: str) -> Content:
    """Detections, results with boxes, instances of one picture or of each frame, or the boxes of one picture."""
    if not isinstance(entries, list):
        raise PosezooError("'instance_info' must be a list")
    first = entries[0] if entries else None
    if isinstance(first, list):
        return Content([stem], list(_plain_rows({stem: entries})))
    if isinstance(first, dict) and "instances" in first:
        frames = [_text(entry, ("frame_id",), f"entry {n}") for n, entry in enumerate(entries)]
        rows = [
            row
            for frame, entry in zip(frames, entries, strict=True)
            for row in _instances(entry.get("instances"), frame)
        ]
        return Content(frames, rows)
    if isinstance(first, dict) and _is_instance(first):
        return Content([stem], list(_instances(entries, stem)))
    return Content([], list(_coco_rows(entries, {}, {})))


def _is_instance(entry: Mapping[str, Any]) -> bool:
    """Whether it is one of MMPose's: no word of the picture, and corners, which their score or a list tells apart."""
    if any(key in entry for key in _PICTURE_KEYS):
        return False
    box = entry.get("bbox")
    told = isinstance(box, list) and (len(box) == 5 or any(isinstance(part, list) for part in box))
    return told or "bbox_score" in entry


_PICTURE_KEYS = ("file_name", "image", "image_id")


def _id(value: Any) -> str:
    """An id, or a number of a frame, as text: 7, 7.0 (as tables of numbers are written) and "7" are one."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _annotations(content: dict[str, Any]) -> Content:
    names: dict[str, str] = {}
    try:
        for image in content.get("images", []):
            name = str(image["file_name"])
            if names.setdefault(_id(image["id"]), name) != name:
                raise PosezooError(f"'images' has '{names[_id(image['id'])]}' and '{name}' under one id {image['id']}")
        classes = {_id(one["id"]): str(one.get("name", "")).strip().lower() for one in content.get("categories", [])}
    except (KeyError, TypeError, AttributeError):
        raise PosezooError("every entry of 'images' needs an id and a file_name, of 'categories' an id") from None
    if len(classes) == 1:  # whatever a dataset of people calls them
        classes = dict.fromkeys(classes, PERSON)
    if not isinstance(content["annotations"], list):
        raise PosezooError("'annotations' must be a list")
    return Content(list(names.values()), list(_coco_rows(content["annotations"], names, classes)))


def _coco_rows(entries: list[Any], names: Mapping[str, str], classes: Mapping[str, str]) -> Iterator[Row]:
    """COCO's, and AlphaPose's whose box is called "box"; crowds, in one box, are nobody's.

    Args:
        entries: the annotations or detections.
        names: the file's pictures by id; with none, an id is itself the name.
        classes: the names of the file's classes by id; with none, they are COCO's.
    """
    for index, entry in enumerate(entries):
        where = f"entry {index}"
        if not isinstance(entry, dict) or ("bbox" not in entry and "box" not in entry):
            raise PosezooError(f"{where} has no bbox (x, y, width, height)")
        key = next((key for key in _PICTURE_KEYS if entry.get(key) is not None), None)
        if key is None:
            raise PosezooError(f"{where} names no picture (image_id, file_name or image)")
        if entry.get("iscrowd"):
            continue
        name = _id(entry[key])
        if key == "image_id" and names and name not in names:
            raise PosezooError(f"{where} is of image_id {name[:60]}, which none of 'images' has")
        name = names.get(name, name)
        where = f"{where} (picture {name})"
        box = entry["bbox"] if "bbox" in entry else entry["box"]
        x, y, width, height = _numbers(where, box, (4,))
        if width < 0 or height < 0:
            raise PosezooError(f"{where} has a negative size: bbox {box} is x, y, width, height")
        (score,) = _numbers(where, [entry.get("score", 1.0)], (1,))
        yield Row(name, [x, y, x + width, y + height], score, _label(entry.get("category_id", 1), classes))


def _label(category: Any, classes: Mapping[str, str]) -> str:
    """The name, in small letters, of a class of COCO, or of the file's own list of them; of no class, a person's."""
    if category is None:
        return PERSON
    name = _id(category).strip()
    return (classes or _COCO_CLASSES).get(name, name.lower())


def _instances(entries: Any, picture: str) -> Iterator[Row]:
    """MMPose's people of one picture: corners, and their score after them or apart."""
    if not isinstance(entries, list):
        raise PosezooError(f"the instances of '{picture}' must be a list")
    for index, entry in enumerate(entries):
        where = f"instance {index} of '{picture}'"
        if not isinstance(entry, dict) or "bbox" not in entry:
            raise PosezooError(f"{where} has no bbox (x1, y1, x2, y2)")
        box = entry["bbox"]
        nested = isinstance(box, list) and len(box) == 1 and isinstance(box[0], list)
        yield _corners(where, picture, box[0] if nested else box, entry.get("bbox_score", entry.get("score", 1.0)))


def _many(tables: Iterable[Any]) -> Content:
    """Files of posezoo's, each of a picture or of a frame."""
    pictures: list[str] = []
    rows: list[Row] = []
    for index, table in enumerate(tables):
        if not isinstance(table, dict) or "people" not in table:
            raise PosezooError(f"line {index + 1} is no result of posezoo: it has no people")
        if not isinstance(table["people"], list):
            raise PosezooError(f"line {index + 1}: 'people' must be a list")
        image = str(table.get("image", ""))
        pictures.append(image if table.get("frame") is None else frame_name(image, _id(table["frame"])))
        for number, person in enumerate(table["people"]):
            where = f"person {number} of '{pictures[-1]}'"
            if not isinstance(person, dict) or "box" not in person:
                raise PosezooError(f"{where} has no box")
            rows.append(_corners(where, pictures[-1], person["box"], person.get("box_score", 1.0)))
    return Content(pictures, rows)


def _plain_rows(content: Mapping[str, Any]) -> Iterator[Row]:
    for name, boxes in content.items():
        if not isinstance(boxes, list):
            raise PosezooError(f"'{name}' must have a list of boxes [x1, y1, x2, y2, score]")
        for index, box in enumerate(boxes):
            yield _corners(f"box {index} of '{name}'", name, box, 1.0)


def _corners(where: str, picture: str, box: Any, score: Any) -> Row:
    """A box of four corners, maybe with its score after them, which goes before `score`."""
    x1, y1, x2, y2, *own = _numbers(where, box, (4, 5))
    if x2 < x1 or y2 < y1:
        raise PosezooError(f"{where} has a negative size: {box} is x1, y1, x2, y2")
    (sure,) = own or _numbers(where, [score], (1,))
    return Row(picture, [x1, y1, x2, y2], sure)


def _numbers(where: str, values: Any, lengths: tuple[int, ...]) -> list[float]:
    """Finite numbers, as many as one of `lengths`, or an error that says where."""
    if not isinstance(values, list) or len(values) not in lengths:
        raise PosezooError(f"{where} must have {' or '.join(map(str, lengths))} numbers, but is {values!r}")
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise PosezooError(f"{where} must have numbers only, but is {values!r}")
    if not all(abs(v) < _BEYOND for v in values):  # nor is what is not a number less
        raise PosezooError(f"{where} is not finite: {values!r}")
    return [float(v) for v in values]


def _text(entry: Any, keys: Sequence[str], where: str) -> str:
    found = next((entry[key] for key in keys if isinstance(entry, dict) and key in entry), None)
    if found is None:
        raise PosezooError(f"{where} has no {' or '.join(keys)}")
    return _id(found)


# ---- CSV

_PICTURES = ("image", "image_id", "file_name", "filename", "file", "picture", "path", "name")
_FRAMES = ("frame", "frame_id")
_SCORES = ("box_score", "score", "confidence", "conf")
_CATEGORY, _LABELS = "category_id", ("class", "label", "category")
_BOXES: tuple[tuple[tuple[str, ...], bool], ...] = (  # whether the last two are sizes
    (("box_x1", "box_y1", "box_x2", "box_y2"), False),
    (("x1", "y1", "x2", "y2"), False),
    (("xmin", "ymin", "xmax", "ymax"), False),
    (("x_min", "y_min", "x_max", "y_max"), False),
    (("left", "top", "right", "bottom"), False),
    (("x", "y", "w", "h"), True),
    (("x", "y", "width", "height"), True),
    (("left", "top", "width", "height"), True),
    (("bb_left", "bb_top", "bb_width", "bb_height"), True),
)


def _table(text: str) -> Content:
    """Rows with a header; commas, semicolons or tabs, whichever the header has most of."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        to_row = _row_reader({(name or "").strip().lower(): name for name in reader.fieldnames or ()})
        for record in reader:
            where = f"line {reader.line_num}"
            if None in record or None in record.values():
                raise PosezooError(f"{where} has not as many cells as the header")
            rows.append(to_row(record, where))
    except csv.Error as err:
        raise PosezooError(f"line {max(reader.line_num, 1)} is no CSV: {err}") from None
    return Content([], rows)


def _row_reader(columns: Mapping[str, str]) -> Callable[[Mapping[str, str], str], Row]:
    """What reads a row of a table with these columns, by their names in small letters."""

    def first(names: Sequence[str]) -> str | None:
        return next((columns[name] for name in names if name in columns), None)

    picture, frame = first(_PICTURES), first(_FRAMES)
    box, sized = next(((names, sized) for names, sized in _BOXES if all(n in columns for n in names)), ((), False))
    score, category, label = first(_SCORES), columns.get(_CATEGORY), first(_LABELS)
    if not box or (picture is None and frame is None):
        raise PosezooError(
            f"its first line is to name the columns: a picture ({', '.join(_PICTURES[:4])}) or frame, and a box "
            f"(x1, y1, x2, y2 or x, y, width, height), but it has {', '.join(columns) or 'nothing'}"
        )

    def read(record: Mapping[str, str], where: str) -> Row:
        name = record[picture].strip() if picture else ""
        if frame and record[frame].strip():
            name = frame_name(name, _whole(record[frame], where))
        where = f"{where} (picture {name})"
        x1, y1, x2, y2 = (_cell(record[columns[n]], where) for n in box)
        if sized:
            x2, y2 = x1 + x2, y1 + y2
        sure = _cell(record[score], where) if score and record[score].strip() else 1.0
        row = _corners(where, name, [x1, y1, x2, y2], sure)
        if category:
            return row._replace(label=_label(_whole(record[category], where), {}))
        return row._replace(label=_named(record[label], where)) if label else row

    return read


def _cell(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PosezooError(f"{where}: '{text}' is no number") from None


def _whole(text: str, where: str) -> int:
    value = _cell(text, where)
    if not math.isfinite(value) or value != int(value):
        raise PosezooError(f"{where}: '{text}' is no whole number")
    return int(value)


def _named(text: str, where: str) -> str:
    name = text.strip().lower()
    if name.isdecimal():
        raise PosezooError(f"{where}: class {name} is a number: write names, or call the column {_CATEGORY} if COCO's")
    return name or PERSON
