"""posezoo JSON lines: one line a picture or frame, each a whole posezoo file (`posezoo.formats.posezoo`) on one line.

    {"format": "posezoo/1", "image": "street.mp4", "frame": 0, "time": 0.0, ..., "people": [...]}
    {"format": "posezoo/1", "image": "street.mp4", "frame": 1, "time": 0.04, ..., "people": [...]}

Lines are written as they come and whole, so that other tools can follow the file while it grows, and a process that was
killed leaves all that it did. `resume` says where to go on. The first line may have a `run`: the settings that all were
made with, for a run that goes on to be compared with; readers of results pass over it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError
from posezoo.files import make_folder
from posezoo.formats.posezoo import RUN, from_table, glance, to_table
from posezoo.formats.result import Result, ResultWriter, Settings, check_skeleton
from posezoo.formats.values import json_line, parse_json
from posezoo.formats.writers import Blocks
from posezoo.skeletons import Skeleton, list_skeletons

BEGIN = b'{"format":"posezoo/'  # but for spaces


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of one file, at its end where `settings.resume` says so."""
    return JsonLines(output, skeleton, settings.resume, settings.run)


class JsonLines(ResultWriter):
    """A line for each result, on the disk as soon as it is added; an earlier file is as it was until the first is."""

    def __init__(
        self, path: Path, skeleton: Skeleton, append: bool = False, run: Mapping[str, Any] | None = None
    ) -> None:
        """Make the folder.

        Args:
            path: the file.
            skeleton: of every result.
            append: go on with the file that is there, where `resume` has left it.
            run: what a file that begins says of the settings of all its lines.

        Raises:
            PosezooError: it cannot be written.
        """
        self._path, self._skeleton, self._append, self._run = path, skeleton, append, run
        self._blocks: Blocks | None = None
        self._discarded = False
        try:
            make_folder(path.parent)
        except OSError as err:
            raise PosezooError(f"cannot make the folder {path.parent}: {err.strerror or err}") from None
        if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
            raise PosezooError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not to be written to'}")

    def add(self, record: Result) -> None:
        """Write the line of a result."""
        check_skeleton(record, self._skeleton)
        line = to_table(record)
        blocks = self._opened()
        if self._run is not None and not blocks.size:
            line[RUN] = dict(self._run)
        blocks.write(json_line(line) + "\n")

    def _opened(self) -> Blocks:
        """The file, begun anew or gone on with."""
        if self._blocks is None:
            self._blocks = Blocks(self._path, append=self._append)
        return self._blocks

    def close(self) -> list[Path]:
        """Close the file; one that nothing was added to is empty, or as it was where it is gone on with."""
        if self._discarded:
            return []
        self._opened().close()
        return [self._path]

    def discard(self) -> None:
        """Remove the file, unless it went on with an earlier one, or nothing was added."""
        self._discarded = True
        if self._blocks is None:
            return
        self._blocks.close()
        if not self._append:
            with suppress(OSError):
                self._path.unlink()


@dataclass(frozen=True)
class Resumed:
    """What a file has so far.

    Attributes:
        lines: how many whole ones.
        last: the result in the last of them; its `frame` is the last frame done.
        images: the pictures done, as they are named in the file; frames of videos are not among them.
        next_track_id: above every track id in the file, so that a tracker that begins there gives none again.
        run: the settings that the first line says; None where it says none.
    """

    lines: int = 0
    last: Result | None = None
    images: frozenset[str] = frozenset()
    next_track_id: int = 0
    run: Mapping[str, Any] | None = None


def resume(path: Path, skeleton: Skeleton | None = None) -> Resumed:
    """Cut off a last line that is not whole, and say what there is.

    Args:
        path: a file that an earlier run began; none at all is fine.
        skeleton: of the results to come; None: whichever of posezoo's own the file names.

    Raises:
        PosezooError: it is no such file or of another skeleton, and is then left as it is; or it cannot be written.
    """
    if not path.exists():
        return Resumed()
    lines, whole, track_id, line = 0, 0, -1, None
    images, run = set(), None
    for whole, table, where in _lines(path, ended=True):  # noqa: B007
        key, track_ids = glance(table, where)
        run = table.get(RUN) if lines == 0 else run
        lines, line = lines + 1, (table, where)
        if key.frame is None:
            images.add(key.image)
        track_id = max([track_id, *track_ids])
    last = None
    if line is not None:
        own = None if skeleton is None or skeleton.name in list_skeletons() else skeleton
        last = from_table(*line, own)
        if skeleton is not None:
            check_skeleton(last, skeleton)
    try:
        with path.open("r+b") as file:
            file.truncate(whole)
    except OSError as err:
        raise PosezooError(f"cannot write {path}: {err.strerror or err}") from None
    return Resumed(lines, last, frozenset(images), track_id + 1, run)


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The result in each line, as it is reached; a last line that was cut off is left out."""
    for file in files:
        for _, table, where in _lines(file):
            yield from_table(table, where, skeleton)


def is_line(begin: bytes, cut: bool = False) -> bool:
    """Whether text begins as a line of ours; or may do so, if it is `cut` off early."""
    begin = begin[: 2 * len(BEGIN)].replace(b" ", b"")
    return begin.startswith(BEGIN) or (cut and BEGIN.startswith(begin))


def _lines(path: Path, ended: bool = False) -> Iterator[tuple[int, Any, str]]:
    """Of each whole line: where it ends in the file, what it says, and what to call it in errors.

    Args:
        path: the file.
        ended: a last line without a line's end is not whole, even if nothing else is missing.

    Raises:
        PosezooError: the file cannot be read; a whole line is no JSON, or the last is no beginning of a line of ours.
    """
    end = 0
    try:
        with path.open("rb") as file:
            for row, line in enumerate(file, 1):
                end += len(line)
                where = f"{path}, line {row}"
                if not line.endswith(b"\n"):
                    if not is_line(line, cut=True):
                        raise PosezooError(f"{where} is not a posezoo JSON line: it begins with {line[:20]!r}")
                    if ended or not _is_whole(line):
                        return
                yield end, parse_json(line, where)[0], where
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    except RecursionError:
        pass  # `parse_json` says so
    return True
