"""Which frames of a source are wanted: from a time or a frame, up to one, every so many."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from posezoo.errors import PosezooError

_FRAME = re.compile(r"(\d+)f", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Mark:
    """A place in a source: one of the two is given.

    Attributes:
        seconds: from the first frame on.
        frame: counted from 0.
    """

    seconds: float | None = None
    frame: int | None = None

    def reached(self, index: int, time_s: float | None) -> bool:
        """Whether a frame is at or after the place; a microsecond is forgiven, since files round times."""
        if self.frame is not None:
            return index >= self.frame
        return time_s is not None and self.seconds is not None and time_s >= self.seconds - 1e-6

    def as_frame(self, fps: float | None) -> int | None:
        """The frame that it is about at a steady rate; None where the rate is unknown."""
        if self.frame is not None:
            return self.frame
        return None if not fps or self.seconds is None else math.ceil(self.seconds * fps - 1e-6)


def parse_mark(value: str | float | None, option: str) -> Mark | None:
    """A `Mark` from seconds (12.5), a clock (1:02:03.5, 2:03) or a frame (120f); None from None.

    Raises:
        PosezooError: anything else; `option` says which one it was.
    """
    if value is None:
        return None
    text = str(value).strip()
    frame, clock = _FRAME.fullmatch(text), _CLOCK.fullmatch(text)
    if frame:
        return Mark(frame=int(frame[1]))
    if clock and float(clock[3]) < (60 if clock[2] else math.inf) and int(clock[2] or 0) < (60 if clock[1] else 1e9):
        return Mark(seconds=3600 * int(clock[1] or 0) + 60 * int(clock[2] or 0) + float(clock[3]))
    raise PosezooError(f"{option} must be seconds (12.5), a time (1:02:03) or a frame (120f), but is '{value}'")


@dataclass(frozen=True)
class Span:
    """The frames from `start` up to but without `end`, the first of them and then every `every`th."""

    start: Mark | None = None
    end: Mark | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise PosezooError(f"every must be at least 1 (each frame), but is {self.every}")
        for low, high in ((self.seconds(0), self.seconds(1)), (self.frame(0), self.frame(1))):
            if low is not None and high is not None and low >= high:
                raise PosezooError(f"the end ({high:g}) must come after the start ({low:g})")

    def seconds(self, which: int) -> float | None:
        """That of start (0) or end (1)."""
        mark = (self.start, self.end)[which]
        return None if mark is None else mark.seconds

    def frame(self, which: int) -> int | None:
        """That of start (0) or end (1)."""
        mark = (self.start, self.end)[which]
        return None if mark is None else mark.frame

    @property
    def timed(self) -> bool:
        """Whether it asks for times."""
        return self.seconds(0) is not None or self.seconds(1) is not None

    def count(self, total: int | None, fps: float | None) -> int | None:
        """About how many of `total` frames it takes; None where that cannot be known."""
        first = 0 if self.start is None else self.start.as_frame(fps)
        last = total if self.end is None else self.end.as_frame(fps)
        if first is None or last is None or total is None:
            return None
        return max(0, math.ceil((min(last, total) - first) / self.every))


class Chooser:
    """Says of one frame after the other whether a `Span` takes it."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._first: int | None = None

    @property
    def started(self) -> bool:
        """Whether the start was reached."""
        return self._first is not None

    def over(self, index: int, time_s: float | None) -> bool:
        """Whether this frame and all that follow it are after the end."""
        return self._span.end is not None and self._span.end.reached(index, time_s)

    def takes(self, index: int, time_s: float | None) -> bool:
        """Whether this frame, which is not after the end, is wanted."""
        if self._first is None:
            if self._span.start is not None and not self._span.start.reached(index, time_s):
                return False
            self._first = index
        return (index - self._first) % self._span.every == 0


def make_span(start: str | float | None, end: str | float | None, every: int) -> Span:
    """A `Span` of what was typed.

    Raises:
        PosezooError: a place that is none, an end before the start, or an `every` below 1.
    """
    return Span(parse_mark(start, "start"), parse_mark(end, "end"), every)
