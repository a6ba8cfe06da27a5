"""Pictures that are not those which were annotated: of another size, turned by Exif, damaged, or not there."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.data.check import check_dataset  # noqa: E402
from posezoo.data.pictures import MISSING, OTHER_SIZE, UNREADABLE, look, read_labelled  # noqa: E402
from posezoo.data.readers import read_dataset  # noqa: E402
from posezoo.deploy.calibrate import Labelled, crops_of_people  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.estimator import Estimator  # noqa: E402
from posezoo.media.images import read_image  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from test_train_samples import Colours  # noqa: E402
from train_fixtures import CPU, _one_thread, batch_of, people, recipe_of  # noqa: E402

SOURCE = {"annotations": "people.json", "images": "."}


def exif(orientation: int) -> bytes:
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def jpeg(path: Path, image_rgb: np.ndarray, orientation: int = 1, preamble: int = 0) -> None:
    """Write a JPEG with an Exif orientation, and so many bytes of comments before its size."""
    done, data = cv2.imencode(".jpg", image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    parts = [(0xE1, exif(orientation)), *[(0xFE, bytes(60_000))] * (preamble // 60_000)]
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in parts)
    path.write_bytes(data[:2].tobytes() + segments + data[2:].tobytes())


def copied(folder: Path, target: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """`write_people`'s folder once more, its pictures 40 pixels higher (so no square), its file changed."""
    target.mkdir()
    content = json.loads((folder / "people.json").read_text())
    for picture in content["images"]:
        image = read_image(folder / picture["file_name"])
        picture["file_name"] = picture["file_name"].replace("png", "jpg")
        image = np.concatenate([image, np.full_like(image[:40], 128)])
        jpeg(target / picture["file_name"], image)
        picture.update(width=image.shape[1], height=image.shape[0])
    if change is not None:
        change(content)
    (target / "people.json").write_text(json.dumps(content))
    return target


def turned(folder: Path, orientation: int, count: int = 3) -> None:
    """Give the first pictures an Exif orientation, and leave their pixels as they are."""
    for n in range(count):
        jpeg(folder / f"{n}.jpg", read_image(folder / f"{n}.jpg"), orientation)


# ---- one picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_upright_or_as_stored(tmp_path: Path, orientation: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 32, 3), np.uint8)
    image = cv2.resize(image, (64, 40), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "a.jpg"
    jpeg(path, image, orientation)
    upright = read_image(path)
    sides = upright.shape[1], upright.shape[0]
    jpeg(tmp_path / "plain.jpg", image)
    for stated, wanted in (((0, 0), upright), (sides, upright), ((0, 40), upright)):
        assert look(path, stated) == ("", str(path), False)
        np.testing.assert_array_equal(read_labelled(path, stated), wanted)
    if orientation >= 5:
        assert look(path, (64, 40)) == ("", str(path), True)
        np.testing.assert_array_equal(read_labelled(path, (64, 40)), read_image(tmp_path / "plain.jpg"))
    assert look(path, (32, 20))[:2] == (OTHER_SIZE, f"{path} is {sides[0]}x{sides[1]} instead of 32x20")
    with pytest.raises(PosezooError, match=rf"a\.jpg is {sides[0]}x{sides[1]} instead of 32x20; use the very pictures"):
        read_labelled(path, (32, 20))


def test_a_picture_is_known_by_its_first_bytes_or_by_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    jpeg(path, np.zeros((40, 64, 3), np.uint8), 6, preamble=120_000)
    assert look(path, (40, 64)).fault == look(path, (64, 40)).fault == ""
    data = path.read_bytes()
    for name, start in (("b.jpg", 60_000), ("c.jpg", 0)):
        (tmp_path / name).write_bytes(data[:start])
        found = look(tmp_path / name, (64, 40))
        assert found.fault == UNREADABLE and found.told.startswith(f"{tmp_path / name}: ")
    noise = np.random.default_rng(0).integers(0, 255, (100, 160, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "d.png"), noise)
    assert look(tmp_path / "d.png", (160, 100)).fault == ""
    # what Exif says of a PNG may stand behind its pixels
    png = (tmp_path / "d.png").read_bytes()
    chunk = struct.pack(">I", len(exif(6)) - 6) + b"eXIf" + exif(6)[6:]
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    (tmp_path / "e.png").write_bytes(png[:-12] + chunk + png[-12:])
    assert look(tmp_path / "e.png", (160, 100)).stored
    assert look(tmp_path / "e.png", (100, 160)) == ("", str(tmp_path / "e.png"), False)
    for gone in ("f.png", "d.png/g.png", "."):
        assert look(tmp_path / gone, (64, 40)).fault == look(tmp_path / gone, (0, 0)).fault == MISSING


# ---- training and validation


def test_pictures_of_another_size_are_left_out_or_refused(people: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(people("coco17"), tmp_path / "a")
    cv2.imwrite(str(folder / "1.jpg"), np.zeros((120, 100, 3), np.uint8))
    (folder / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(PosezooError) as caught:
        PoseTask(recipe_of(folder))
    text = str(caught.value)
    assert "1 of 3 pictures are not readable" in text and "2.jpg: not a picture" in text
    assert "1 of 3 pictures are of another size than the annotations say" in text
    assert "1.jpg is 100x120 instead of 200x240" in text and len(text.splitlines()) == 1
    assert "data.max_missing allows 1.0%" in text and "mend their width and height in the file" in text
    task = PoseTask(recipe_of(folder, data={"max_missing": 0.7, "validate": SOURCE}))
    assert len(task.dataset) == 2 and set(task.dataset.people.image_row.tolist()) == {0}
    train, validate = (note for note in task.notes if "instead of" in note)
    assert "4 people are left out" in train and validate.startswith("data.validate: ")
    assert validate.endswith("and nobody is found in them")
    assert [one.path.name for one in task._judge.tasks] == ["0.jpg"]  # type: ignore[union-attr]


def test_a_picture_that_shrinks_during_a_run_is_named(people: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(people("coco17"), tmp_path / "a")
    task = PoseTask(recipe_of(folder))
    cv2.imwrite(str(folder / "0.jpg"), np.zeros((120, 100, 3), np.uint8))
    with pytest.raises(PosezooError, match=r"0\.jpg is 100x120 instead of 200x240"):
        task.dataset[0, 0]


def test_pictures_without_a_stated_size_are_not_compared(people: Callable[[str], Path], tmp_path: Path) -> None:
    def unsized(content: dict[str, Any]) -> None:
        for picture in content["images"]:
            del picture["width"], picture["height"]

    folder = copied(people("coco17"), tmp_path / "a", unsized)
    cv2.imwrite(str(folder / "0.jpg"), np.zeros((120, 100, 3), np.uint8))
    assert len(PoseTask(recipe_of(folder)).dataset) == 6


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_in_stored_pixels_are_learnt_and_judged_there(
    people: Callable[[str], Path], tmp_path: Path, orientation: int
) -> None:
    plain, folder = copied(people("coco17"), tmp_path / "plain"), copied(people("coco17"), tmp_path / "turned")
    turned(folder, orientation, count=2)
    for n in range(2):  # the same pixels, but for what a JPEG loses each time
        jpeg(plain / f"{n}.jpg", read_labelled(folder / f"{n}.jpg", (200, 240)))
    small = {"mean": (0, 0, 0), "std": (1, 1, 1), "size_wh": (96, 128)}
    tasks = [PoseTask(recipe_of(each, data={"validate": SOURCE}, input=small)) for each in (plain, folder)]
    a, b = (batch_of(task) for task in tasks)
    torch.testing.assert_close(a["crop_xy"], b["crop_xy"])
    assert (a["crop"].float() - b["crop"].float()).abs().mean() < 3
    assert any("2 pictures are not turned as Exif says" in note for note in tasks[1].notes)
    figures = [task.validate(Colours(17).eval(), CPU)["AP"] for task in tasks]
    assert figures[1] == pytest.approx(figures[0], abs=0.1) and figures[1] > 0.5


def test_data_check_tells_of_sizes_and_orientation(people: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(people("coco17"), tmp_path / "a")
    how = {"annotations": folder / "people.json", "images": folder}
    odd = {finding.what for finding in check_dataset("coco", folder, **how).splits[0].odd}
    turned(folder, 6, count=1)
    cv2.imwrite(str(folder / "1.jpg"), np.zeros((120, 100, 3), np.uint8))
    (folder / "2.jpg").write_bytes(b"")
    report = check_dataset("coco", folder, **how)
    found = {finding.what: finding for finding in report.splits[0].odd if finding.what not in odd}
    assert set(found) == {
        "pictures not readable",
        "pictures of another size than the annotations say",
        "pictures that Exif turns, with labels that it does not",
    }
    assert [finding.count for finding in found.values()] == [1, 1, 1] and not report.complete
    assert "1.jpg is 100x120 instead of 200x240" in "\n".join(report.lines())
    (folder / "2.jpg").unlink()
    assert check_dataset("coco", folder, **how, draw=tmp_path / "sheet.png").sheet is not None
    assert check_dataset("coco", folder, **how).splits[0].missing.first == ("2.jpg",)


def test_calibration_sees_pictures_as_their_annotators_saw_them(people: Callable[[str], Path], tmp_path: Path) -> None:
    plain, folder = copied(people("coco17"), tmp_path / "plain"), copied(people("coco17"), tmp_path / "turned")
    turned(folder, 6)
    spec = Estimator("embedded", detector=None, device="cpu").spec
    a, b = (crops_of_people(spec, Labelled("coco", each / "people.json", (each,)), 6) for each in (plain, folder))
    assert len(a.pixels) == 6 and np.abs(a.pixels.astype(int) - b.pixels).mean() < 3
    cv2.imwrite(str(folder / "1.jpg"), np.zeros((120, 100, 3), np.uint8))
    left = crops_of_people(spec, Labelled("coco", folder / "people.json", (folder,)), 6)
    assert len(left.pixels) == 4 and list(left.unreadable) == [str(folder / "1.jpg")]
    (folder / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(PosezooError, match=r"2 of 3 pictures cannot be used, more than 50%"):
        crops_of_people(spec, Labelled("coco", folder / "people.json", (folder,)), 6)


# ---- in which folder


def test_one_absent_picture_does_not_decide_the_folder(people: Callable[[str], Path], tmp_path: Path) -> None:
    file, folders = people("coco17") / "people.json", [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()

    def chosen() -> str:
        (found,) = {image.parent.name for image in read_dataset("coco", file, folders).images}
        return found

    assert chosen() == "a"
    for n in (1, 2):
        shutil.copy(people("coco17") / f"{n}.png", folders[1])
    assert chosen() == "b"
    shutil.copy(people("coco17") / "0.png", folders[0])
    assert chosen() == "b"
    shutil.copy(people("coco17") / "1.png", folders[0])
    assert chosen() == "a"
