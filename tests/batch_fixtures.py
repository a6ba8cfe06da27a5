"""What `posezoo batch` reads: pictures with so many people, and tar files of them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from tiny_networks import picture

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


PLACES = [(2, 2), (6, 3), (8, 1)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def encoded(people: int, suffix: str = ".png") -> bytes:
    bgr = cv2.cvtColor(picture(640, 480, PLACES[:people]), cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, bgr)[1].tobytes()


def pictures(folder: Path, count: int) -> list[str]:
    """Pictures with 0, 1, 2, 3, 0, ... people; their names relative to the present folder."""
    folder.mkdir(exist_ok=True, parents=True)
    data = [encoded(people) for people in range(4)]
    for n in range(count):
        (folder / f"p{n}.png").write_bytes(data[n % 4])
    return [os.path.relpath(folder / f"p{n}.png") for n in range(count)]


def shard(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path
