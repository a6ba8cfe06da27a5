"""The loop of `predict`: reading, looking and writing overlap, and nothing is lost, kept or mixed up by that."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo import Estimator
from posezoo.errors import PosezooError
from posezoo.media import write_image
from posezoo.predict import Request, predict
from posezoo.skeletons import get_skeleton
from posezoo.stream import estimate_files
from posezoo.types import Poses

COCO = get_skeleton("coco17")


class Brightness:
    """An estimator without a network: as many people as the top left pixel is bright, in chunks as a real one."""

    detector, skeleton = None, COCO

    def __init__(self, before: Callable[[int], None] = lambda _: None, batch_size: int = 8) -> None:
        self.before, self.batch_size = before, batch_size
        self.seen: list[weakref.ref] = []

    @property
    def alive(self) -> int:
        return sum(reference() is not None for reference in self.seen)

    def stream(self, images: Any, boxes_xyxy: Any = None, look_ahead: int = 8) -> Iterator[Poses]:
        images = iter(images)
        while chunk := list(islice(images, look_ahead)):
            for picture in chunk:
                if boxes_xyxy is not None:
                    next(boxes_xyxy)
                self.before(len(self.seen))
                self.seen.append(weakref.ref(picture.image_rgb))
                people = int(picture.image_rgb[0, 0, 0])
                boxes = np.tile(np.array([4.0, 4.0, 28.0, 28.0]), (people, 1))
                joints = np.tile(np.linspace(5, 27, 17)[:, None], (people, 1, 2)).reshape(people, 17, 2)
                yield Poses(joints, np.full((people, 17), 0.9), boxes, np.full(people, 0.8), COCO)


def pictures(folder: Path, count: int) -> list[Path]:
    """Small pictures of 0, 1, 2, 0, 1, 2, ... people."""
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        write_image(path, np.full((32, 32, 3), n % 3, np.uint8))
    return paths


def request(folder: Path, **options: Any) -> Request:
    return Request([str(folder)], folder.parent / "out", **options)


def files(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix == suffix}


def test_the_report_keeps_the_order_whoever_is_first_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo import draw

    paths, bad = pictures(tmp_path / "in", 40), (0, 1, 17, 39)
    for n in bad:
        paths[n].write_text("a text")
    original, steps = draw.draw_poses, []

    def uneven(image: Any, poses: Poses) -> Any:
        time.sleep(0.004 * (2 - len(poses)))
        return original(image, poses)

    monkeypatch.setattr(draw, "draw_poses", uneven)
    report = predict(request(tmp_path / "in"), Brightness, lambda done, total: steps.append((done, total)))
    good = [n for n in range(40) if n not in bad]
    assert [(row["image"], row["people"]) for row in report.written] == [(str(paths[n]), n % 3) for n in good]
    assert [row["source"] for row in report.failed] == [str(paths[n]) for n in bad]
    assert all("not a picture" in row["error"] for row in report.failed)
    assert steps == [(n, 40) for n in range(1, 41)]
    assert report.total == 40 and report.people == sum(n % 3 for n in good) and not report.interrupted
    for n in good:
        assert len(json.loads((tmp_path / "out" / f"{n}.json").read_text())["people"]) == n % 3


@pytest.mark.parametrize("format", ["coco", "jsonl", "csv"])
def test_nothing_but_bad_pictures(tmp_path: Path, format: str) -> None:
    paths = pictures(tmp_path / "in", 30)
    assert not predict(request(tmp_path / "in", format=format, pictures=False), Brightness).failed
    (file,) = (tmp_path / "out").iterdir()
    before = file.read_bytes()
    for path in paths:
        path.write_bytes(b"")
    report = predict(request(tmp_path / "in", format=format), Brightness)
    assert report.written == [] and [row["source"] for row in report.failed] == [str(path) for path in paths]
    assert report.results is None and file.read_bytes() == before  # of the run that saw something


def test_a_picture_is_let_go_once_it_is_written(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 150)
    most = 0

    def look(_: int) -> None:
        nonlocal most
        most = max(most, stub.alive)

    stub = Brightness(look)
    for format in ("posezoo", "coco"):
        report = predict(request(tmp_path / "in", format=format), lambda: stub)
        assert len(report.written) == 150
    gc.collect()
    assert len(stub.seen) == 300 and stub.alive == 0
    assert most <= 8 + 64 + 2  # a chunk, what may wait to be written, and those in hand


def test_many_people_and_a_picture_of_one_pixel(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "crowd.png", np.full((32, 32, 3), 255, np.uint8))
    write_image(tmp_path / "in" / "dot.png", np.full((1, 1, 3), 1, np.uint8))
    report = predict(request(tmp_path / "in"), Brightness)
    assert [row["people"] for row in report.written] == [255, 1]
    assert len(json.loads((tmp_path / "out" / "crowd.json").read_text())["people"]) == 255


def test_slow_writing_holds_the_reading_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.media import images

    pictures(tmp_path / "in", 60)
    monkeypatch.setattr("posezoo.predict.pictures.MOST_AHEAD", 4)
    lock, read, written, most = threading.Lock(), 0, 0, 0
    decode, write = images.Encoded.decode, images.write_atomic

    def counting_decode(self: images.Encoded) -> Any:
        nonlocal read, most
        with lock:
            read += 1
            most = max(most, read - written)
        return decode(self)

    def slow_write(path: Path, data: Any) -> None:
        nonlocal written
        time.sleep(0.002)
        write(path, data)
        with lock:
            written += 1

    monkeypatch.setattr(images.Encoded, "decode", counting_decode)
    monkeypatch.setattr("posezoo.formats.writers.write_atomic", slow_write)
    report = predict(request(tmp_path / "in", pictures=False), Brightness)
    assert len(report.written) == read == written == 60
    assert most <= 2 * 8 + 8 + 4 + 1  # decoded ahead, in a chunk, waiting to be written, in hand


def test_very_large_pictures_are_not_read_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.media import images

    pictures(tmp_path / "in", 40)
    decoded, most, decode = [], 0, images.Encoded.decode

    def noting_decode(self: images.Encoded) -> Any:
        decoded.append(self.name)
        return decode(self)

    def look(seen: int) -> None:
        nonlocal most
        most = max(most, len(decoded) - seen)

    monkeypatch.setattr(images.Encoded, "decode", noting_decode)
    monkeypatch.setattr(images.Encoded, "decoded_bytes", property(lambda _: 300_000_000))
    report = predict(request(tmp_path / "in", pictures=False), lambda: Brightness(look))
    assert len(report.written) == 40 and most <= 8 + 1  # a chunk, and one more


def test_full_disks_and_lost_folders_are_told_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "in", 30)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith((".7.", ".19.")):
            write(path, data[:5])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    report = predict(request(tmp_path / "in"), Brightness)
    assert [row["source"] for row in report.failed] == [str(paths[7]), str(paths[19])]
    assert report.failed[0]["error"] == f"cannot write {tmp_path / 'out' / '7.jpg'}: No space left on device"
    assert len(report.written) == 28 and not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_our_own_mistakes_in_a_thread_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "in", 100)

    def broken(image: Any, poses: Poses) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("posezoo.draw.draw_poses", broken)
    stub = Brightness()
    with pytest.raises(RuntimeError, match="a bug"):
        predict(request(tmp_path / "in"), lambda: stub)
    assert len(stub.seen) < 100 and list((tmp_path / "out").iterdir()) == []


def test_an_error_of_the_network_ends_the_run_and_leaves_whole_files(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 40)

    def refuse(seen: int) -> None:
        if seen == 20:
            raise PosezooError("the network refused")

    with pytest.raises(PosezooError, match="the network refused"):
        predict(request(tmp_path / "in"), lambda: Brightness(refuse))
    for path in (tmp_path / "out").glob("*.json"):
        json.loads(path.read_text())
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_what_was_written_before_ctrl_c_is_in_the_report(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 200)

    def interrupt(seen: int) -> None:
        if seen == 50:
            raise KeyboardInterrupt

    report = predict(request(tmp_path / "in"), lambda: Brightness(interrupt))
    assert report.interrupted and report.total == 200 and 0 < len(report.written) <= 50
    names = [Path(row["image"]).stem for row in report.written]
    assert names == [str(n) for n in range(len(names))]
    assert files(tmp_path / "out", ".json") == files(tmp_path / "out", ".jpg") == set(names)


def test_the_embedded_pair_finds_the_same_as_without_overlap(tmp_path: Path) -> None:
    examples = Path(__file__).resolve().parents[1] / "examples"
    estimator = Estimator(device="cpu", threads=1)
    paths = [examples / "astronaut.png", tmp_path / "text.jpg", examples / "grace_hopper.jpg"]
    paths[1].write_text("a text")
    with estimate_files(estimator, paths) as found:
        first, text, last = found
    assert text.picture is None and "not a picture" in str(text.poses)
    for path, (picture, poses) in ((paths[0], first), (paths[2], last)):
        alone = estimator(path)
        assert picture is not None and picture.name == str(path) and len(alone) == len(poses) > 0
        np.testing.assert_allclose(poses.keypoints_xy, alone.keypoints_xy, atol=0.01)
    boxes = first.poses.boxes_xyxy
    with estimate_files(estimator, paths, [boxes, boxes, boxes[:0]]) as found:
        given = [poses if isinstance(poses, PosezooError) else len(poses) for _, poses in found]
    assert given[0] == len(boxes) and isinstance(given[1], PosezooError) and given[2] == 0
