"""The command line: what it writes, what it says, and how it ends, on good pictures and on bad ones."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posezoo.media import read_image, write_image
from posezoo.media.writer import VideoWriter
from posezoo.predict.names import output_names
from predict_fixtures import errors, networks, no_leftovers, photographs
from tiny_networks import joints_of, picture


def test_a_folder_gives_a_file_and_a_picture_each(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    ran = run("predict", "in", *networks)
    assert ran.code == 0 and ran.err == ""
    assert ran.out.startswith("3 pictures, 3 people, ") and "pictures/s" in ran.out and "-> posezoo-out" in ran.out
    written = sorted(p.name for p in (tmp_path / "posezoo-out").iterdir())
    assert written == ["p0.jpg", "p0.json", "p1.jpg", "p1.json", "p2.jpg", "p2.json"]
    found = json.loads((tmp_path / "posezoo-out" / "p1.json").read_text())
    assert found["image"] == str(Path("in/p1.png")) and (found["width"], found["height"]) == (640, 480)
    (person,) = found["people"]
    assert np.abs(np.array(person["keypoints"][0][:2]) - joints_of(2, 2)[0]).max() < 6
    assert json.loads((tmp_path / "posezoo-out" / "p0.json").read_text())["people"] == []
    drawn = read_image(tmp_path / "posezoo-out" / "p2.jpg").astype(int)
    assert drawn.shape == (480, 640, 3)
    assert np.abs(drawn - picture(640, 480, [(2, 2), (6, 3)])).max() > 100
    empty = read_image(tmp_path / "posezoo-out" / "p0.jpg").astype(int)
    assert np.abs(empty - picture(640, 480, [])).max() < 10


def test_json_summary(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    ran = run("predict", "in/p1.png", "in/*.png", "in/gone.png", *networks, "--json", "--no-images", "-o", "out")
    assert ran.code == 2 and len(errors(ran)) == 1
    summary = json.loads(ran.out)
    assert summary["images"] == 3 and summary["people"] == 3 and summary["images_per_second"] > 0
    assert [Path(row["image"]).name for row in summary["files"]] == ["p1.png", "p0.png", "p2.png"]
    assert summary["files"][0]["json"] == str(Path("out/p1.json")) and "picture" not in summary["files"][0]
    assert [row["source"] for row in summary["failed"]] == ["in/gone.png"]
    assert summary["runtime"] == "onnx" and summary["device"] == "cpu"
    assert not list((tmp_path / "out").glob("*.jpg"))


def test_coco_format(run: Any, networks: list[str], tmp_path: Path) -> None:
    for n, path in enumerate(photographs(tmp_path / "in")):
        path.rename(path.with_name(f"{n + 139:012d}.png"))
    ran = run("predict", "in", *networks, "--format", "coco", "-o", "out", "--no-images")
    assert ran.code == 0 and "coco_results.json" in ran.out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["coco_results.json"]
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [r["image_id"] for r in results] == [140, 141, 141]
    assert all(len(r["keypoints"]) == 51 and r["category_id"] == 1 and 0 <= r["score"] <= 1 for r in results)


def test_min_score_and_boxes(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    everybody = json.loads(run("predict", "in", *networks, "--json", "-o", "a").out)["people"]
    assert json.loads(run("predict", "in", *networks, "--json", "-o", "b", "--min-score", "1").out)["people"] == 0
    assert everybody == 3
    (tmp_path / "boxes.json").write_text('{"p2.png": [[64, 64, 256, 256], [320, 128, 512, 320]], "p0.png": []}')
    model = networks[:2]
    summary = json.loads(run("predict", "in", *model, "--boxes", "boxes.json", "--json", "-o", "c").out)
    assert [row["people"] for row in summary["files"]] == [0, 0, 2]
    same = json.loads(run("predict", "in", *model, "--detector", "boxes.json", "--json", "-o", "d").out)
    assert [row["people"] for row in same["files"]] == [0, 0, 2]
    whole = json.loads(run("predict", "in", *model, "--detector", "whole", "--flip", "--json", "-o", "e").out)
    assert [row["people"] for row in whole["files"]] == [1, 1, 1]
    most = max(
        person["score"] for row in summary["files"] for person in json.loads(Path(row["json"]).read_text())["people"]
    )
    strict = run(
        "predict", "in", *model, "--boxes", "boxes.json", "--json", "-o", "f", "--min-score", f"{most + 0.01:.4f}"
    )
    assert json.loads(strict.out)["people"] == 0


@pytest.mark.parametrize("flag", ["--boxes", "--detector"])
def test_every_given_box_has_a_pose_in_the_order_of_the_file(
    run: Any, networks: list[str], tmp_path: Path, flag: str
) -> None:
    """Boxes round one person, and the less sure ones first: neither are poses merged, nor are boxes sorted."""
    photographs(tmp_path / "in")
    one, other = [64.0, 64.0, 256.0, 256.0], [320.0, 128.0, 512.0, 320.0]
    given = [[*one, 0.3], [*other, 0.9], [*one, 0.6], [*one, 0.3], [60.0, 60.0, 260.0, 260.0, 0.01]]
    (tmp_path / "boxes.json").write_text(json.dumps({"p2.png": given}))
    ran = run("predict", "in/p2.png", *networks[:2], flag, "boxes.json", "--no-images", "-o", "out")
    assert ran.code == 0 and "1 picture, 5 people" in ran.out
    people = json.loads((tmp_path / "out" / "p2.json").read_text())["people"]
    assert [[*person["box"], person["box_score"]] for person in people] == given
    asked = run("predict", "in/p2.png", *networks[:2], flag, "boxes.json", "--nms", "0.5", "--no-images", "-o", "b")
    assert asked.code == 0 and "2 people" in asked.out
    people = json.loads((tmp_path / "b" / "p2.json").read_text())["people"]
    assert [person["box_score"] for person in people] == [0.9, 0.6]
    with VideoWriter(tmp_path / "clip.avi", (640, 480), 10) as video:
        for _ in range(3):
            video.add(picture(640, 480, [(2, 2), (6, 3)]))
    (tmp_path / "video.json").write_text(json.dumps({f"clip.avi#{frame}": given[frame:] for frame in range(3)}))
    ran = run("predict", "clip.avi", *networks[:2], flag, "video.json", "--track", "--no-images", "-o", "c")
    assert ran.code == 0 and ran.err == ""
    rows = [json.loads(line)["people"] for line in (tmp_path / "c" / "clip.jsonl").read_text().splitlines()]
    boxes = [[[*person["box"], person["box_score"]] for person in row] for row in rows]
    assert boxes == [given[frame:] for frame in range(3)]


def test_equal_names_from_different_folders(run: Any, networks: list[str], tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "y/A.jpg", "y/a-2.png"):
        write_image(tmp_path / name, picture(64, 64, []))
    ran = run("predict", "x", "y", *networks, "--no-images", "-o", "out", "--json")
    files = {row["image"]: Path(row["json"]).name for row in json.loads(ran.out)["files"]}
    named = {"x/a.png": "a.png.json", "y/A.jpg": "A.jpg.json", "y/a-2.png": "a-2.json", "y/a.png": "a.png-2.json"}
    assert files == named
    paths = [Path("x/a.jpg"), Path("y/a.jpg"), Path("y/b.c.jpg")]
    assert list(output_names(paths).values()) == ["a", "a-2", "b.c"]
    several = [Path(name) for name in ("a.bmp", "a.gif", "a.bmp.png", "b.png", "c.jpg")]
    assert list(output_names(several, {"c"}).values()) == ["a.bmp-2", "a.gif", "a.bmp", "b", "c-2"]


def bad_pictures(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and a word of what is said about each."""
    folder.mkdir(parents=True, exist_ok=True)
    jpeg = cv2.imencode(".jpg", picture(640, 480, [(2, 2)]))[1].tobytes()
    (folder / "text.jpg").write_text("hello, I am a text\n" * 20)
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    body = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "bomb.png").write_bytes(png + b"\0\0\0\0IEND\xae\x42\x60\x82")
    return {
        "text.jpg": "not a picture",
        "cut.jpg": "cut off",
        "empty.jpg": "0 bytes",
        "bomb.png": "--max-megapixels",
    }


def test_bad_pictures_do_not_stop_the_good_ones(run: Any, networks: list[str], tmp_path: Path) -> None:
    bad = bad_pictures(tmp_path / "in")
    photographs(tmp_path / "in")
    (tmp_path / "void").mkdir()
    write_image(tmp_path / "in" / "one.png", np.full((1, 1, 3), 7, np.uint8))
    ran = run("predict", "missing.jpg", "in", "void", *networks, "-o", "out")
    assert ran.code == 2
    assert ran.out.startswith("4 pictures, 3 people")
    lines = errors(ran)
    assert len(lines) == 6 and len(ran.err.splitlines()) == 7
    assert "6 could not be processed:" in ran.err
    for name, word in {**bad, "missing.jpg": "no such file", "void": "no pictures in the folder"}.items():
        assert len([line for line in lines if name in line and word in line]) == 1
    names = sorted(p.name for p in (tmp_path / "out").glob("*.json"))
    assert names == ["one.json", "p0.json", "p1.json", "p2.json"] and no_leftovers(tmp_path / "out")


def test_the_limit_can_be_raised(run: Any, networks: list[str], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(1000, 1000, []))
    assert run("predict", "a.png", *networks, "--max-megapixels", "0.5").code == 2
    assert run("predict", "a.png", *networks, "--max-megapixels", "1").code == 0


def test_odd_pictures_are_read(run: Any, networks: list[str], tmp_path: Path) -> None:
    image = picture(640, 480, [(2, 2)])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    folder = tmp_path / "in"
    folder.mkdir()
    rgba = np.dstack([image[..., ::-1], np.full((480, 640), 255, np.uint8)])
    turned = cv2.imencode(".jpg", np.rot90(image, 1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    block = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = turned[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + turned[2:]
    (folder / "exif.jpg").write_bytes(exif)
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "rgba.png"), rgba)
    cv2.imwrite(str(folder / "wide.png"), image[..., ::-1].astype(np.uint16) * 257)
    ran = run("predict", "in", *networks, "-o", "out", "--json")
    assert ran.code == 0
    people = {Path(row["image"]).stem: row["people"] for row in json.loads(ran.out)["files"]}
    assert people == {"exif": 1, "grey": 0, "rgba": 1, "wide": 1}
    for name in ("exif", "rgba", "wide"):
        (person,) = json.loads((tmp_path / "out" / f"{name}.json").read_text())["people"]
        assert np.abs(np.array(person["keypoints"][1][:2]) - joints_of(2, 2)[1]).max() < 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "simple_pose_resnet18_v1"], "unknown model 'simple_pose_resnet18_v1'; did you mean"),
        (["--detector", "embeded"], "unknown detector 'embeded'; did you mean embedded?"),
        (["--format", "cocoo"], "unknown format 'cocoo'; did you mean coco"),
        (["--runtime", "onyx"], "unknown runtime 'onyx'; did you mean onnx?"),
        (["--device", "gpu"], "unknown device 'gpu'; did you mean cpu? (valid: auto, cpu, cuda)"),
        (["--min-score", "3"], "min-score must be between 0 and 1"),
        (["--threads", "0"], "threads must be 1 or more"),
        (["--max-megapixels", "nan"], "max-megapixels must be a number above 0, but is nan"),
        (["--batch-size", "0"], "batch_size must be 1 or more"),
        (["--weights", "gone.pth"], "has its weights inside"),
        (["-o", "in/p0.png"], "is a file; choose a folder with -o"),
        (["-o", "in/p0.png/sub"], "cannot write to the folder in/p0.png/sub: "),
        (["-o", "in"], "the output folder in holds the source p0.png"),
        (["--boxes", "gone.json"], "no such boxes file: gone.json"),
        (["--boxes", "nan.json"], "nan.json: entry 0 (picture p0.png) is not finite"),
        (["--boxes", "negative.json"], "negative.json: box 0 of 'p0.png' has a negative size"),
        (["--boxes", "other.json"], "has none of the pictures (it has, for example, 'other.png')"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    run: Any, networks: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    photographs(tmp_path / "in", 1)
    (tmp_path / "nan.json").write_text('[{"file_name": "p0.png", "bbox": [0, 0, NaN, 5], "score": 1}]')
    (tmp_path / "negative.json").write_text('{"p0.png": [[9, 9, 5, 5]]}')
    (tmp_path / "other.json").write_text('{"other.png": [[1, 1, 5, 5]]}')
    base = networks[:2] if "--boxes" in arguments else networks
    ran = run("predict", "in", *base, *arguments)
    assert ran.code == 2 and ran.out == ""
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("error: ") and message in ran.err
    assert not list(tmp_path.rglob("*.json.*")) and not (tmp_path / "posezoo-out" / "p0.json").exists()


def test_boxes_and_detector_exclude_each_other(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in", 1)
    ran = run("predict", "in", *networks, "--boxes", "b.json")
    assert ran.code == 2 and ran.err == "error: --boxes and --detector exclude each other\n"


def test_nothing_to_do_leaves_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    ran = run("predict", "void")
    assert ran.code == 2 and ran.err.startswith("error: no pictures in the folder void") and ran.out == ""
    assert not (tmp_path / "posezoo-out").exists()
    ran = run("predict")
    assert ran.code == 2 and "Missing argument" in ran.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in", 1)
    (tmp_path / "locked").mkdir(mode=0o500)
    ran = run("predict", "in", *networks, "-o", "locked")
    assert ran.code == 2 and "cannot write to the output folder locked: Permission denied" in ran.err


def test_a_disk_that_fills_up_fails_picture_by_picture(
    run: Any, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path / "in")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if ".p1." in path.name:
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    ran = run("predict", "in", *networks, "-o", "out")
    assert ran.code == 2 and errors(ran) == ["error: cannot write out/p1.jpg: No space left on device"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["p0.jpg", "p0.json", "p2.jpg", "p2.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_half_way(networks: list[str], tmp_path: Path) -> None:
    for n in range(300):
        write_image(tmp_path / "in" / f"{n:03d}.png", picture(640, 480, [(2, 2)]))
    command = [sys.executable, "-m", "posezoo", "predict", "in", *networks, "-o", "out", "--threads", "1"]
    # a job that a shell put in the background has Ctrl-C turned off, and would hand that on
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, inherited)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = sorted((tmp_path / "out").glob("*.json"))
    assert 5 <= len(done) < 300 and no_leftovers(tmp_path / "out")
    assert err.startswith("error: stopped by Ctrl-C after ") and len(err.splitlines()) == 1 and "pictures" in out
    for path in done:
        assert len(json.loads(path.read_text())["people"]) == 1
        assert read_image(path.with_suffix(".jpg")).shape == (480, 640, 3)


def test_ctrl_c_leaves_no_results_file_of_a_part(
    run: Any, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path / "in")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posezoo.draw.draw_poses", interrupt)
    ran = run("predict", "in", *networks, "-o", "out", "--format", "coco")
    assert ran.code == 130 and errors(ran) == ["error: stopped by Ctrl-C after 0 of 3 pictures"]
    assert list((tmp_path / "out").iterdir()) == []
