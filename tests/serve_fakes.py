"""A model for tests of the server where numbers do not matter: quick, and it stops where a test wants it to."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from posezoo.skeletons import get_skeleton
from posezoo.types import Boxes, Poses

SKELETON = get_skeleton("coco17")


class FakeEstimator:
    """One person a box; the joints' x is the mean colour of the picture, so that answers can be told apart.

    Attributes:
        gate: cleared, it holds up whoever asks for people.
        entered: set once somebody has.
        batches: how many pictures each call had.
    """

    def __init__(self, detector: Any, name: str = "fake") -> None:
        self.spec = SimpleNamespace(name=name, skeleton=SKELETON, output="maps", input_size_wh=(192, 256))
        self.skeleton, self.detector, self.flip = SKELETON, detector, False
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.flips: list[bool] = []
        self.fail: Exception | None = None

    def __call__(self, images: Any, boxes: Any) -> None:
        """Warms up nothing."""

    def stream(self, pictures: Iterable[Any], boxes: Iterable[Boxes | None], look_ahead: int) -> Iterator[Poses]:
        pictures, given = list(pictures), list(boxes)
        self.entered.set()
        assert self.gate.wait(20)
        self.batches.append(len(pictures))
        self.flips.append(self.flip)
        if self.fail is not None:
            raise self.fail
        for picture, fixed in zip(pictures, given, strict=True):
            found = self.detector([picture.image_rgb], names=[picture.name])[0] if fixed is None else fixed
            joints = np.zeros((len(found), 17, 2), np.float32) + picture.image_rgb.mean()
            yield Poses(joints, np.ones((len(found), 17)), found.xyxy, found.scores, SKELETON)


def one_person(images_rgb: Any, names: Any = None) -> list[Boxes]:
    """The whole picture each."""
    return [Boxes([[0, 0, image.shape[1], image.shape[0]]], [0.9]) for image in images_rgb]


def picture(shade: int = 100, size_wh: tuple[int, int] = (40, 30), kind: str = ".png") -> bytes:
    """The file of a grey picture."""
    return cv2.imencode(kind, np.full((size_wh[1], size_wh[0], 3), shade, np.uint8))[1].tobytes()


def huge_png(width: int = 100_000, height: int = 100_000) -> bytes:
    """A file of a hundred bytes whose header asks for 30 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
