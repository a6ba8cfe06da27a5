"""How results get to the disk, whatever the format: a list in one file, or a file for each picture or frame."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path, PurePath
from typing import Any

from posezoo.errors import PosezooError
from posezoo.files import atomic_path, make_folder, write_atomic
from posezoo.formats.result import Result, ResultWriter, Settings, check_skeleton
from posezoo.formats.values import json_line
from posezoo.skeletons import Skeleton

NumberOrName = int | str
_NUMBER = re.compile(r"_[0-9]{12}$")  # of a frame, at the end of its name


class Blocks:
    """A file that grows by whole blocks of text: one that does not fit on the disk is taken back.

    Nothing is buffered here, so that a killed process leaves whole blocks too.
    """

    def __init__(self, path: Path, shown: Path | None = None, append: bool = False) -> None:
        """Open the file.

        Args:
            path: the file; made anew, or gone on with.
            shown: what to call it in errors.
            append: go on with it.

        Raises:
            PosezooError: it cannot be written.
        """
        self._shown = shown or path
        try:
            self._file = path.open("ab" if append else "wb", buffering=0)
            self.size = self._file.seek(0, os.SEEK_END)
        except OSError as err:
            raise self._failed(err) from None

    def write(self, text: str) -> None:
        """Add a block, whole or not at all.

        Raises:
            PosezooError: the disk is full.
        """
        left = memoryview(text.encode())
        size = self.size + len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as err:
            with suppress(OSError):
                self._file.truncate(self.size)
                self._file.seek(self.size)
            if isinstance(err, OSError):
                raise self._failed(err) from None
            raise
        self.size = size

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()

    def _failed(self, err: OSError) -> PosezooError:
        return PosezooError(f"cannot write {self._shown}: {err.strerror or err}")


class Pending:
    """A file that is written beside its place, and put there when it is done."""

    def __init__(self, path: Path) -> None:
        """Begin; `temporary` is where to write.

        Raises:
            PosezooError: the folder cannot be made or written.
        """
        self.path = path
        self._stack = ExitStack()
        self.temporary = self._stack.enter_context(atomic_path(path))

    def finish(self) -> list[Path]:
        """Put the file in its place; once is enough."""
        self._stack.close()
        return [self.path]

    def discard(self) -> None:
        """Leave nothing, if it is not in its place yet."""
        stack = self._stack.pop_all()
        with suppress(GeneratorExit):
            stack.__exit__(GeneratorExit, GeneratorExit(), None)


class TextFile(ResultWriter):
    """One text file for all: what comes first, a block for each result, what comes last."""

    def __init__(
        self,
        path: Path,
        skeleton: Skeleton,
        block: Callable[[Result], list[str]],
        begin: str = "",
        join: str = "",
        end: str = "",
        empty: str = "",
    ) -> None:
        """Begin the file, unseen.

        Args:
            path: the file.
            skeleton: of every result.
            block: the entries of a result; none at all is fine.
            begin: what stands before the first entry.
            join: what stands between two.
            end: what stands after the last.
            empty: the whole file, where there was no entry.

        Raises:
            PosezooError: it cannot be written.
        """
        self._skeleton, self._entries = skeleton, block
        self._begin, self._join, self._end, self._empty = begin, join, end, empty
        self._pending = Pending(path)
        self._blocks = Blocks(self._pending.temporary, path)
        self._done: list[Path] | None = None

    def add(self, record: Result) -> None:
        """Write the entries of a result."""
        check_skeleton(record, self._skeleton)
        entries = self._entries(record)
        if entries:
            self._blocks.write((self._join if self._blocks.size else self._begin) + self._join.join(entries))

    def close(self) -> list[Path]:
        """End the file and put it in its place."""
        if self._done is None:
            try:
                self._blocks.write(self._end if self._blocks.size else self._empty)
            except PosezooError:
                self.discard()
                raise
            self._blocks.close()
            self._done = self._pending.finish()
        return self._done

    def discard(self) -> None:
        """Leave nothing."""
        self._blocks.close()
        self._pending.discard()
        self._done = []


def json_list(path: Path, skeleton: Skeleton, entries: Callable[[Result], list[dict[str, Any]]]) -> TextFile:
    """The writer of one JSON list, an entry a line."""

    def block(record: Result) -> list[str]:
        return [json_line(entry) for entry in entries(record)]

    return TextFile(path, skeleton, block, "[\n", ",\n", "\n]\n", "[]\n")


class FileEach(ResultWriter):
    """A file for each picture or frame, in one folder; each is whole or not there."""

    def __init__(
        self,
        folder: Path,
        skeleton: Skeleton,
        text: Callable[[Result], str],
        settings: Settings,
        ending: str = ".json",
    ) -> None:
        """Make the folder.

        Args:
            folder: where the files go.
            skeleton: of every result.
            text: the file of a result.
            settings: `name` and `video` decide what the files are called.
            ending: of their names.

        Raises:
            PosezooError: the folder cannot be made.
        """
        self._folder, self._skeleton, self._text, self._ending = folder, skeleton, text, ending
        self._settings, self._name = settings, settings.name or FileNames(settings.video)
        self._videos: set[str] = set()  # stems of those that have a frame
        try:
            make_folder(folder)
        except OSError as err:
            raise PosezooError(f"cannot make the folder {folder}: {err.strerror or err}") from None

    def add(self, record: Result) -> Path:
        """Write the file of a result; with the first frame of a video those go that an earlier run made of it."""
        check_skeleton(record, self._skeleton)
        text = self._text(record)
        name = self._name(record)
        if self._settings.video and record.frame is not None and (stem := _NUMBER.sub("", name)) not in self._videos:
            self._videos.add(stem)
            self._forget(stem)
        path = self._folder / f"{name}{self._ending}"
        write_atomic(path, text)
        return path

    def _forget(self, stem: str) -> None:
        """Remove the frames of a video that are there: beyond the last new one they would be taken for new."""
        try:
            for file in list(self._folder.iterdir()):
                name = file.name.removesuffix(self._ending)
                if name != file.name and name != stem and _NUMBER.sub("", name) == stem:
                    file.unlink()
        except OSError as err:
            reason = err.strerror or err
            raise PosezooError(f"cannot remove the older frames of {self._folder / stem}: {reason}") from None

    def close(self) -> list[Path]:
        """Nothing is left to do: the files are whole."""
        return [self._folder]

    def discard(self) -> None:
        """Nothing to do: the files are whole."""


class FileNames:
    """What to call the file of each result: the stem of its picture; where several share one, the later get -2, -3, ...

    Frames of a video have its stem, found in the same way, and their number in twelve digits, as OpenPose calls them.
    No name starts with a dot, since hidden files are not read back. Case does not tell names apart, since it does not
    on every file system.
    """

    def __init__(self, video: bool) -> None:
        """Frame numbers count only in a video."""
        self._video = video
        self._taken: set[str] = set()
        self._like_frames: set[str] = set()  # stems of pictures whose names end in a number of frames
        self._stems: dict[str, str] = {}  # of videos

    def __call__(self, record: Result) -> str:
        """The name, without suffix."""
        stem = re.sub(r'^\.|[\x00-\x1f<>:"/\\|?*]', "_", PurePath(record.image).stem) or "image"
        if self._video and record.frame is not None:
            if record.image not in self._stems:
                self._stems[record.image] = self._free(stem, self._like_frames.__contains__)
            return f"{self._stems[record.image]}_{record.frame:012d}"
        name = self._free(stem, self._is_frame)
        if _NUMBER.search(name):
            self._like_frames.add(_NUMBER.sub("", name.lower()))
        return name

    def _free(self, stem: str, clashes: Callable[[str], bool]) -> str:
        """The first of stem, stem-2, stem-3, ... that is not taken, and in small letters does not clash."""
        name, count = stem, 1
        while name.lower() in self._taken or clashes(name.lower()):
            count += 1
            name = f"{stem}-{count}"
        self._taken.add(name.lower())
        return name

    def _is_frame(self, name: str) -> bool:
        """Whether a frame of one of the videos may be called so."""
        stem = _NUMBER.sub("", name)
        return stem != name and stem in map(str.lower, self._stems.values())


class ImageIds:
    """What a list calls each picture: the first of some names that no other picture has.

    Frames of a video are called by their number: they need no memory.
    """

    def __init__(self, video: bool, names: Callable[[str], list[NumberOrName]]) -> None:
        """Set the ways to call a picture.

        Args:
            video: whether frame numbers count.
            names: those of a picture, best first; its path is the last resort.
        """
        self._video, self._names = video, names
        self._taken: set[NumberOrName] = set()
        self._images: set[str] = set()
        self._frames = False

    def __call__(self, record: Result) -> NumberOrName:
        """The first name that is free.

        Raises:
            PosezooError: a picture comes twice, or frames are not those of one video alone.
        """
        if self._video and (record.frame is not None or self._frames):
            self._frames = True
            self._images.add(record.image)
            if len(self._images) > 1 or record.frame is None:
                raise PosezooError(
                    f"frames of {' and '.join(sorted(self._images)[:3])}: this format holds one video; "
                    "jsonl, csv and parquet hold any number, and pictures too"
                )
            return record.frame
        if record.image in self._images:
            raise PosezooError(f"image {record.image} is listed twice, and this format tells images apart by name")
        self._images.add(record.image)
        ways = [*self._names(record.image), record.image]
        name = next((way for way in ways if way not in self._taken), record.image)
        self._taken.add(name)
        return name
