"""Results from one format to another, one picture at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.formats import KEPT, Format, find_results, get_format, get_reader, open_writer, output_path
from posezoo.formats.result import DEFAULT_SKELETON, Result
from posezoo.skeletons import get_skeleton


@dataclass(frozen=True)
class Converted:
    """What became of a conversion.

    Attributes:
        source: the format read.
        target: the format written.
        skeleton: the name of the keypoint set.
        images: pictures or frames.
        people: in all of them.
        output: the file, or the folder where there is one for each image.
        lost: what was there beside joints that the target has no place for, of `posezoo.formats.KEPT`.
        unplaced: the joints that it has no place for.
        made: the points that were made of two joints.
        left_out: files and folders with results beside them that were not read.
    """

    source: str
    target: str
    skeleton: str
    images: int
    people: int
    output: Path
    lost: list[str]
    unplaced: list[str]
    made: list[str]
    left_out: list[str]


def convert_results(
    path: Path,
    output: Path,
    to: str,
    source: str | None = None,
    skeleton: str | None = None,
    per_frame: bool = False,
) -> Converted:
    """Write what is in a results file, or in those of a folder, in another format.

    Args:
        path: the file or folder.
        output: see `posezoo.formats.open_writer`.
        to: the format to write.
        source: the format to read; None: found out.
        skeleton: the keypoint set of files that do not name it; None: coco17.
        per_frame: see `posezoo.formats.open_writer`.

    Raises:
        PosezooError: something is wrong with what is read, or cannot be written; then no file for all is left.
    """
    get_format(to)
    found = find_results(path, source)
    files, read = found.files, get_reader(found.format)
    records = read.read(files, None if skeleton is None else get_skeleton(skeleton))
    first = next(records, None)
    joints = get_skeleton(skeleton or DEFAULT_SKELETON) if first is None else first.poses.skeleton
    # frames of videos may come after pictures
    several = len({(file.parent, file.suffix.lower()) for file in files}) > 1
    video = first is not None and (first.frame is not None or several)
    written = get_format(to, video and not per_frame)
    _check_apart(files, output_path(written, output, per_frame), written, per_frame)
    images = people = 0
    missing = set(_OPTIONAL)
    writer = open_writer(to, output, joints, video=video, per_frame=per_frame)
    try:
        for record in chain([] if first is None else [first], records):
            writer.add(record)
            images, people = images + 1, people + len(record.poses)
            missing = {what for what in missing if not _OPTIONAL[what](record)}
    except BaseException:
        writer.discard()
        raise
    (target,) = writer.close()
    lost = [what for what in KEPT if what in read.keeps - written.keeps - missing]
    unplaced, made = written.unplaced(joints), written.made(joints)
    left_out = [os.fspath(each) for each in found.left_out]
    return Converted(read.name, written.name, joints.name, images, people, target, lost, unplaced, made, left_out)


_OPTIONAL: dict[str, Callable[[Result], bool]] = {
    "track ids": lambda record: record.poses.track_ids is not None,
    "images without people": lambda record: not len(record.poses),
    "frame numbers": lambda record: record.frame is not None,
    "times": lambda record: record.time_s is not None,
    "image sizes": lambda record: record.size_wh is not None,
}
"""Whether a result has what not every one has."""


def _check_apart(files: Sequence[Path], target: Path, written: Format, per_frame: bool) -> None:
    """Nothing is written over what is still to be read."""
    places = {file.parent.resolve() if written.each or per_frame else file.resolve() for file in files}
    if target.resolve() in places:
        raise PosezooError(f"{target} is what is to be converted: choose another place to write to")
