"""Cameras and streams: read in a thread, so that one which falls silent is given up instead of waited for."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.media.video import TIMEOUT_S

Image = NDArray[np.uint8]
Item = TypeVar("Item")
_DAMAGED_IN_A_ROW, _DAMAGED_S = 30, 2.0


class Watched(Generic[Item]):
    """The items of an iterator that is run in a thread of its own; at most two of them wait.

    The thread may hang in the operating system for ever: it is left behind then, and keeps no program from ending.
    """

    def __init__(
        self, items: Callable[[], Iterator[Item]], what: str, *, timeout_s: float = TIMEOUT_S, newest: bool = False
    ) -> None:
        """Start to read.

        Args:
            items: called in the thread.
            what: what is read, for the messages.
            timeout_s: how long one item may take.
            newest: drop those that nobody asked for in time: what a camera shows is to be what is there now.
        """
        self.dropped = 0
        self._items, self._what, self._timeout_s, self._newest = items, what, timeout_s, newest
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(2)
        self._stopping = threading.Event()
        self._given = 0
        self._thread = threading.Thread(target=self._read, name="posezoo-live", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._stopping.is_set():
            raise StopIteration
        try:
            kind, value = self._queue.get(timeout=self._timeout_s)
        except queue.Empty:
            self._stopping.set()
            when = f"after {self._given} frames" if self._given else "from the start"
            raise PosezooError(f"{self._what} is silent {when}: nothing for {self._timeout_s:g} s") from None
        if kind == "item":
            self._given += 1
            return value  # type: ignore[no-any-return]
        self._stopping.set()
        if kind == "error":
            raise value
        raise StopIteration

    def stop(self, wait_s: float = 1.0) -> bool:
        """Have the thread end; wait for it no longer than `wait_s`. Whether it has ended."""
        self._stopping.set()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            for item in self._items():
                if not self._put(("item", item), self._newest):
                    return
            self._put(("end", None), False)
        except Exception as err:  # whatever it is, it is raised where the items are asked for
            self._put(("error", err), False)

    def _put(self, message: tuple[str, Any], newest: bool) -> bool:
        while not self._stopping.is_set():
            try:
                self._queue.put(message, timeout=0 if newest else 0.1)
                return True
            except queue.Full:
                if newest:
                    self._drop_one()
        return False

    def _drop_one(self) -> None:
        try:
            self._queue.get_nowait()
            self.dropped += 1
        except queue.Empty:
            return


def camera_frames(number: int, open_capture: Callable[[int], Any] | None = None) -> Iterator[tuple[Image, float]]:
    """What a camera sees: pictures and the seconds since the first one, until it is unplugged.

    Args:
        number: as the system counts cameras, from 0.
        open_capture: makes the object that reads it; None: OpenCV's.

    Raises:
        PosezooError: there is no such camera, it is in use, or it stopped.
    """
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said once, by us
    try:
        capture = (open_capture or cv2.VideoCapture)(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            raise PosezooError(f"cannot open the camera {number}: there is none, or another program uses it")
        began: float | None = None
        given = bad = 0
        now = last = time.monotonic()
        while bad < _DAMAGED_IN_A_ROW and now - last < _DAMAGED_S:
            done, bgr = capture.read()
            now = time.monotonic()
            if not done or bgr is None:
                bad += 1
                time.sleep(0.01)  # an unplugged one answers at once, and wrongly, for ever
                continue
            began, last, bad, given = now if began is None else began, now, 0, given + 1
            yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), now - began
        when = f"stopped after {given} frames" if given else "gives no pictures"
        raise PosezooError(f"the camera {number} {when}: it was unplugged, or another program took it")
    finally:
        capture.release()
