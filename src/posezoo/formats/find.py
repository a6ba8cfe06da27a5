"""Which files are the results in a folder, and which are left out.

A folder may hold all that a run of `posezoo predict` wrote: JSON of pictures beside JSON lines of videos, and a folder
for each video where a format has a file for each frame. They are read together. Whatever is not read is named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.formats.guess import guess_format

_FAMILIES = (("posezoo", "jsonl"), ("alphapose", "coco"), ("openpose", "openpose25"))
"""Formats that one reader takes; a file without people looks the same in two of them."""

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_OF_FRAMES = ("posezoo", "openpose", "cmu")  # those whose files say of which video they are
_FRAME = re.compile(r".*_\d{12}(_keypoints)?\.json", re.DOTALL)
_MOST_LOOKED_AT = 10_000  # files of a folder that is not read, for results among them
_NAMED = 3  # files in a line, of many


@dataclass(frozen=True)
class Found:
    """The results at a path.

    Attributes:
        files: in the order in which they are read.
        format: the name of their format; "posezoo" where some of them are JSON lines.
        left_out: files and folders with results that are not read.
    """

    files: list[Path]
    format: str
    left_out: list[Path]


def find_files(folder: Path, format: str | None, suffixes: Collection[str]) -> Found:
    """The results in a folder.

    Args:
        folder: its files are taken, and the folders in it that `posezoo predict` makes for videos.
        format: only these, and JSON lines with posezoo's own; None: found out.
        suffixes: of results files.

    Raises:
        PosezooError: there are none; they are of several kinds; or a file is of no known one.
    """
    kinds = {file: _kind(file, format) for file in _visible(folder, suffixes)}
    folders = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    for each in folders:
        kinds.update(_frames(each))
    # those of the folder itself decide; a folder in it may be another run's
    own = [kind for file, kind in kinds.items() if file.parent == folder] or [*kinds.values()]
    families = {_family(kind) for kind in own}
    if format is None and len(families) > 1:
        raise PosezooError(
            f"{folder} has results of several kinds: {_listed(kinds)}; say which to read with --from "
            "(format= in Python), or give one file"
        )
    wanted = _family(format) if format is not None else next(iter(families), ())
    files = [file for file, kind in kinds.items() if _family(kind) == wanted]
    if not files:
        raise PosezooError(f"{folder} has no results in it: no file that ends in {' or '.join(sorted(suffixes))}")
    left_out = sorted(set(_visible(folder, SUFFIXES)) - set(files))
    read = {file.parent for file in files}
    left_out += [each for each in folders if each not in read and _has_some(each)]
    return Found(files, format or _together(wanted, {kinds[file] for file in files}), left_out)


def _visible(folder: Path, suffixes: Collection[str]) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")
    return sorted(files, key=lambda file: (file.stem, file.name))  # clip.jsonl before clip-2.jsonl


def _kind(file: Path, format: str | None) -> str:
    """The format of a file; where one is asked for, what cannot be told is taken for that, whose reader says why."""
    try:
        return guess_format(file)
    except PosezooError:
        if format is None:
            raise
        return format


def _frames(folder: Path) -> dict[Path, str]:
    """The files of a folder that has one for each frame of a video, by a format that says of which."""
    kinds: dict[Path, str | None] = {}
    for file in _visible(folder, [".json"]):
        if _FRAME.fullmatch(file.name):
            try:
                kinds[file] = guess_format(file)
            except PosezooError:
                kinds[file] = None
    known = {_family(kind)[0] for kind in kinds.values() if kind is not None} & set(_OF_FRAMES)
    # one that is broken among them is not passed over: its reader says why
    return {file: _family(kind or min(known))[0] for file, kind in kinds.items()} if len(known) == 1 else {}


def _has_some(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in islice(folder.rglob("*"), _MOST_LOOKED_AT))


def _family(kind: str) -> tuple[str, ...]:
    return next((family for family in _FAMILIES if kind in family), (kind,))


def _together(family: tuple[str, ...], kinds: set[str]) -> str:
    """What to call the format of files of a family."""
    return next(iter(kinds)) if len(kinds) == 1 else family[0]


def _listed(kinds: dict[Path, str]) -> str:
    named = []
    for kind in sorted(set(kinds.values())):
        named.append(f"{kind} ({brief([file.name for file, own in kinds.items() if own == kind])})")
    return ", ".join(named)


def brief(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
