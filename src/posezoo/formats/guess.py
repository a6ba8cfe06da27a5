"""Which format a results file has, by what is in it."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError
from posezoo.formats.jsonl import is_line
from posezoo.formats.table import HEAD
from posezoo.formats.values import list_items, parse_json


def guess_format(path: Path) -> str:
    """The name of the format of a file.

    Raises:
        PosezooError: it cannot be read, or is no results file; the message says what it seems to be.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    if begin.startswith(b"PAR1"):
        return "parquet"
    if is_line(begin, cut=path.suffix.lower() == ".jsonl"):
        return "jsonl"
    if begin.startswith(b"["):
        return _of_list(path)
    for name, head in _HEADS.items():
        if head.match(begin):
            return name
    if begin.startswith(b"{"):
        return _of_object(path)
    header = begin.partition(b"\n")[0]
    if HEAD[0].encode() in header and b"_x" in header:
        return "csv"
    raise PosezooError(f"{path} is {'empty' if not begin else 'no results file of a known kind'}{_EXPECTED}")


# what most begin with, so that a folder of many is not parsed twice
_HEADS = {
    "posezoo": re.compile(rb'\{\s*"format"\s*:\s*"posezoo/'),
    "openpose": re.compile(rb'\{\s*"version"\s*:\s*[0-9.]+\s*,\s*"people"\s*:'),
    "cmu": re.compile(rb'\{\s*"version"\s*:\s*[0-9.]+\s*,\s*"bodies"\s*:'),
}
_EXPECTED = (
    "; expected results of posezoo, COCO, AlphaPose, OpenPose, CMU or MMPose as JSON, or a table of people as CSV or "
    "Parquet"
)


def _of_list(path: Path) -> str:
    first: Any = next(islice(list_items(path), 1), {"keypoints": []})  # nobody at all
    if isinstance(first, dict) and ("keypoint_scores" in first or "instances" in first):
        return "mmpose"
    if isinstance(first, dict) and "keypoints" in first:
        return "alphapose" if "box" in first or "idx" in first else "coco"
    if isinstance(first, dict) and "bbox" in first:
        raise PosezooError(f"{path} has boxes without keypoints: it is of a detector{_EXPECTED}")
    raise PosezooError(f"{path} is a JSON list of something else{_EXPECTED}")


def _of_object(path: Path) -> str:
    table, _ = parse_json(path)
    if "format" in table:
        return "posezoo"
    if "people" in table:
        return "openpose"
    if "bodies" in table:
        return "cmu"
    if "instance_info" in table:
        return "mmpose"
    if "annotations" in table:
        raise PosezooError(f"{path} is a file of annotations, not of results{_EXPECTED}")
    found = ", ".join(json.dumps(key) for key in islice(table, 5)) or "nothing"
    raise PosezooError(f"{path} is a JSON object with {found}{_EXPECTED}")
