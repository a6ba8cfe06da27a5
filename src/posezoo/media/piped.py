"""Pictures one after another from a pipe: where each ends is found in the data itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from posezoo.errors import PosezooError
from posezoo.media.headers import _JPEG_NEXT_MARKER

MAX_BYTES = 256_000_000
_CHUNK = 1 << 18
_VIDEO = re.compile(rb"....ftyp(?!hei|hev|mif|msf|avi)|RIFF....AVI |\x1a\x45\xdf\xa3", re.DOTALL)  # but HEIC and AVIF
_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")


class _EndOfData(Exception):
    """The pipe was closed."""


class PictureSplitter:
    """The files of JPEG and PNG pictures that were written one after another, as an iterator of bytes.

    Attributes:
        skipped: stretches of data that belong to no picture, and pictures that were cut off.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.skipped = 0
        self._stream, self._data = stream, bytearray()

    def __iter__(self) -> Iterator[bytes]:
        self._check_no_video()
        while True:
            try:
                self._find_start()
                end = self._jpeg_end() if self._data[0] == 0xFF else self._png_end()
            except _EndOfData:
                self.skipped += bool(self._data)
                return
            yield bytes(self._data[:end])
            del self._data[:end]

    def _need(self, count: int) -> None:
        """Have this many bytes at least."""
        if count > MAX_BYTES:
            raise PosezooError(f"a picture from stdin is larger than {MAX_BYTES // 1_000_000} MB, or damaged")
        while len(self._data) < count:
            # what is there is taken at once: a slow camera's picture is not held back until the next one
            chunk = getattr(self._stream, "read1", self._stream.read)(_CHUNK)
            if not chunk:
                raise _EndOfData
            self._data += chunk

    def _check_no_video(self) -> None:
        """A video's bytes are told now: what looks like a picture somewhere in them is none."""
        with suppress(_EndOfData):
            self._need(12)
        if _VIDEO.match(self._data):
            raise PosezooError(
                "stdin is a video, and - takes pictures one after another: "
                "ffmpeg -i clip.mp4 -f image2pipe -c:v mjpeg - | posezoo predict -"
            )

    def _find_start(self) -> None:
        """Drop what comes before the next picture."""
        lost = False
        while True:
            self._need(8)
            found = _START.search(self._data)
            if found:
                lost |= found.start() > 0
                del self._data[: found.start()]
                self.skipped += lost
                return
            lost = True
            del self._data[:-7]

    def _jpeg_end(self) -> int:
        at = 2
        while True:
            found = _JPEG_NEXT_MARKER.search(self._data, at)
            if found is None:
                at = max(at, len(self._data) - 1)  # the last byte may be the first of a marker
                self._need(len(self._data) + 1)
                continue
            marker, at = found[1][0], found.end()
            if marker == 0xD9:
                return at
            if marker != 0x01:
                self._need(at + 2)
                at += int.from_bytes(self._data[at : at + 2], "big")
                self._need(at)

    def _png_end(self) -> int:
        at = 8
        while True:
            self._need(at + 8)
            kind = bytes(self._data[at + 4 : at + 8])
            at += 12 + int.from_bytes(self._data[at : at + 4], "big")
            self._need(at)
            if kind == b"IEND":
                return at
