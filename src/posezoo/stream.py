"""Pictures and frames through an estimator: read in threads ahead of it, and none that is bad stops the others."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import NamedTuple, TypeVar

from posezoo.errors import PosezooError
from posezoo.estimator import LOOK_AHEAD, BoxesLike, Estimator
from posezoo.media.ahead import Ahead, one_opencv_thread
from posezoo.media.images import Encoded, Picture, open_image
from posezoo.media.sources import LIVE, Frame, Source, VideoFile
from posezoo.stopwatch import Watch, charged, timed, unwatched
from posezoo.types import Poses

MOST_AHEAD = 64

PathLike = str | os.PathLike[str]
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class Found(NamedTuple):
    """What became of one file.

    Attributes:
        picture: what was read; None where it could not be.
        poses: the people in it, or why it could not be read.
    """

    picture: Picture | None
    poses: Poses | PosezooError


def ahead_of(batch_size: int) -> int:
    """How many pictures are to share batches of so many people: with a person in each they fill one."""
    return min(max(batch_size, LOOK_AHEAD), MOST_AHEAD)


@contextmanager
def estimate_files(
    estimator: Estimator,
    paths: Sequence[PathLike],
    boxes_xyxy: Sequence[BoxesLike] | None = None,
    *,
    look_ahead: int = LOOK_AHEAD,
    opening: Callable[[PathLike], Encoded] = open_image,
    watch: Watch = unwatched,
) -> Iterator[Iterator[Found]]:
    """What an estimator finds in each of the files, in their order, as the value of a `with` statement.

    Args:
        estimator: runs in the thread that asks for the next result.
        paths: any number of them.
        boxes_xyxy: for each path (N, 4) boxes, or None to run the detector.
        look_ahead: how many pictures are to share batches, see `Estimator.stream`; at least `LOOK_AHEAD` and at most
            `MOST_AHEAD` do. While those are looked at, as many again are read.
        opening: reads a file, and says what is wrong with it.
        watch: is told of the steps "read", "decode image", "wait for reading" and "crop".
    """
    look_ahead = ahead_of(look_ahead)
    most = 2 * look_ahead
    reading = charged(watch, "read", partial(_attempt, opening))
    decoding = charged(watch, "decode image", _decode)
    given = [None] * len(paths) if boxes_xyxy is None else boxes_xyxy
    with (
        one_opencv_thread(),
        Ahead(reading, paths, _file_bytes, most=most) as opened,
        Ahead(decoding, opened, _picture_bytes, most=most) as pictures,
    ):
        read = timed(watch, "wait for reading", pictures)
        yield timed(watch, "crop", _estimate(estimator, zip(read, given, strict=True), look_ahead))


def _estimate(
    estimator: Estimator, pictures: Iterable[tuple[Picture | PosezooError, BoxesLike]], look_ahead: int
) -> Iterator[Found]:
    found = estimate_some(estimator, pictures, lambda each: _readable(each[0]), look_ahead, lambda each: each[1])
    for (picture, _), poses in found:
        yield Found(_readable(picture), picture if poses is None else poses)  # type: ignore[arg-type]


def _readable(picture: Picture | PosezooError) -> Picture | None:
    return picture if isinstance(picture, Picture) else None


def estimate_some(
    estimator: Estimator,
    items: Iterable[_Given],
    picture_of: Callable[[_Given], Picture | None],
    look_ahead: int,
    boxes_of: Callable[[_Given], BoxesLike] | None = None,
) -> Iterator[tuple[_Given, Poses | None]]:
    """Every item in its order, with the people of its picture; None where it has no picture.

    Args:
        estimator: sees the pictures only.
        items: any number of them.
        picture_of: gives the picture of an item.
        look_ahead: how many pictures are to share batches, see `Estimator.stream`.
        boxes_of: gives the (N, 4) boxes of an item that has a picture, or None to run the detector.
    """
    waiting: deque[_Given] = deque()
    given: deque[BoxesLike] = deque()

    def pictures() -> Iterator[Picture]:
        for item in items:
            waiting.append(item)
            picture = picture_of(item)
            if picture is not None:
                given.append(None if boxes_of is None else boxes_of(item))
                yield picture

    def without() -> Iterator[tuple[_Given, None]]:
        while waiting and picture_of(waiting[0]) is None:
            yield waiting.popleft(), None

    boxes = (given.popleft() for _ in repeat(None))  # those of a picture are asked for right after it
    for poses in estimator.stream(pictures(), boxes, look_ahead):
        yield from without()
        yield waiting.popleft(), poses
    yield from without()


class Feed(Iterator[Frame]):
    """The frames of a source, and what ended it early.

    Attributes:
        error: why the source ended before its end; None as long as it did not.
    """

    def __init__(self, frames: Iterator[Frame], after: int = -1) -> None:
        """Frames up to the number `after` are left out."""
        self.error: PosezooError | None = None
        self._frames, self._after = frames, after

    def __next__(self) -> Frame:
        try:
            for frame in self._frames:
                if frame.index > self._after:
                    return frame
        except PosezooError as err:
            self.error = err
        raise StopIteration


@contextmanager
def read_frames(
    source: Source, *, after: int = -1, most: int = 2 * LOOK_AHEAD, watch: Watch = unwatched
) -> Iterator[Feed]:
    """The frames of a source; those of a file are read ahead of whoever wants them, in a thread.

    Cameras and streams have a thread of their own, and what comes from stdin is taken as it comes.

    Args:
        source: of frames.
        after: the number of the last frame that is not wanted any more.
        most: how many are read ahead at most; the memory for them is bounded too.
        watch: is told of the step "read".
    """
    weight = 0

    def read(_: None) -> Frame | None:
        nonlocal weight
        with watch("read"):
            frame = next(source, None)
        weight = weight if frame is None else frame.image_rgb.nbytes
        return frame

    if not isinstance(source, VideoFile):
        yield Feed(source, after)
        return
    with Ahead(read, repeat(None), lambda _: weight, threads=1, most=most) as frames:
        yield Feed(iter(frames.__next__, None), after)


def estimate_frames(
    estimator: Estimator, source: Source, feed: Iterator[Frame], watch: Watch = unwatched
) -> Iterator[tuple[Frame, Poses]]:
    """The frames of a source with the people in them, in order; frames of a video share batches, a camera's never wait.

    Args:
        estimator: runs in the thread that asks for the next result. A detector that has a method `tell` is told of
            the people of each frame before it sees the next one.
        source: says what kind of frames they are.
        feed: the frames.
        watch: is told of the steps "wait for reading" and "crop".
    """
    tell: Callable[[Poses], None] | None = getattr(estimator.detector, "tell", None)
    waiting: deque[Frame] = deque()

    def pictures() -> Iterator[Picture]:
        for frame in timed(watch, "wait for reading", feed):
            waiting.append(frame)
            yield Picture(frame.image_rgb, f"{frame.name}#{frame.index}")

    look_ahead = 1 if tell or source.kind == LIVE else ahead_of(estimator.batch_size)
    for poses in timed(watch, "crop", estimator.stream(pictures(), look_ahead=look_ahead)):
        if tell:
            tell(poses)
        yield waiting.popleft(), poses


def _attempt(work: Callable[[_Given], _Made], given: _Given) -> _Made | PosezooError:
    try:
        return work(given)
    except PosezooError as err:
        return err


def _decode(opened: Encoded | PosezooError) -> Picture | PosezooError:
    if isinstance(opened, PosezooError):
        return opened
    image = _attempt(Encoded.decode, opened)
    return image if isinstance(image, PosezooError) else Picture(image, opened.name)


def _file_bytes(path: PathLike) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # which opening it will tell of
        return 0


def _picture_bytes(opened: Encoded | PosezooError) -> int:
    return 0 if isinstance(opened, PosezooError) else opened.decoded_bytes
