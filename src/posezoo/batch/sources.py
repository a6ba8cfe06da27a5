"""What `posezoo batch` reads: pictures, videos, tar shards and Parquet files, from folders, globs and lists.

Nothing is opened here but lists and the index of Parquet files: a folder of a million pictures is one listing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from posezoo.errors import PosezooError, require
from posezoo.files import matching
from posezoo.media.headers import sniff
from posezoo.media.images import SUFFIXES, _natural, _similar
from posezoo.media.sources import list_entries

PICTURE, VIDEO, TAR, PARQUET = "picture", "video", "tar", "parquet"
KINDS: dict[str, str] = {
    **dict.fromkeys(SUFFIXES, PICTURE),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"), VIDEO),
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"), TAR),
    **dict.fromkeys((".parquet", ".pq"), PARQUET),
}
"""What a file is, by its suffix."""
ROWS = 2000  # of a Parquet file, at least, that one worker reads


class Item(NamedTuple):
    """What a worker reads in one go.

    Attributes:
        kind: one of "picture", "video", "tar", "parquet".
        path: as it was given or found.
        first: of a Parquet file, the first group of rows.
        groups: how many of them; 0: the whole file, as of one that could not be read when it was planned.
    """

    kind: str
    path: str
    first: int = 0
    groups: int = 0


def find_items(sources: Sequence[str], leave_out: Path | None = None) -> list[Item]:
    """Everything that paths, folders, globs and lists stand for, each file once, in the order given.

    A folder stands for the files right in it, in natural order. What a list (.txt, a path a line) names and is not
    there becomes an item too: whoever reads it finds out, and notes it.

    Args:
        sources: any number of them.
        leave_out: a folder whose files are no sources: that of the results.

    Raises:
        PosezooError: no such file, a folder or a glob with nothing in it that can be read, or a bad list.
    """
    outside = None if leave_out is None else os.path.join(os.path.abspath(leave_out), "")
    found: dict[str, Item] = {}
    for source in sources:
        before = len(found)
        given = _expand(source)
        for item in given:
            absolute = os.path.abspath(item.path)
            if outside is None or not absolute.startswith(outside):
                found.setdefault(absolute, item)
        if len(found) == before and not any(os.path.abspath(item.path) in found for item in given):
            raise PosezooError(f"{source} has nothing in it but the results in {leave_out}")
    return [part for item in found.values() for part in _split(item)]


def _expand(source: str) -> list[Item]:
    path = Path(os.path.expanduser(source))
    if "://" in source:
        raise PosezooError(
            f"{source} is an address: batch reads files, so mount or copy them where all workers see them"
        )
    if os.path.isdir(path):
        try:
            found = _of_known_kind(entry.path for entry in os.scandir(path) if entry.is_file())
        except OSError as err:
            raise PosezooError(f"cannot read the folder {path}: {err.strerror or err}") from None
        if not found:
            deeper = any(_kind_by_name(each.name) for each in path.glob("*/*"))
            hint = f"; to search its folders too: '{path}/**/*'" if deeper else ""
            raise PosezooError(f"no pictures, videos, tar shards or Parquet files in the folder {path}{hint}")
        return found
    if os.path.exists(path):
        return _read_list(path) if path.suffix.lower() == ".txt" else [Item(_kind(path), os.fspath(path))]
    if not glob.has_magic(source):
        raise PosezooError(f"no such file or folder: {path}{_similar(path)}")
    found = _of_known_kind(name for name in matching(path) if os.path.isfile(name))
    if not found:
        raise PosezooError(f"no pictures, videos, tar shards or Parquet files match {source}")
    return found


def _of_known_kind(names: Iterable[str]) -> list[Item]:
    """Those with a known suffix and not hidden, in natural order."""
    known = ((name, _kind_by_name(os.path.basename(name))) for name in names)
    return [Item(kind, name) for name, kind in sorted(((n, k) for n, k in known if k), key=lambda e: _natural(e[0]))]  # type: ignore[arg-type]


def _kind_by_name(name: str) -> str | None:
    """What a file is by its suffix, which may be a double one; None where that is unknown, or the file hidden."""
    if name.startswith("."):
        return None
    parts = name.lower().split(".")
    return KINDS.get("." + ".".join(parts[-2:])) or KINDS.get("." + parts[-1]) if len(parts) > 1 else None


def _kind(path: Path) -> str:
    """What a file is that was named outright: by its suffix, or by how it begins."""
    by_name = _kind_by_name(path.name.lstrip("."))
    if by_name:
        return by_name
    try:
        with path.open("rb") as file:
            start = file.read(265)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    if sniff(start[:16]):
        return PICTURE
    if start[257:262] == b"ustar":
        return TAR
    if start[:4] == b"PAR1":
        return PARQUET
    raise PosezooError(
        f"{path} is no picture, video, tar shard, Parquet file or list (.txt) by its name or its beginning"
    )


def _read_list(path: Path) -> list[Item]:
    """The files that a list names: a path, folder or glob a line, from the list's folder or the present one."""
    found: list[Item] = []
    usable = False
    entries = list_entries(path)
    for entry in entries:
        beside = path.parent / os.path.expanduser(entry)
        given = os.fspath(beside) if os.path.exists(beside) or glob.has_magic(entry) else entry
        try:
            # a list in a list may well be itself
            found += [Item(PICTURE, given)] if given.lower().endswith(".txt") else _expand(given)
            usable = True
        except PosezooError:
            found.append(Item(_kind_by_name(os.path.basename(entry)) or PICTURE, given))
    if not usable:
        raise PosezooError(f"none of the {len(entries)} entries of the list {path} can be used, such as {entries[0]}")
    return found


def _split(item: Item) -> Iterator[Item]:
    """A Parquet file by groups of rows, so that several workers can share one."""
    if item.kind != PARQUET:
        yield item
        return
    parquet: Any = require("pyarrow.parquet", "batch", "reading Parquet")
    try:
        index = parquet.read_metadata(item.path)
    except (OSError, require("pyarrow", "batch", "reading Parquet").ArrowException):
        yield item  # whoever reads it finds out, and notes it
        return
    first, rows = 0, 0
    for group in range(index.num_row_groups):
        rows += index.row_group(group).num_rows
        if rows >= ROWS or group == index.num_row_groups - 1:
            yield item._replace(first=first, groups=group + 1 - first)
            first, rows = group + 1, 0
    if not index.num_row_groups:
        yield item
