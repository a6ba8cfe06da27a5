"""Video decoding: a file or a stream becomes its frames, upright RGB with their own times, one by one as asked for.

PyAV decodes where it is installed (the extra `video`): it tells damaged frames, and the exact time of each. OpenCV,
which is always there, decodes otherwise. A frame that is not wanted is decoded, since later ones build on it, but never
converted to RGB.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.media.headers import FORMATS
from posezoo.words import counted

Image = NDArray[np.uint8]
TIMEOUT_S = 10.0
_DAMAGED_IN_A_ROW = 1000  # a reader that meets nothing else is no longer reading a video
_TOO_FAST = 1000  # frames a second: some files have the ticks of their clock there
_TRIES = 30  # where it is not known how many frames there are
_MP4_BOXES = frozenset([b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof"])


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame before its colours are computed.

    Attributes:
        index: its number in the video, from 0; frames that could not be decoded count.
        time_s: seconds since the first frame; None where the file does not say.
        to_rgb: makes the (H, W, 3) uint8 RGB picture, upright; None where it is damaged. Call it before the next frame
            is asked for.
    """

    index: int
    time_s: float | None
    to_rgb: Callable[[], Image | None]


class Decoder(Protocol):
    """A video that is being read.

    Attributes:
        fps: frames a second, on average; None where unknown.
        size_wh: of the upright frames.
        total: how many frames the file says it has; None where it does not.
        skipped: frames that were damaged, so far.
    """

    fps: float | None
    size_wh: tuple[int, int]
    total: int | None
    skipped: int

    def __iter__(self) -> Iterator[Decoded]: ...

    def close(self) -> None:
        """Let go of the file."""


def open_decoder(name: str, timeout_s: float | None = None, backend: str = "auto") -> Decoder:
    """Open a video file or a stream's address; the first frame has been decoded when it returns.

    Args:
        name: a path, or an address that FFmpeg opens.
        timeout_s: how long a stream may be silent; None for files.
        backend: "pyav", "opencv", or "auto": PyAV where it is installed.

    Raises:
        PosezooError: not a video, a video without frames, an audio file, a file cut off before its index, or a stream
            that does not answer; the message names it.
    """
    if backend == "auto":
        backend = "opencv" if importlib.util.find_spec("av") is None else "pyav"
    return (_PyavDecoder if backend == "pyav" else _OpencvDecoder)(name, timeout_s)


class _PyavDecoder:
    def __init__(self, name: str, timeout_s: float | None) -> None:
        import av

        self.name, self.skipped, self._index, self._timeout_s = name, 0, 0, timeout_s
        try:
            self._container = av.open(name, timeout=timeout_s, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as err:
            raise _not_opened(name, _reason(err, timeout_s)) from None
        try:
            streams = [s for s in self._container.streams.video if not _is_cover(s)]
            if not streams:
                has_sound = bool(self._container.streams.audio)
                raise PosezooError(f"cannot read {name}: it has {'sound but ' if has_sound else ''}no video")
            self._stream = streams[0]
            self._stream.thread_type = "AUTO"
            self._frames = self._decode()
            self._ahead = next(self._frames, None)
            if self._ahead is None:
                raise _no_frames(name)
            self._origin = self._ahead[1].time
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.fps = _believed(rate)
            self.total = self._stream.frames or _by_duration(self._stream.duration, self._stream.time_base, rate)
            width, height = self._ahead[1].width, self._ahead[1].height
            self.size_wh = (height, width) if _quarter_turns(self._ahead[1]) % 2 else (width, height)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Decoded]:
        while self._ahead is not None:
            (index, frame), self._ahead = self._ahead, None
            time_s = frame.time
            if time_s is not None and self._origin is not None:
                time_s -= self._origin
            elif self.fps:
                time_s = index / self.fps
            yield Decoded(index, time_s, lambda frame=frame: _upright(frame))  # type: ignore[misc]
            self._ahead = next(self._frames, None)
        _check_whole(self.name, self._index - self.skipped)

    def _decode(self) -> Iterator[tuple[int, Any]]:
        """Frames that are whole, with their numbers; the others are counted."""
        in_a_row = 0
        packets = self._container.demux(self._stream)
        while True:
            import av

            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except (av.InvalidDataError, av.PatchWelcomeError):
                self.skipped, self._index, in_a_row = self.skipped + 1, self._index + 1, in_a_row + 1
                if in_a_row >= _DAMAGED_IN_A_ROW:
                    raise PosezooError(f"{self.name} is damaged: {in_a_row} frames in a row") from None
                continue
            except av.EOFError:
                return
            except (av.FFmpegError, OSError) as err:
                raise _stopped(self.name, self._index, _reason(err, self._timeout_s)) from None
            if packet is None:
                return
            for frame in frames:
                in_a_row, index = 0, self._index
                self._index += 1
                if frame.is_corrupt:
                    self.skipped += 1
                else:
                    yield index, frame

    def close(self) -> None:
        self._container.close()


class _OpencvDecoder:
    def __init__(self, name: str, timeout_s: float | None) -> None:
        import cv2

        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said once, by us
        self.name, self.skipped, self._index = name, 0, 0
        options = [] if timeout_s is None else [int(1000 * timeout_s)]
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, *options, cv2.CAP_PROP_READ_TIMEOUT_MSEC, *options]
        self._timeout_s, self._silent_s = timeout_s, 0.0
        try:
            self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits if options else [])
        except cv2.error as err:
            raise _not_opened(name, str(err.err)) from None
        if not self._capture.isOpened():
            raise _not_opened(name, "no answer, or nothing that FFmpeg reads")
        self._ready = self._capture.grab()
        if not self._ready:
            self.close()
            raise _no_frames(name)
        rate, total = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = _believed(rate)
        self.total = int(total) if 0 < total < 1e9 else None
        self.size_wh = (
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        self._origin = self._capture.get(cv2.CAP_PROP_POS_MSEC)

    def __iter__(self) -> Iterator[Decoded]:
        import cv2

        last_ms = -1.0
        while self._ready:
            self._ready = False
            at_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC) - self._origin
            known = at_ms > last_ms
            last_ms = max(last_ms, at_ms)
            time_s = at_ms / 1000 if known else self._index / self.fps if self.fps else None
            yield Decoded(self._index, time_s, self._retrieve)
            self._index += 1
            self._ready = self._grab()
        self._check_end()

    def _check_end(self) -> None:
        """OpenCV does not tell a stream that broke off, or fell silent, from one that ended."""
        if self._timeout_s is None:
            _check_whole(self.name, self._index - self.skipped)
        elif self._gave_up():
            raise _stopped(self.name, self._index, _silence(self._timeout_s))
        elif self.total is not None and self._index < 0.95 * self.total:
            raise _stopped(self.name, self._index, f"there should be about {self.total}")

    def _grab(self) -> bool:
        """Whether there is a next frame; those damaged before it are counted, since OpenCV goes on when asked again."""
        left = _TRIES if self.total is None else self.total - self._index
        for damaged in range(min(max(left, 1), _DAMAGED_IN_A_ROW)):
            before = time.monotonic()
            done = self._capture.grab()
            self._silent_s = max(self._silent_s, time.monotonic() - before)
            if done:
                self.skipped, self._index = self.skipped + damaged, self._index + damaged
                return True
            if self._gave_up():
                break
        return False

    def _gave_up(self) -> bool:
        """Whether FFmpeg waited until the timeout; a few frames that it had already may still come."""
        return self._timeout_s is not None and self._silent_s >= 0.9 * self._timeout_s

    def _retrieve(self) -> Image | None:
        import cv2

        done, bgr = self._capture.retrieve()
        if not done or bgr is None:
            self.skipped += 1
            return None
        if bgr.ndim == 2 or bgr.shape[2] == 1:
            return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB))
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr))  # in place: the array is ours

    def close(self) -> None:
        self._capture.release()


def _is_cover(stream: Any) -> bool:
    """A picture of the sleeve in an audio file is no video."""
    return "attached_pic" in str(stream.disposition).lower()


def _believed(rate: Fraction | float | None) -> float | None:
    """Frames a second as a file says them; None for what is a clock's ticks, or nothing."""
    return float(rate) if rate and 0 < rate < _TOO_FAST else None


def _by_duration(duration: int | None, time_base: Fraction | None, rate: Fraction | None) -> int | None:
    return round(duration * time_base * rate) if duration and time_base and rate else None


def _quarter_turns(frame: Any) -> int:
    """How often a frame is to be turned by 90 degrees against the clock to stand upright."""
    return round(frame.rotation / 90) % 4


def _upright(frame: Any) -> Image:
    image = frame.to_ndarray(format="rgb24")
    turns = _quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _reason(error: Exception, timeout_s: float | None) -> str:
    """What FFmpeg says, but for its own words for a timeout."""
    import av

    if isinstance(error, av.ExitError | av.TimeoutError) and timeout_s is not None:
        return _silence(timeout_s)
    return str(getattr(error, "strerror", None) or error)


def _silence(timeout_s: float) -> str:
    return f"nothing came for {timeout_s:g} s"


def _not_opened(name: str, reason: str) -> PosezooError:
    if "://" in name:
        return PosezooError(f"cannot open the stream {name}: {reason}")
    if Path(name).is_file() and not Path(name).stat().st_size:
        return PosezooError(f"cannot read {name}: the file is empty (0 bytes)")
    if is_cut_off(name):
        return PosezooError(f"cannot read {name}: the file is cut off before its index; copy or record it again")
    return PosezooError(f"cannot read {name}: neither a picture ({', '.join(FORMATS)}) nor a video that FFmpeg reads")


def _no_frames(name: str) -> PosezooError:
    cut = "it is cut off before its first frame" if is_cut_off(name) else "it has no frame that can be decoded"
    return PosezooError(f"cannot read {name}: {cut}")


def _stopped(name: str, frames: int, reason: str) -> PosezooError:
    return PosezooError(f"{name} stopped after {counted(frames, 'frame')}: {reason}")


def _check_whole(name: str, frames: int) -> None:
    if is_cut_off(name):
        raise PosezooError(f"{name} is cut off: {counted(frames, 'frame')} could be read; copy or download it again")


def is_cut_off(name: str | os.PathLike[str]) -> bool:
    """Whether an MP4, MOV or AVI file is shorter than it says of itself; False for all others."""
    try:
        path = Path(name)
        size = path.stat().st_size
        with path.open("rb") as file:
            return _cut_off(file, size)
    except (OSError, struct.error, ValueError):
        return False


def _cut_off(file: Any, size: int) -> bool:
    start = file.read(12)
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return int.from_bytes(start[4:8], "little") + 8 > size
    if start[4:8] not in _MP4_BOXES:
        return False
    at, kinds = 0, set()
    while at + 8 <= size:  # ISO 14496-12, 4.2: the boxes of a file, one after the other
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        kinds.add(kind)
        if length == 0:  # up to the end of the file
            break
        if length < 8:
            return False
        at += length
    return at > size or b"moov" not in kinds
