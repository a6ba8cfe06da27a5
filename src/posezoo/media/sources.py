"""Where frames come from: pictures, a folder, a glob, a list, a video, a camera, a stream or stdin, all alike.

A source gives its frames one by one as they are asked for, and keeps none: reading ahead of the network is the work of
`posezoo.media.ahead`.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.media.headers import is_heif, sniff
from posezoo.media.images import SUFFIXES, _similar, find_images, read_image
from posezoo.media.live import Watched, camera_frames
from posezoo.media.piped import PictureSplitter
from posezoo.media.span import Chooser, Span, make_span
from posezoo.media.video import TIMEOUT_S, Decoded, Decoder, open_decoder

Image = NDArray[np.uint8]
PICTURES, VIDEO, LIVE = "pictures", "video", "live"
_CAMERA = re.compile(r"(?:webcam:)?(\d{1,3})", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    Attributes:
        image_rgb: (H, W, 3) uint8, upright.
        index: its number in the source, from 0; those left out or skipped count.
        time_s: seconds since the first frame of the source; None where nothing says so.
        name: the path of the picture or video, the address of the stream, "webcam:0" or "stdin".
    """

    image_rgb: Image
    index: int
    time_s: float | None
    name: str


class Failure(NamedTuple):
    """A picture or an entry of a list that could not be read.

    Attributes:
        source: as it was given.
        error: why.
    """

    source: str
    error: PosezooError


class Source(ABC):
    """Frames, to be asked for once, as an iterator and a context manager.

    What ends it early (a file that is cut off, a camera that was unplugged, a stream that fell silent) is raised as
    `PosezooError` after the last frame that could be read: what was made of the others is good.

    Attributes:
        name: as it was given.
        kind: "pictures" (each by itself), "video" (frames that follow each other) or "live" (never waits; no end).
        fps: frames a second of the source itself, on average; None where unknown.
        size_wh: of every frame; None for pictures, and where it is not known before the first frame.
        total: about how many frames will be given; None where that cannot be known.
        failed: which pictures or entries of a list those were, so far; empty for videos.
    """

    kind: str = VIDEO
    fps: float | None = None
    size_wh: tuple[int, int] | None = None
    total: int | None = None

    def __init__(self, name: str, span: Span) -> None:
        self.name, self._span = name, span
        self.failed: list[Failure] = []
        self._frames: Iterator[Frame] | None = None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._frames is None:
            self._frames = self._read()
        return next(self._frames)

    @property
    def skipped(self) -> int:
        """Damaged frames and unreadable pictures so far; those of a video that are not wanted count too."""
        return len(self.failed) + self._damaged()

    def close(self) -> None:
        """Let go of the file, camera or stream; may be called twice."""
        self._release()

    def _damaged(self) -> int:
        return 0

    def _release(self) -> None:
        return

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """The frames of the span."""


class PictureFiles(Source):
    """Picture files, in order. One that cannot be read goes into `failed`, and the next one follows.

    Attributes:
        paths: of the files that the span takes.
        indices: their numbers among all, from 0.
    """

    kind = PICTURES

    def __init__(
        self, name: str, span: Span, paths: Sequence[Path], failed: Sequence[Failure], max_megapixels: float | None
    ) -> None:
        super().__init__(name, span)
        if span.timed:
            raise PosezooError(f"{name}: pictures have no times; give start and end as frames, such as 120f")
        if (span.frame(0) or 0) >= len(paths):
            raise PosezooError(f"{name} ends before the start: its last picture is {len(paths) - 1}f")
        self.indices = range(len(paths))[span.frame(0) or 0 : span.frame(1) : span.every]
        self.paths = [paths[index] for index in self.indices]
        self.failed.extend(failed)
        self.total = len(self.paths)
        self._max_megapixels = max_megapixels

    def _read(self) -> Iterator[Frame]:
        for index, path in zip(self.indices, self.paths, strict=True):
            try:
                image = read_image(path, self._max_megapixels)
            except PosezooError as err:
                self.failed.append(Failure(os.fspath(path), err))
                continue
            yield Frame(image, index, None, os.fspath(path))


class VideoFile(Source):
    """A video file."""

    def __init__(self, name: str, span: Span, backend: str = "auto") -> None:
        super().__init__(name, span)
        self._decoder = open_decoder(name, backend=backend)
        self.fps, self.size_wh = self._decoder.fps, self._decoder.size_wh
        self.total = span.count(self._decoder.total, self.fps)

    def _damaged(self) -> int:
        return self._decoder.skipped

    def _read(self) -> Iterator[Frame]:
        return _wanted(self._decoder, self._span, self.name)

    def _release(self) -> None:
        self._decoder.close()


class Stream(Source):
    """What an address (rtsp, http, ...) sends. One with an end is a video, none of whose frames is dropped."""

    kind = LIVE

    def __init__(self, name: str, span: Span, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(name, span)
        opening: Watched[Decoder] = Watched(
            lambda: iter([open_decoder(name, timeout_s)]), f"the stream {name}", timeout_s=2 * timeout_s
        )
        self._decoder = next(opening)
        self.fps, self.size_wh = self._decoder.fps, self._decoder.size_wh
        if self._decoder.total:
            self.kind = VIDEO
            self.total = span.count(self._decoder.total, self.fps)
        self._watched: Watched[Frame] = Watched(
            lambda: _wanted(self._decoder, span, name),
            f"the stream {name}",
            timeout_s=timeout_s + 1,  # FFmpeg's own timeout says more
            newest=self.kind == LIVE,
        )

    def _damaged(self) -> int:
        return self._decoder.skipped

    @property
    def dropped(self) -> int:
        """Frames that came faster than they were asked for."""
        return self._watched.dropped

    def _read(self) -> Iterator[Frame]:
        return self._watched

    def _release(self) -> None:
        if self._watched.stop():
            self._decoder.close()


class Camera(Source):
    """A camera of this computer: always what it sees now, so that frames which came too fast are left out."""

    kind = LIVE

    def __init__(
        self, number: int, span: Span, timeout_s: float = TIMEOUT_S, open_capture: Callable[[int], Any] | None = None
    ) -> None:
        super().__init__(f"webcam:{number}", span)
        self._watched: Watched[tuple[int, Image, float]] = Watched(
            lambda: ((index, *seen) for index, seen in enumerate(camera_frames(number, open_capture))),
            f"the camera {number}",
            timeout_s=timeout_s,
            newest=True,
        )
        # its size is known, and that there is a camera at all, once it has seen something
        self._first: tuple[int, Image, float] = next(self._watched)
        self.size_wh = (self._first[1].shape[1], self._first[1].shape[0])

    @property
    def dropped(self) -> int:
        """Frames that came faster than they were asked for."""
        return self._watched.dropped

    def _read(self) -> Iterator[Frame]:
        def seen() -> Iterator[Decoded]:
            yield _seen(*self._first)
            for each in self._watched:
                yield _seen(*each)

        return _wanted(seen(), self._span, self.name)

    def _release(self) -> None:
        self._watched.stop()


class PipedPictures(Source):
    """JPEG and PNG pictures that another program writes one after another, as `ffmpeg -f image2pipe` does."""

    def __init__(self, span: Span, stream: BinaryIO, max_megapixels: float | None) -> None:
        super().__init__("stdin", span)
        if span.timed:
            raise PosezooError("pictures from stdin have no times; give start and end as frames, such as 120f")
        if stream.isatty():
            raise PosezooError("- reads pictures from stdin, which is the terminal: ffmpeg ... -f image2pipe - | ...")
        self._splitter, self._max_megapixels = PictureSplitter(stream), max_megapixels
        self._undecodable = 0

    def _damaged(self) -> int:
        return self._undecodable + self._splitter.skipped

    def _read(self) -> Iterator[Frame]:
        def decoded() -> Iterator[Decoded]:
            for index, data in enumerate(self._splitter):
                yield Decoded(index, None, lambda data=data: self._decode(data))  # type: ignore[misc]

        frames = _wanted(decoded(), self._span, self.name)
        first = next(frames, None)
        if first is None:
            raise PosezooError(f"stdin {'has no JPEG or PNG picture in it' if self.skipped else 'is empty'}")
        yield first
        yield from frames

    def _decode(self, data: bytes) -> Image | None:
        try:
            return read_image(data, self._max_megapixels)
        except PosezooError:
            self._undecodable += 1
            return None


def _seen(index: int, image_rgb: Image, time_s: float) -> Decoded:
    return Decoded(index, time_s, lambda: image_rgb)


def _wanted(frames: Decoder | Iterator[Decoded], span: Span, name: str) -> Iterator[Frame]:
    """Those of a span; one that turns out to be damaged is left out.

    Raises:
        PosezooError: the span starts after the last frame.
    """
    chooser = Chooser(span)
    last: Decoded | None = None
    for last in frames:
        index, time_s = last.index, last.time_s
        if chooser.over(index, time_s):
            return
        if chooser.takes(index, time_s):
            image = last.to_rgb()
            if image is not None:
                yield Frame(image, index, time_s, name)
    if last is not None and not chooser.started:
        seconds = "" if last.time_s is None else f", at {last.time_s:.1f} s"
        raise PosezooError(f"{name} ends before the start: its last frame is {last.index}f{seconds}")


def open_source(
    spec: str | os.PathLike[str],
    *,
    start: str | float | None = None,
    end: str | float | None = None,
    every: int = 1,
    max_megapixels: float | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Source:
    """Open what `spec` names.

    Args:
        spec: a picture, a folder of them, a glob, a list file (.txt: a path a line, from the list's folder or the
            present one; # comments), a video or an animated GIF, a camera (webcam:0, or just 0), the address of a
            stream (rtsp://..., http://...), or - for JPEG and PNG pictures from stdin.
        start: the first frame wanted: seconds, a clock (1:02:03.5) or a frame (120f).
        end: the first frame no longer wanted.
        every: take the first frame and then every so many.
        max_megapixels: refuse larger pictures, see `posezoo.media.images.read_image`.
        timeout_s: how long a camera or a stream may be silent.

    Raises:
        PosezooError: no such thing, or not to be read; one line says why.
    """
    name, span = os.fspath(spec), make_span(start, end, every)
    if name == "-":
        return PipedPictures(span, sys.stdin.buffer, max_megapixels)
    if _ADDRESS.match(name) and not name.lower().startswith("file://"):
        if name.partition("?")[0].lower().endswith(SUFFIXES):  # FFmpeg would make a video of it
            raise PosezooError(f"{name} is a picture, and of addresses only videos and streams are read: download it")
        return Stream(name, span, timeout_s)
    path = Path(os.path.expanduser(name.removeprefix("file://")))
    if not os.path.exists(path):  # Path raises where no file can have the name
        camera = _CAMERA.fullmatch(name)
        if camera:
            return Camera(int(camera[1]), span, timeout_s)
        if not glob.has_magic(name):
            raise PosezooError(f"no such file: {path}{_similar(path)}")
    elif path.is_file() and not _is_picture(path):
        if path.suffix.lower() == ".txt":
            paths, failed = read_list(path)
            return PictureFiles(name, span, paths, failed, max_megapixels)
        return VideoFile(os.fspath(path), span)
    return PictureFiles(name, span, find_images(os.fspath(path)), [], max_megapixels)


def _is_picture(path: Path) -> bool:
    """By the first bytes; by the suffix where those are no known ones, so that the error is about a picture."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
            kind = sniff(start)
            if kind == "GIF":
                return not _is_animated(start + file.read(1 << 25))
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    return kind is not None or is_heif(start) or path.suffix.lower() in SUFFIXES


def _is_animated(data: bytes) -> bool:
    """Whether a GIF has more than one frame, each of which starts with a graphic control extension."""
    return len(re.findall(rb"\x21\xf9\x04....\x00[\x2c\x21]", data, re.DOTALL)) > 1


def list_entries(path: Path) -> list[str]:
    """What a list file has on its lines, but for empty ones and # comments.

    Raises:
        PosezooError: the file cannot be read, is not text, or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise PosezooError(f"cannot read {path}: a list is a text file (UTF-8) with a path a line") from None
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        raise PosezooError(f"the list {path} has no entries; it needs a path a line")
    return entries


def read_list(path: Path) -> tuple[list[Path], list[Failure]]:
    """The pictures that a list file names, each once, and the entries that name none.

    Raises:
        PosezooError: the file cannot be read, is not text, or not one of its entries exists.
    """
    found: dict[Path, Path] = {}
    failed: list[Failure] = []
    entries = list_entries(path)
    for entry in entries:
        beside = path.parent / os.path.expanduser(entry)
        try:
            given = beside if os.path.exists(beside) or glob.has_magic(entry) else Path(entry)
            for each in find_images(os.fspath(given)):
                found.setdefault(each.resolve(), each)
        except PosezooError as err:
            failed.append(Failure(entry, err))
    if not found:
        raise PosezooError(f"none of the {len(entries)} entries of the list {path} can be used: {failed[0].error}")
    return list(found.values()), failed
