"""Picture files through an estimator: read in threads ahead of it, and none that is bad stops the others."""

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


@contextmanager
def estimate_files(
    estimator: Estimator,
    paths: Sequence[PathLike],
    boxes_xyxy: Sequence[BoxesLike] | None = None,
    *,
    look_ahead: int = LOOK_AHEAD,
    max_megapixels: float | None = None,
) -> Iterator[Iterator[Found]]:
    """What an estimator finds in each of the files, in their order, as the value of a `with` statement.

    Args:
        estimator: runs in the thread that asks for the next result.
        paths: any number of them.
        boxes_xyxy: for each path (N, 4) boxes, or None to run the detector.
        look_ahead: how many pictures are to share batches, see `Estimator.stream`; at least `LOOK_AHEAD` and at most
            `MOST_AHEAD` do. While those are looked at, as many again are read.
        max_megapixels: refuse larger pictures, see `posezoo.media.images.read_image`.
    """
    look_ahead = min(max(look_ahead, LOOK_AHEAD), MOST_AHEAD)
    most = 2 * look_ahead
    opening = partial(_attempt, partial(open_image, max_megapixels=max_megapixels))
    given = [None] * len(paths) if boxes_xyxy is None else boxes_xyxy
    with (
        one_opencv_thread(),
        Ahead(opening, paths, _file_bytes, most=most) as opened,
        Ahead(_decode, opened, _picture_bytes, most=most) as pictures,
    ):
        yield _estimate(estimator, zip(pictures, given, strict=True), look_ahead)


def _estimate(
    estimator: Estimator, pictures: Iterable[tuple[Picture | PosezooError, BoxesLike]], look_ahead: int
) -> Iterator[Found]:
    """The estimator sees the readable pictures only; the others take their places again among what it found."""
    waiting: deque[Picture | PosezooError] = deque()
    given: deque[BoxesLike] = deque()

    def readable() -> Iterator[Picture]:
        for picture, boxes in pictures:
            waiting.append(picture)
            if isinstance(picture, Picture):
                given.append(boxes)
                yield picture

    def unreadable() -> Iterator[Found]:
        while waiting and isinstance(waiting[0], PosezooError):
            yield Found(None, waiting.popleft())  # type: ignore[arg-type]

    boxes = (given.popleft() for _ in repeat(None))  # those of a picture are asked for right after it
    for poses in estimator.stream(readable(), boxes, look_ahead):
        yield from unreadable()
        yield Found(waiting.popleft(), poses)  # type: ignore[arg-type]
    yield from unreadable()


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
