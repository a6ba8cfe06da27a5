"""Poses to files and back, always by joint name: one module a format.

What is written is strict, rounded to 0.01 pixels and 0.0001 of a score, never NaN; what is read is checked, and a wrong
file is an error that has the place and the value. Writers keep no result in memory: `open_writer`. `read_results` reads
what they and the tools they are named after write, and MMPose's predictions, and finds out which of them it was. What a
format has no place for stands in `Format.keeps` and `Format.unplaced`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError, unknown_name
from posezoo.formats import alphapose, cmu, coco, csv, jsonl, mmpose, openpose, parquet, posezoo
from posezoo.formats.find import Found, brief, find_files
from posezoo.formats.places import fit, without_place
from posezoo.formats.result import Result, ResultWriter, Settings
from posezoo.skeletons import Skeleton, get_skeleton

__all__ = ["FORMATS", "KEPT", "Format", "Result", "ResultWriter", "get_format", "open_writer", "read_results"]

KEPT = (
    "person scores",
    "boxes",
    "box scores",
    "track ids",
    "image names",
    "images without people",
    "frame numbers",
    "times",
    "image sizes",
)
"""What a result has beside joints and their scores."""

_Open = Callable[[Path, Skeleton, Settings], ResultWriter]
_Read = Callable[[Sequence[Path], Skeleton | None], Iterator[Result]]


@dataclass(frozen=True)
class Format:
    """A way to write results.

    Attributes:
        name: such as "coco".
        about: one line.
        open: makes the writer.
        read: reads files of it.
        file: what the one file for all is called, where the user names a folder only; its suffix is the format's.
        each: it has a file for each image instead.
        lists: it can have either.
        keeps: those of `KEPT` that it has a place for.
        layout: of formats with an order of joints of their own.
    """

    name: str
    about: str
    open: _Open
    read: _Read
    file: str
    keeps: frozenset[str]
    each: bool = False
    lists: bool = False
    layout: openpose.Layout | None = None

    @property
    def suffix(self) -> str:
        """Of its files, such as ".json"."""
        return Path(self.file).suffix

    def unplaced(self, skeleton: Skeleton) -> list[str]:
        """The joints that it has no place for."""
        return [] if self.layout is None else without_place(tuple(self.layout.parts.values()), skeleton)

    def made(self, skeleton: Skeleton) -> list[str]:
        """The points that are made of two joints, since the skeleton has them not."""
        places = () if self.layout is None else self.layout.parts.values()
        return [point for part in places for point in fit(part, skeleton).made]


@dataclass(frozen=True)
class Reader:
    """A format that is read only; the attributes are those of `Format`."""

    name: str
    read: _Read
    suffix: str
    keeps: frozenset[str]


def _all(*but: str) -> frozenset[str]:
    return frozenset(KEPT) - set(but)


def _openpose(name: str, about: str, layout: openpose.Layout, keeps: frozenset[str]) -> Format:
    opens, reads = partial(openpose.open_writer, layout), partial(openpose.read, layout)
    return Format(name, about, opens, reads, f"image{layout.ending}", keeps, each=True, layout=layout)


def _read_own(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """posezoo's own files, and JSON lines among them: the same, a line each."""
    for file in files:
        yield from (jsonl if file.suffix.lower() == ".jsonl" else posezoo).read([file], skeleton)


_OPENPOSE_KEEPS = _all("person scores", "boxes", "box scores")

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format(
            "posezoo",
            "all there is: a JSON file an image, JSON lines for a video",
            posezoo.open_writer,
            _read_own,
            "image.json",
            _all(),
            each=True,
        ),
        Format("jsonl", "the same, one line an image", jsonl.open_writer, jsonl.read, "results.jsonl", _all()),
        Format(
            "coco",
            "COCO keypoint results, one list",
            coco.open_writer,
            coco.read,
            "coco_results.json",
            frozenset({"person scores"}),
            lists=True,
        ),
        Format(
            "alphapose",
            "AlphaPose's results, one list",
            alphapose.open_writer,
            alphapose.read,
            "alphapose-results.json",
            frozenset({"person scores", "boxes", "track ids", "image names"}),
            lists=True,
        ),
        _openpose("openpose", "OpenPose's, 18 body points; hands, face", openpose.OPENPOSE, _OPENPOSE_KEEPS),
        _openpose("openpose25", "the same with BODY_25", openpose.OPENPOSE_25, _OPENPOSE_KEEPS),
        _openpose("cmu", "CMU's, 18 body points", cmu.CMU, _OPENPOSE_KEEPS - {"track ids"}),
        Format(
            "csv",
            "a table, one row a person",
            csv.open_writer,
            csv.read,
            "results.csv",
            _all("images without people"),
        ),
        Format(
            "parquet",
            "the same table, typed (needs the extra parquet)",
            parquet.open_writer,
            parquet.read,
            "results.parquet",
            _all("images without people"),
        ),
    )
}
"""Every format that is written, by name; it is read too."""

READ_ONLY: dict[str, Reader] = {
    "mmpose": Reader("mmpose", mmpose.read, ".json", _all("person scores", "track ids", "times", "image sizes")),
}
"""Those of others, by name."""


def get_format(name: str, video: bool = False) -> Format:
    """The format called `name`; posezoo's own is one of lines for a video.

    Raises:
        UnknownNameError: there is no such format.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS["jsonl" if name == "posezoo" and video else name]


def get_reader(name: str) -> Format | Reader:
    """The format called `name`, to read.

    Raises:
        UnknownNameError: there is no such format.
    """
    readers: dict[str, Format | Reader] = {**FORMATS, **READ_ONLY}
    if name not in readers:
        raise unknown_name("format", name, readers)
    return readers[name]


def open_writer(
    format: str,
    output: str | os.PathLike[str],
    skeleton: Skeleton,
    *,
    video: bool = False,
    per_frame: bool = False,
    resume: bool | jsonl.Resumed = False,
    name: Callable[[Result], str] | None = None,
    run: Mapping[str, Any] | None = None,
    ending: str | None = None,
) -> ResultWriter:
    """A writer of results, to be closed: best as the value of a `with` statement.

    Args:
        format: one of `FORMATS`.
        output: a folder; or, where the format has one file for all, that file by its suffix.
        skeleton: of every result.
        video: the results are the frames of one video: they are told apart by their numbers, not by image.
        per_frame: a file for each image, where the format has one list for all.
        resume: go on with the file that is there; or what `posezoo.formats.jsonl.resume` said of it just now.
        name: what to call the file of a result, where each has its own; None: as its image.
        run: what the results depend on, which JSON lines keep; `posezoo.formats.jsonl.resume` gives it back.
        ending: see `Settings`.

    Raises:
        PosezooError: an unknown format; one that cannot do what is asked for; the output cannot be written.
    """
    chosen = get_format(name=format, video=video and not per_frame)
    if per_frame and not (chosen.each or chosen.lists):
        able = [each.name for each in FORMATS.values() if each.each or each.lists]
        raise PosezooError(f"{chosen.name} has one file for all; a file for each frame have {', '.join(able)}")
    if resume and chosen.name != "jsonl":
        raise PosezooError(f"{chosen.name} files cannot be gone on with; JSON lines can: choose the format jsonl")
    target = output_path(chosen, Path(output), per_frame)
    if resume is True:
        jsonl.resume(target, skeleton)
    return chosen.open(target, skeleton, Settings(video, per_frame, bool(resume), name, run, ending))


def output_path(format: Format, output: Path, per_frame: bool = False) -> Path:
    """The file or folder that a writer of `format` writes to.

    Raises:
        PosezooError: `output` is called like a file where a folder is needed, or like one of another format.
    """
    suffix, each = output.suffix.lower(), format.each or per_frame
    if output.is_dir() or suffix not in {known.suffix for known in FORMATS.values()}:
        return output if each else output / format.file
    if each:
        raise PosezooError(f"{format.name} has a file for each image: choose a folder instead of {output}")
    if suffix != format.suffix:
        raise PosezooError(f"{format.name} files end in {format.suffix}: choose another name than {output}")
    return output


def read_results(
    path: Path | str, format: str | None = None, skeleton: Skeleton | str | None = None
) -> Iterator[Result]:
    """The people of each image in a results file, or in all those of a folder.

    Of a folder JSON and JSON lines of posezoo are read together, and the folders in it that `posezoo predict` made for
    the frames of a video. A warning names what is left out.

    Args:
        path: the file or folder.
        format: one of `FORMATS` or `READ_ONLY`; None: found out from what is in the file.
        skeleton: the keypoint set; None: the one that the file names, or coco17 where it names none.

    Raises:
        PosezooError: there is no such file, it is of no known format, or it is wrong; the message says where. Or
            the files of a folder are of several kinds, and `format` does not say which to read.
    """
    found = find_results(Path(path), format)
    if found.left_out:
        warnings.warn(f"not read: {brief(found.left_out)}", stacklevel=2)
    return get_reader(found.format).read(found.files, get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton)


def find_results(path: Path, format: str | None = None) -> Found:
    """The files at `path` in order, and their format; arguments and errors as of `read_results`."""
    from posezoo.formats.guess import guess_format

    own = ["posezoo", "jsonl"] if format == "posezoo" else [format] if format else FORMATS
    suffixes = {get_reader(name).suffix for name in own}
    if path.is_dir():
        return find_files(path, format, suffixes)
    if not path.exists():
        raise PosezooError(f"no such file or folder: {path}")
    return Found([path], format or guess_format(path), [])
