"""`posezoo convert-results`: what it says is left out, videos that stay videos, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import command_line
from format_results import COCO, frames, some_poses, strict, write
from posezoo.errors import PosezooError
from posezoo.formats import Result, read_results
from posezoo.skeletons import get_skeleton
from posezoo.types import Poses


def run(*words: object) -> command_line.Ran:
    return command_line.run("convert-results", *words)


def test_the_command_converts_and_says_what_is_left_out(tmp_path: Path) -> None:
    joints = get_skeleton("wholebody133")
    records = [Result(some_poses(joints, 2, n), f"{n}.jpg", size_wh=(640, 480)) for n in range(2)]
    (source,) = write("alphapose", tmp_path, records, joints)
    ran = run(source, tmp_path / "out", "--to", "openpose", "--skeleton", "wholebody133")
    assert ran.code == 0 and ran.err == ""
    first, made, joints_left, left = ran.out.splitlines()
    assert first == f"2 images, 4 people (wholebody133), alphapose -> openpose: {tmp_path / 'out'}"
    assert made == "Made, halfway between left and right: neck" and "left_big_toe" in joints_left
    assert left == "Also left out: person scores, boxes"
    assert len(list((tmp_path / "out").iterdir())) == 2
    ran = run(tmp_path / "out", tmp_path / "out.csv", "--to", "csv", "--json")
    said = json.loads(ran.out)
    assert (said["source"], said["target"], said["images"], said["people"]) == ("openpose", "csv", 2, 4)
    assert said["output"] == str(tmp_path / "out.csv") and said["lost"] == []
    nobody = Result(Poses.empty(joints), "c.jpg")
    write("openpose", tmp_path / "out", [nobody], joints)
    assert json.loads(run(tmp_path / "out", tmp_path / "b.csv", "--to", "csv", "--json").out)["lost"] == [
        "images without people"
    ]
    back = list(read_results(tmp_path / "out.csv"))
    np.testing.assert_allclose(back[0].poses.track_ids, [4, 5])


def test_the_command_keeps_videos_videos(tmp_path: Path) -> None:
    (source,) = write("posezoo", tmp_path / "clip.jsonl", frames(3), video=True)
    assert run(source, tmp_path / "list.json", "--to", "coco").code == 0
    assert [entry["image_id"] for entry in strict((tmp_path / "list.json").read_text())] == [0, 1, 2]
    assert run(source, tmp_path / "back", "--to", "posezoo").code == 0
    assert (tmp_path / "back" / "results.jsonl").read_bytes() == source.read_bytes()
    assert run(source, tmp_path / "each", "--to", "alphapose", "--per-frame").code == 0
    assert len(list((tmp_path / "each").iterdir())) == 3


def test_pictures_and_videos_of_a_folder_are_read_together(tmp_path: Path) -> None:
    """As `predict photo.png clip.mp4 -o out` leaves them, the video's name before or after the picture's."""
    write("posezoo", tmp_path / "out", [Result(some_poses(COCO), "photo.png")])
    write("posezoo", tmp_path / "out" / "clip.jsonl", frames(3), video=True)
    write("posezoo", tmp_path / "out" / "zoo.jsonl", frames(2), video=True)
    ran = run(tmp_path / "out", tmp_path / "all.csv", "--to", "csv")
    assert ran.code == 0 and ran.out.startswith("6 images, 7 people (coco17), posezoo -> csv")
    assert len(list(read_results(tmp_path / "out", "posezoo"))) == 6
    with pytest.warns(UserWarning, match=r"not read: .*photo\.json"):
        assert len(list(read_results(tmp_path / "out", "jsonl"))) == 5
    # pictures before frames, and frames keep their numbers
    (tmp_path / "out" / "clip.jsonl").unlink()
    assert run(tmp_path / "out", tmp_path / "each", "--to", "openpose").code == 0
    names = sorted(path.name.removesuffix("_keypoints.json") for path in (tmp_path / "each").iterdir())
    assert names == ["a_000000000000", "a_000000000001", "photo"]
    ran = run(tmp_path / "out", tmp_path / "x.json", "--to", "coco")
    assert ran.code == 2 and "this format holds one video" in ran.err and not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("format", ["cmu", "openpose", "posezoo"])
def test_the_folders_that_predict_makes_for_frames_are_read(tmp_path: Path, format: str) -> None:
    write(format, tmp_path / "out", [Result(some_poses(COCO), "photo.png")])
    write(format, tmp_path / "out" / "clip", frames(3), video=True, per_frame=True)
    write(format, tmp_path / "out" / "older", [Result(some_poses(COCO), "x.png")])
    ran = run(tmp_path / "out", tmp_path / "all.jsonl", "--to", "jsonl")
    first, *others = ran.out.splitlines()
    assert ran.code == 0 and first.startswith(f"4 images, 5 people (coco17), {format} -> jsonl")
    assert others[-1] == f"Not read: {tmp_path / 'out' / 'older'}"
    assert [record.frame for record in read_results(tmp_path / "all.jsonl")] == [None, 0, 1, 2]
    with pytest.warns(UserWarning, match="not read: .*older"):
        assert len(list(read_results(tmp_path / "out"))) == 4
    broken = next((tmp_path / "out" / "clip").iterdir())
    broken.write_text("{")
    assert run(tmp_path / "out", tmp_path / "b.jsonl", "--to", "jsonl").err.startswith(f"error: {broken}")


@pytest.mark.parametrize("format", ["cmu", "openpose", "openpose25", "posezoo"])
def test_videos_and_pictures_of_one_name_are_told_apart(tmp_path: Path, format: str) -> None:
    """As `predict a/clip.mp4 b/clip.mp4 a/x.jpg b/x.jpg -o in` leaves them."""
    for number, name in enumerate(("clip", "clip-2")):
        records = [
            replace(record, image=f"{'ab'[number]}/clip.mp4") for record in frames(3 - number, people=1 + number)
        ]
        write("jsonl", tmp_path / "in" / f"{name}.jsonl", records, video=True)
    images = ["a/x.jpg", "b/x.jpg", "clip_000000000000.jpg"]
    names = {"a/x.jpg": "x", "b/x.jpg": "x-2", images[2]: "clip_000000000000"}
    write(
        "posezoo", tmp_path / "in", [Result(some_poses(COCO), image) for image in images], name=lambda r: names[r.image]
    )
    ran = run(tmp_path / "in", tmp_path / "out", "--to", format, *(["--per-frame"] if format == "posezoo" else []))
    assert ran.code == 0 and ran.out.startswith("8 images, 13 people")
    kept = [(record.image, record.frame, len(record.poses)) for record in read_results(tmp_path / "out")]
    clips = [("a/clip.mp4", n, 1) for n in range(3)] + [("b/clip.mp4", n, 2) for n in range(2)]
    assert sorted(kept, key=str) == sorted([*clips, *((image, None, 2) for image in images)], key=str)
    stems = {path.name.removesuffix(".json").removesuffix("_keypoints") for path in (tmp_path / "out").iterdir()}
    assert {"clip_000000000002", "clip-2_000000000001", "x", "x-2"} <= stems


def test_several_kinds_in_a_folder(tmp_path: Path) -> None:
    write("cmu", tmp_path, [Result(some_poses(COCO), f"{n}.png") for n in range(5)])
    write("csv", tmp_path / "a.csv", [Result(some_poses(COCO), "x.png")])
    ran = run(tmp_path, tmp_path / "out.jsonl", "--to", "jsonl")
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert "has results of several kinds: cmu (0.json, 1.json, 2.json and 2 more), csv (a.csv); say which" in ran.err
    write("alphapose", tmp_path / "list.json", [Result(some_poses(COCO), "x.png")])
    left = {"cmu": r"not read: .*a\.csv, .*list\.json$", "csv": r"not read: .*0\.json, .* and 3 more$"}
    for kind, images in (("cmu", 5), ("csv", 1)):
        with pytest.warns(UserWarning, match=left[kind]):
            assert len(list(read_results(tmp_path, kind))) == images


def test_lists_of_two_videos_are_not_mixed(tmp_path: Path) -> None:
    """Their frames go by number alone."""
    for name in ("a.json", "b.json"):
        write("coco", tmp_path / name, frames(2), video=True)
    with pytest.raises(PosezooError, match=r"image 0 is in both .*a\.json and .*b\.json: .*one file at a time"):
        list(read_results(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json", "out", "--to", "csv"], "no such file or folder: none.json"),
        (["good.json", "out", "--to", "cvs"], "unknown format 'cvs'; did you mean csv"),
        (["good.json", "out", "--to", "csv", "--from", "cmu"], "good.json has no list 'bodies'"),
        (["good.json", "out", "--to", "csv", "--from", "parquet"], "Parquet"),
        (["good.json", "out", "--to", "csv", "--skeleton", "coco71"], "unknown skeleton 'coco71'; did you mean coco17"),
        (["good.json", "good.json", "--to", "alphapose"], "choose another place"),
        (["good.json", ".", "--to", "cmu"], "choose another place"),
        (["bad.jsonl", "out", "--to", "csv"], "bad.jsonl, line 2"),
        (["bad.jsonl", "out.jsonl", "--to", "jsonl"], "bad.jsonl, line 2"),
        (["empty", "out", "--to", "csv"], "empty has no results in it"),
    ],
)
def test_the_command_on_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write("coco", Path("good.json"), [Result(some_poses(COCO), "a.jpg")])
    write("jsonl", Path("bad.jsonl"), frames(2), video=True)
    Path("bad.jsonl").write_text(Path("bad.jsonl").read_text().replace('"frame": 1', '"frame": "x"'))
    Path("empty").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ran = run(*arguments)
    assert ran.code == 2 and message in ran.err and ran.err.count("\n") == 1 and ran.err.startswith("error: ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
