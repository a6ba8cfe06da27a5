"""Video writing: RGB frames become an MP4, an AVI or a GIF that can be played, or no file at all.

MP4 is H.264 where PyAV is installed (the extra `video`), and every frame then keeps its own time. OpenCV, which is
always there, writes MPEG-4 part 2 instead, which most players but few browsers show. It and AVI have a steady rate: a
frame is repeated until the time of the next one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.files import atomic_path
from posezoo.media.images import check_image

Image = NDArray[np.uint8]
SUFFIXES = (".mp4", ".avi", ".gif")
_CLOCK = 90_000  # ticks a second: exact for 24, 25, 30, 50 and 60 frames a second
_LEAST_FREE = 2_000_000  # bytes
_MOST_REPEATED_S = 60.0  # no gap is stretched further: a camera's clock may jump


class _Encoder(Protocol):
    def write(self, image_rgb: Image, time_s: float) -> None: ...

    def finish(self) -> None: ...


class VideoWriter:
    """Frames into a video file, as a context manager; nothing is at `path` before it is whole.

    A `with` block that is left early, by Ctrl-C too, leaves a video of the frames so far; one without a frame, or whose
    writing failed, leaves nothing.

    Example:
        >>> with VideoWriter("out.mp4", (640, 480), fps=25) as video:
        ...     video.add(image_rgb)
    """

    def __init__(
        self, path: str | os.PathLike[str], size_wh: tuple[int, int], fps: float, backend: str = "auto"
    ) -> None:
        """Open the file.

        Args:
            path: its suffix is one of `SUFFIXES`.
            size_wh: of every frame; odd sizes get one more column or row where the format needs even ones.
            fps: of the frames that come without a time of their own.
            backend: "pyav", "opencv", or "auto": PyAV where it is installed.

        Raises:
            PosezooError: an unknown suffix, an impossible size or rate, or a place that cannot be written.
        """
        self.path, self.size_wh, self.fps = Path(path), (int(size_wh[0]), int(size_wh[1])), float(fps)
        self.frames = 0
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise PosezooError(f"cannot write {self.path}: its suffix must be one of {' '.join(SUFFIXES)}")
        if min(self.size_wh) < 1 or max(self.size_wh) > 16384:
            raise PosezooError(f"cannot write {self.path}: a frame of {size_wh[0]}x{size_wh[1]} pixels")
        if not 0 < self.fps <= 1000:
            raise PosezooError(f"cannot write {self.path}: {fps:g} frames a second; give 1000 at most, more than 0")
        self._last_s: float | None = None
        self._open = True
        self._place: AbstractContextManager[Path] = atomic_path(self.path)
        self._temporary = self._place.__enter__()
        try:
            self._encoder = _open_encoder(self._temporary, self.size_wh, self.fps, backend)
        except (OSError, ValueError) as err:
            self._fail(err)
        except BaseException as err:
            self._abandon(err)
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:  # the error that ends the block is the one to be told of
            with suppress(PosezooError):
                self.close()

    def add(self, image_rgb: Image, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            image_rgb: (H, W, 3) uint8 of the writer's size.
            time_s: when it is shown, by any clock that runs forward; None: 1 / fps after the one before.

        Raises:
            PosezooError: another size, or the disk is full.
        """
        if not self._open:
            raise PosezooError(f"cannot write {self.path}: it is closed")
        height, width = check_image(image_rgb).shape[:2]
        if (width, height) != self.size_wh:
            given, wanted = f"{width}x{height}", f"{self.size_wh[0]}x{self.size_wh[1]}"
            raise PosezooError(f"cannot write {self.path}: a frame of {given} pixels among those of {wanted}")
        at = self._at(time_s)
        if self.frames % 32 == 0:
            self._check_room()
        try:
            self._encoder.write(image_rgb, at)
        except (OSError, ValueError) as err:
            self._fail(err)
        self.frames += 1

    def close(self) -> None:
        """Finish the file and put it in its place.

        Raises:
            PosezooError: it could not be written to its end, for instance on a full disk; nothing is left of it then.
        """
        if not self._open:
            return
        if self.frames == 0:
            self._abandon(PosezooError("no frames"))
            return
        try:
            self._encoder.finish()
            self._check_whole()
        except (OSError, ValueError) as err:
            self._fail(err)
        except BaseException as err:
            self._abandon(err)
            raise
        self._open = False
        self._place.__exit__(None, None, None)

    def _at(self, time_s: float | None) -> float:
        """The frame's time from the first one on; a clock that stands still or runs back is not believed."""
        if self._last_s is None:
            self._origin = time_s or 0.0
            self._last_s = 0.0
        elif time_s is None or time_s - self._origin <= self._last_s:
            self._last_s += 1 / self.fps
        else:
            self._last_s = time_s - self._origin
        return self._last_s

    def _check_room(self) -> None:
        try:
            free = shutil.disk_usage(self._temporary.parent).free
        except OSError:
            return
        if free < _LEAST_FREE:
            self._fail(OSError(28, "No space left on device"))

    def _check_whole(self) -> None:
        """An encoder may not say that the disk was full; the file does."""
        from posezoo.media.video import is_cut_off

        if self._temporary.stat().st_size == 0 or is_cut_off(self._temporary):
            raise OSError(28, "No space left on device, or a limit on the size of files was reached")

    def _fail(self, error: OSError | ValueError) -> None:
        wrong = PosezooError(f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}")
        self._abandon(wrong)
        raise wrong from None

    def _abandon(self, error: BaseException) -> None:
        self._open = False
        encoder = getattr(self, "_encoder", None)
        if encoder is not None:
            with suppress(OSError, ValueError):
                encoder.finish()
        with suppress(type(error)):
            self._place.__exit__(type(error), error, None)


def _open_encoder(path: Path, size_wh: tuple[int, int], fps: float, backend: str) -> _Encoder:
    suffix = path.suffix.lower()
    if suffix == ".gif":
        return _Gif(path, size_wh, fps)
    if backend == "auto":
        backend = "opencv" if suffix == ".avi" or importlib.util.find_spec("av") is None else "pyav"
    return _Pyav(path, size_wh, fps) if backend == "pyav" and suffix == ".mp4" else _Opencv(path, size_wh, fps)


class _Pyav:
    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        import av

        self._av = av
        # the index goes to the front, so that a browser need not have the whole file
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = _even(size_wh[0]), _even(size_wh[1]), "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _CLOCK)
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            stream.codec_context.qmin, stream.codec_context.qmax = 2, 6
        self._stream = stream
        self._failed = False
        with self._telling():
            self._container.start_encoding()  # the header is written now: PyAV crashes where a later call fails at it
        self._last = -1
        self._step = max(1, round(_CLOCK / fps))

    def write(self, image_rgb: Image, time_s: float) -> None:
        frame = self._av.VideoFrame.from_ndarray(_padded(image_rgb), format="rgb24")
        self._last = max(round(time_s * _CLOCK), self._last + 1)
        frame.pts, frame.time_base, frame.duration = self._last, Fraction(1, _CLOCK), self._step
        with self._telling():
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        with self._telling():
            try:
                if not self._failed:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Not all of its errors are the system's."""
        try:
            yield
        except self._av.FFmpegError as err:
            self._failed = True
            raise OSError(err.errno, err.strerror) from None


class _Opencv:
    """A steady rate: the frame before is repeated until it is time for the next one."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        import cv2

        self._fps, self._size = fps, (_even(size_wh[0]), _even(size_wh[1]))
        self._before: Image | None = None
        self._slot = -1
        self._shift = 0
        code = "MJPG" if path.suffix.lower() == ".avi" else "mp4v"
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), fps, self._size)
        if not self._writer.isOpened():
            raise PosezooError(f"OpenCV cannot write {path.suffix} files of {size_wh[0]}x{size_wh[1]} pixels here")

    def write(self, image_rgb: Image, time_s: float) -> None:
        import cv2

        bgr: Any = cv2.cvtColor(_padded(image_rgb), cv2.COLOR_RGB2BGR)
        slot = max(round(time_s * self._fps) - self._shift, self._slot + 1)  # no frame is lost where they come faster
        most = round(_MOST_REPEATED_S * self._fps)
        if slot - self._slot > most:
            self._shift += slot - self._slot - most
            slot = self._slot + most
        while self._before is not None and self._slot < slot - 1:
            self._writer.write(self._before)
            self._slot += 1
        self._writer.write(bgr)
        self._slot, self._before = slot, bgr

    def finish(self) -> None:
        self._writer.release()


class _Gif:
    """Each frame is compressed by OpenCV as a GIF of its own, and its blocks moved into ours: two frames in memory."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        self._file = path.open("wb")
        self._fps = fps
        # GIF89a, 17 and 18: no table of colours for all frames; then the extension that has it play for ever
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", *size_wh, 0x70, 0, 0))
        self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")
        self._waiting: tuple[bytes, int] | None = None

    def write(self, image_rgb: Image, time_s: float) -> None:
        at = round(100 * time_s)  # a GIF counts in hundredths of a second, and players slow down below two
        if self._waiting is not None:
            if at - self._waiting[1] < 2:
                return
            self._put(at - self._waiting[1])
        self._waiting = (_gif_frame(image_rgb), at)

    def _put(self, hundredths: int) -> None:
        assert self._waiting is not None
        self._file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", 0x04, min(hundredths, 65535), 0, 0))
        self._file.write(self._waiting[0])
        self._waiting = None

    def finish(self) -> None:
        try:
            if self._waiting is not None:
                self._put(max(2, round(100 / self._fps)))
                self._file.write(b";")
        finally:
            self._file.close()


def _gif_frame(image_rgb: Image) -> bytes:
    """The image block of a GIF (descriptor, own colours, data) of one picture."""
    import cv2

    # colours chosen for the frame, errors diffused: 32 dB on a photograph, where OpenCV's default has 21
    options = [cv2.IMWRITE_GIF_DITHER, 2]
    done, encoded = cv2.imencode(".gif", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError("OpenCV could not compress a frame as GIF")
    data = encoded.tobytes()
    flags, at = data[10], 13
    size = 3 << (flags & 7) + 1 if flags & 0x80 else 0
    colours = data[at : at + size]
    at += size
    while data[at] == 0x21:  # extensions: only sub-blocks, of which the last is empty
        at = _after_blocks(data, at + 2)
    own = data[at + 9]
    table = at + 10
    if own & 0x80:
        colours, flags = data[table : table + (3 << (own & 7) + 1)], own
        table += len(colours)
    end = _after_blocks(data, table + 1)
    return data[at : at + 9] + bytes([0x80 | own & 0x40 | flags & 7]) + colours + data[table:end]


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _even(length: int) -> int:
    return length + length % 2


def _padded(image_rgb: Image) -> Image:
    """Even sides, since colours are stored for two by two pixels: the last column and row are doubled."""
    height, width = image_rgb.shape[:2]
    if height % 2 or width % 2:
        return np.pad(image_rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image_rgb)
