"""Headers that lie: two sizes in a file, huge tiles, and what is there where a header has passed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.media import read_image
from posezoo.media.headers import read_header
from posezoo.media.images import check_megapixels, limit_decoder
from test_media import SUFFIXES, encoded, photo, png_chunk, png_of


def second_frame_header(place: str, size_wh: tuple[int, int], kind: str = "plain") -> bytes:
    """A JPEG of 640x480 with another frame header in it."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if kind == "progressive" else []
    data = cv2.imencode(".jpg", photo(640, 480), options)[1].tobytes()
    at = data.index(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0")
    other = bytearray(data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")])
    other[5:9] = struct.pack(">HH", *size_wh[::-1])
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    put = {"first": at, "before the scan": scans[0], "between scans": scans[-1], "after the scan": len(data) - 2}[place]
    return data[:put] + bytes(other) + data[put:]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("first", "plain"), ("before the scan", "plain"), ("after the scan", "plain")),
        ("between scans", "progressive"),
    ],
)
def test_a_jpeg_of_two_sizes_is_refused(place: str, kind: str) -> None:
    with pytest.raises(PosezooError, match="JPEG header is cut off or damaged"):
        read_header(second_frame_header(place, (64, 64), kind))
    header = read_header(second_frame_header(place, (640, 480), kind))  # the same size twice fools nobody
    assert (header.width, header.height) == (640, 480)


def tiff_of(*entries: tuple[int, int, int], order: str = "<") -> bytes:
    """A grey TIFF of 100x80 pixels with these (tag, type, value) before, or instead of, its own."""
    pixels = zlib.compress(b"\x7f" * 8000)
    own = [(256, 4, 100), (257, 4, 80), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 80)]
    own += [(279, 4, len(pixels))]
    rows = sorted([*entries, *own], key=lambda entry: entry[0])
    sizes = {1: "Bxxx", 3: "Hxx", 4: "I", 9: "i", 16: "I"}
    body = b"".join(struct.pack(f"{order}HHI{sizes[kind]}", tag, kind, 1, value) for tag, kind, value in rows)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(pixels)) + pixels
    return start + struct.pack(order + "H", len(rows)) + body + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_two_sizes_or_with_a_huge_tile_is_refused(order: str) -> None:
    assert read_image(tiff_of(order=order)).shape == (80, 100, 3)
    for wrong in (
        *([(256, 4, 20)], [(257, 4, 20)], [(256, 3, 100)], [(256, 9, 20)], [(257, 16, 20)], [(256, 1, 20)]),
        [(322, 4, 16384), (323, 4, 16000)],
    ):
        with pytest.raises(PosezooError, match="TIFF header is cut off or damaged"):
            read_header(tiff_of(*wrong, order=order))
    tiled = read_header(tiff_of((322, 4, 512), (323, 4, 512), order=order))  # larger than the picture, as many are
    assert (tiled.width, tiled.height) == (100, 80)


def test_a_png_has_its_size_first() -> None:
    data = png_of(8, 8)
    with pytest.raises(PosezooError, match="PNG header is cut off or damaged"):
        read_header(data[:8] + png_chunk(b"tEXt", struct.pack(">II", 4, 4) + b"author") + data[8:])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pixels_that_are_not_of_the_size_told_are_refused(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(PosezooError, match="header gives 64x48, the data 9x9"):
        read_image(encoded(photo(), suffix))


def test_the_decoder_has_the_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from posezoo.media import images
images.limit_decoder(0.01)
import cv2, numpy
print(cv2.imdecode(numpy.frombuffer(cv2.imencode(".png", numpy.zeros((90, 90), "u1"))[1], "u1"), -1).shape)
try:
    cv2.imdecode(numpy.frombuffer(cv2.imencode(".png", numpy.zeros((110, 110), "u1"))[1], "u1"), -1)
except cv2.error:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["(90, 90)", "refused"], done.stderr
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS", raising=False)
    limit_decoder(1)  # too late: OpenCV is here, and what is started from here is another's
    assert "OPENCV_IO_MAX_IMAGE_PIXELS" not in os.environ
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(PosezooError, match="max-megapixels must be a number above 0, but is"):
            check_megapixels(wrong)
