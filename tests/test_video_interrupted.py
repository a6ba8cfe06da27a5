"""Videos that end before their time: cameras, cut files, Ctrl-C, and runs that go on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.formats import read_results
from posezoo.media.sources import LIVE, Frame, Source
from posezoo.media.span import Span
from posezoo.predict import Request, predict
from video_fixtures import FPS, Walkers, clip, lines, no_leftovers, request, shown


class Frames(Source):
    """A source of frames that are made as they are asked for."""

    size_wh = (64, 48)

    def __init__(self, name: str, kind: str, count: int, ends: PosezooError | None = None, ask: Any = None) -> None:
        super().__init__(name, Span())
        self.kind, self.count, self.ends, self.ask = kind, count, ends, ask

    def _read(self) -> Iterator[Frame]:
        for index in range(self.count):
            if self.ask:
                self.ask(index)
            yield Frame(np.full((48, 64, 3), 60, np.uint8), index, index / FPS, self.name)
        if self.ends:
            raise self.ends


def use(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr("posezoo.predict.run.open_source", lambda *_, **__: source)


def test_a_camera_never_waits_for_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, behind = tmp_path / "out" / "webcam-0.jsonl", []

    def asked(index: int) -> None:
        time.sleep(0.03)  # drawing and writing a frame takes less, also on a busy machine
        behind.append(index - (file.read_bytes().count(b"\n") if file.exists() else 0))

    use(monkeypatch, Frames("webcam:0", LIVE, 30, ask=asked))
    stub = Walkers()
    report = predict(Request(["webcam:0"], tmp_path / "out"), lambda: stub)
    assert report.images == 30 and set(stub.chunks) == {1}
    assert sorted(behind)[len(behind) // 2] <= 2  # the one being drawn and the one being written


def test_what_a_camera_saw_before_it_was_unplugged_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = PosezooError("the camera 0 stopped after 7 frames: it was unplugged, or another program took it")
    use(monkeypatch, Frames("webcam:0", LIVE, 7, gone))
    report = predict(Request(["webcam:0"], tmp_path / "out", track="boxes"), Walkers)
    assert report.failed == [{"source": "webcam:0", "error": str(gone)}]
    assert len(lines(tmp_path / "out" / "webcam-0.jsonl")) == 7 == len(shown(tmp_path / "out" / "webcam-0.mp4"))
    again = predict(Request(["webcam:0"], tmp_path / "out", resume=True), Walkers)
    assert "cannot be gone on with" in again.failed[0]["error"]
    assert len(lines(tmp_path / "out" / "webcam-0.jsonl")) == 7


def test_a_video_that_is_cut_off_keeps_its_frames(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.avi", [1] * 60, (160, 120))
    path = tmp_path / "in" / "cut.avi"
    path.parent.mkdir()
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    report = predict(request(path, format="coco"), Walkers)
    found = json.loads((tmp_path / "out" / "cut.json").read_text())
    assert 10 < len(found) < 60 and len(found) == report.images == len(shown(tmp_path / "out" / "cut.mp4"))
    assert len(report.failed) == 1 and "cut off" in report.failed[0]["error"]


def test_a_source_without_a_frame_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Frames("rtsp://user:secret@host/cam", LIVE, 0, PosezooError("it is silent from the start")))
    report = predict(Request(["x"], tmp_path / "out", format="csv"), Walkers)
    assert report.images == 0 and len(report.failed) == 1 and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["posezoo", "csv", "openpose"])
@pytest.mark.parametrize("why", ["after the end", "interrupted", "unplugged"])
def test_a_run_without_a_frame_leaves_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, why: str
) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 6)
    assert predict(request(path, format=format), Walkers).images == 6
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    if why == "unplugged":
        use(monkeypatch, Frames("a.avi", LIVE, 0, PosezooError("it is silent from the start")))
    stub = Walkers(interrupt) if why == "interrupted" else Walkers()
    report = predict(request(path, format=format, start=99 if why == "after the end" else None), lambda: stub)
    assert report.images == 0 and (report.failed or report.interrupted) and "results" not in report.videos[0]
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [2] * 60)

    def interrupt(seen: int) -> None:
        if seen == 30:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"track": "boxes"}
    report = predict(request(path, **options), lambda: Walkers(interrupt))
    file = tmp_path / "out" / "a.jsonl"
    done = len(lines(file))
    assert report.interrupted and 0 < done <= 30 and [row["frame"] for row in lines(file)] == list(range(done))
    assert len(shown(tmp_path / "out" / "a.mp4")) == done and no_leftovers(tmp_path)
    with file.open("ab") as end:  # as if killed while it wrote
        end.write(b'{"format": "posezoo/1", "image": "a.a')
    again = predict(request(path, resume=True, **options), Walkers)
    rows = lines(file)
    assert [row["frame"] for row in rows] == list(range(60))
    assert again.videos[0]["resumed"] == done and again.videos[0]["frames"] == 60 - done
    ids = [{person["track_id"] for person in row["people"]} for row in rows]
    assert ids[0] == ids[done - 1] == {1, 2} and ids[done] == ids[-1] == {3, 4}
    assert len(shown(tmp_path / "out" / f"a-from{done}.mp4")) == 60 - done
    assert len(shown(tmp_path / "out" / "a.mp4")) == done
    last = predict(request(path, resume=True, **options), Walkers)
    assert last.videos[0]["frames"] == 0 and not last.failed and len(lines(file)) == 60


@pytest.mark.parametrize("format", ["coco", "csv", "openpose"])
def test_ctrl_c_keeps_a_valid_file_of_every_kind(tmp_path: Path, format: str) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 60)

    def interrupt(seen: int) -> None:
        if seen == 40:
            raise KeyboardInterrupt

    report = predict(request(path, format=format), lambda: Walkers(interrupt))
    found = list(read_results(Path(report.videos[0]["results"])))
    assert report.interrupted and 0 < len(found) == report.images <= 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asked": {"--model": "b.onnx", "--flip": False}}, "--model was a.onnx, now b.onnx"),
        ({"asked": {"--model": "a.onnx", "--flip": True}, "every": 2}, "--flip was off, now on; --every was 3, now 2"),
        ({"track": None}, "--track was on, now off"),
        ({"track": "flow"}, "--flow was off, now on"),
        ({"min_score": 0.5}, "--min-score was not given, now 0.5"),
    ],
)
def test_a_run_goes_on_only_with_the_same_settings(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 12)
    same: dict[str, Any] = {"asked": {"--model": "a.onnx", "--flip": False}, "every": 3, "track": "boxes"}
    assert not predict(request(path, end="6f", **same), Walkers).failed
    results = tmp_path / "out" / "a.jsonl"
    before = results.read_bytes()
    (failed,) = predict(request(path, resume=True, **{**same, **options}), Walkers).failed
    assert failed["error"].startswith(f"{results} is of another run: {message}. Give the same, or another folder")
    assert results.read_bytes() == before
    assert not predict(request(path, resume=True, **same), Walkers).failed
    rows = lines(results)
    assert [row["frame"] for row in rows] == [0, 3, 6, 9] and [row for row in rows if "run" in row] == rows[:1]
    assert [record.frame for record in read_results(results)] == [0, 3, 6, 9]


def test_lines_without_settings_are_gone_on_with(tmp_path: Path) -> None:
    """Those of older releases, and those that other tools wrote."""
    path = clip(tmp_path / "in" / "a.avi", [1] * 4)
    assert not predict(request(path, end="2f"), Walkers).failed
    results = tmp_path / "out" / "a.jsonl"
    rows = [{key: value for key, value in row.items() if key != "run"} for row in lines(results)]
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not predict(request(path, resume=True, track="boxes"), Walkers).failed
    assert [row["frame"] for row in lines(results)] == [0, 1, 2, 3] and "run" not in lines(results)[0]


def test_a_model_file_counts_by_what_is_in_it(tmp_path: Path) -> None:
    path, model = clip(tmp_path / "in" / "a.avi", [1] * 4), tmp_path / "last.onnx"
    model.write_bytes(b"one")
    assert not predict(request(path, end="2f", asked={"--model": str(model)}), Walkers).failed
    moved = model.rename(tmp_path / "in" / "last.onnx")
    assert not predict(request(path, end="3f", resume=True, asked={"--model": str(moved)}), Walkers).failed
    moved.write_bytes(b"two")
    (failed,) = predict(request(path, resume=True, asked={"--model": str(moved)}), Walkers).failed
    assert "--model was last.onnx (sha256 " in failed["error"]


def test_a_resumed_run_must_fit(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 3)
    with pytest.raises(PosezooError, match="--resume needs the format posezoo or jsonl"):
        request(path, resume=True, format="coco")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jsonl").write_text("my notes\n")
    (failed,) = predict(request(path, resume=True), Walkers).failed
    assert "a.jsonl, line 1" in failed["error"]
    assert (tmp_path / "out" / "a.jsonl").read_text() == "my notes\n"
