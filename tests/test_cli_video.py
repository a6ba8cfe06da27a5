"""`posezoo predict` on videos: what it writes, what its stages take, bad videos, and Ctrl-C."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

import pytest

from posezoo.media.writer import VideoWriter
from predict_fixtures import errors, networks, no_leftovers, photographs
from tiny_networks import picture


def video(path: Path, frames: int = 6) -> Path:
    with VideoWriter(path, (640, 480), 10, backend="opencv") as writer:
        for _ in range(frames):
            writer.add(picture(640, 480, [(2, 2), (6, 3)]))
    return path


def test_a_video_and_what_its_stages_take(run: Any, networks: list[str], tmp_path: Path) -> None:
    video(tmp_path / "street.avi")
    ran = run("predict", "street.avi", *networks, "--track", "--smooth", "--trails", "--draw-boxes", "--profile")
    assert ran.code == 0 and ran.err == ""
    first, _, heading, *stages = ran.out.splitlines()
    assert first.startswith("street.avi: 6 frames, 12 poses of 2 people, ")
    assert first.endswith(" -> posezoo-out/street.jsonl, posezoo-out/street.mp4")
    assert heading.split() == ["stage", "thread", "seconds", "ms", "an", "image", "images/s"]
    names = [re.split(r"\s{2,}", line)[0] for line in stages]
    assert names == [
        "read", "wait for reading", "detect", "crop", "network", "decode joints", "suppress", "track", "smooth",
        "wait for writing", "draw", "write results", "write images", "all together",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "posezoo-out" / "street.jsonl").read_text().splitlines()]
    assert [[person["track_id"] for person in row["people"]] for row in rows] == [[1, 2]] * 6
    summary = json.loads(run("predict", "street.avi", *networks, "--flow", "--profile", "--json").out)
    assert (summary["frames"], summary["images"], summary["people"]) == (6, 0, 12)
    assert summary["videos"][0]["tracks"] == 2 and summary["profile"][0]["stage"] == "read"
    again = run("predict", "street.avi", *networks, "--flow", "--resume")
    assert again.code == 0 and "street.avi: 0 frames from frame 6 on" in again.out


def test_resume_with_another_model_or_detector_is_one_line(run: Any, networks: list[str], tmp_path: Path) -> None:
    video(tmp_path / "street.avi")
    assert run("predict", "street.avi", *networks, "--no-images", "--end", "3f").code == 0
    before = (tmp_path / "posezoo-out" / "street.jsonl").read_bytes()
    other = [*networks[:3], "whole", *networks[4:]]
    every, flip = [*networks, "--every", "2"], [*networks, "--flip"]
    for flags, name in ((other, "--detector"), (every, "--every"), (flip, "--flip")):
        ran = run("predict", "street.avi", *flags, "--no-images", "--resume")
        assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1
        assert f"street.jsonl is of another run: {name} was " in ran.err
    assert (tmp_path / "posezoo-out" / "street.jsonl").read_bytes() == before
    assert run("predict", "street.avi", *networks, "--no-images", "--resume").code == 0


def test_a_source_that_gives_nothing_has_its_error_alone(
    run: Any, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video(tmp_path / "clip.avi")
    with (tmp_path / "clip.avi").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ran = run("predict", "-", *networks, "--profile")
    assert ran.code == 2 and ran.out == "" and ran.err.startswith("error: stdin is a video")
    assert ran.err.count("\n") == 1
    ran = run("predict", "clip.avi", *networks, "--start", "90f")
    assert ran.code == 2 and ran.out == "" and "ends before the start" in ran.err


def test_profile_of_pictures(run: Any, networks: list[str], tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    stages = json.loads(run("predict", "in", *networks, "--profile", "--json").out)["profile"]
    assert {"read", "decode image", "detect", "network", "draw", "write images"} <= {row["stage"] for row in stages}
    assert all(row["seconds"] >= 0 and row["where"] for row in stages)


def test_bad_videos_do_not_stop_the_good_ones(run: Any, networks: list[str], tmp_path: Path) -> None:
    video(tmp_path / "good.avi")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    bad = ["text.mp4", "empty.mp4", "sound.wav", "webcam:97", "gone.mp4"]
    ran = run("predict", *bad, "good.avi", *networks)
    assert ran.code == 2 and ran.out.startswith("good.avi: 6 frames, 12 poses, ")
    lines = errors(ran)
    said = [line for line in ran.err.splitlines() if "VIDEOIO" not in line]  # OpenCV's, silent where it starts with us
    assert len(lines) == 5 and len(said) == 6
    for name, word in zip(bad, ["text.mp4", "0 bytes", " video", "camera 97", "no such file"], strict=True):
        assert len([line for line in lines if word in line and name.removeprefix("webcam:") in line]) == 1
    assert sorted(p.name for p in (tmp_path / "posezoo-out").iterdir()) == ["good.jsonl", "good.mp4"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_in_a_video(networks: list[str], tmp_path: Path) -> None:
    video(tmp_path / "long.avi", 200)
    command = [sys.executable, "-m", "posezoo", "predict", "long.avi", *networks, "-o", "out", "--format", "coco"]
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, inherited)
    deadline = time.monotonic() + 60
    while not list((tmp_path).glob("out/.long.*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith("error: stopped by Ctrl-C after ") and "of long.avi" in err
    found = json.loads((tmp_path / "out" / "long.json").read_text())
    assert f"long.avi: {len(found) // 2} frame" in out and no_leftovers(tmp_path)
