"""The loop of `predict` over frames: in order, as they come, in bounded memory, and what was done is kept."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.detect.boxes_file import BoxesFile
from posezoo.draw import Trails
from posezoo.errors import PosezooError
from posezoo.formats import FORMATS, read_results
from posezoo.media import read_image, write_image
from posezoo.media.sources import Frame, Source, VideoFile, open_source
from posezoo.media.span import make_span
from posezoo.media.writer import VideoWriter
from posezoo.predict import Look, Request, predict
from posezoo.smooth import OneEuro
from posezoo.track import Tracker
from posezoo.types import Poses
from video_fixtures import COCO, FPS, Walkers, clip, lines, no_leftovers, request, shown


def test_a_video_gives_lines_and_an_annotated_video(tmp_path: Path) -> None:
    people = [0, 1, 2, 3] * 6 + [1]
    path = clip(tmp_path / "in" / "street.avi", people)
    steps: list[Any] = []
    stub = Walkers()
    report = predict(request(path), lambda: stub, lambda *done: steps.append(done))
    out = tmp_path / "out"
    rows = lines(out / "street.jsonl")
    assert [row["frame"] for row in rows] == list(range(25)) and [len(row["people"]) for row in rows] == people
    assert [row["time"] for row in rows] == pytest.approx([n / FPS for n in range(25)], abs=1e-3)
    assert rows[0]["image"] == str(path) and (rows[0]["width"], rows[0]["height"]) == (64, 48)
    assert stub.names == [f"{path}#{n}" for n in range(25)] and max(stub.chunks) == 8
    (row,) = report.videos
    assert (row["frames"], row["people"], row["tracks"], row["skipped"]) == (25, sum(people), None, 0)
    assert row["results"] == str(out / "street.jsonl") and row["video"] == str(out / "street.mp4")
    assert steps == [(n, 25) for n in range(1, 26)] and report.people == sum(people) and report.images == 25
    frames = shown(out / "street.mp4")
    assert len(frames) == 25 and frames[3].image_rgb.shape == (48, 64, 3)
    assert np.abs(frames[3].image_rgb.astype(int) - 180).max() > 40 > np.abs(frames[0].image_rgb.astype(int)).max()
    assert not report.failed and sorted(p.name for p in out.iterdir()) == ["street.jsonl", "street.mp4"]


def test_results_grow_as_the_frames_come(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 120)
    behind: list[int] = []

    def look(seen: int) -> None:
        file = tmp_path / "out" / "a.jsonl"
        behind.append(seen - (file.read_bytes().count(b"\n") if file.exists() else 0))

    predict(request(path), lambda: Walkers(look))
    assert max(behind) <= 8 + 16 + 16 + 2 and min(behind[60:]) < 60
    assert len(lines(tmp_path / "out" / "a.jsonl")) == 120


@pytest.mark.parametrize("frames", [600, pytest.param(12000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory held from /proc")
def test_memory_is_flat(tmp_path: Path, frames: int) -> None:
    # the short one does without what only takes time, so that all are done in seconds
    long = frames > 1000
    path = clip(tmp_path / "in" / "long.avi", (1 + n % 3 if long else n // 100 % 2 for n in range(frames)))
    options = {"smooth": True, "look": Look(trails=True)} if long else {"look": Look(theme="fast")}
    held: dict[int, float] = {}
    alive = 0

    def look(seen: int) -> None:
        nonlocal alive
        alive = max(alive, sum(frame() is not None for frame in stub.seen[-200:]))

    def note(done: int, _: int | None) -> None:
        if done % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            held[done] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    stub = Walkers(look)
    report = predict(request(path, track="boxes", **options), lambda: stub, note)
    assert report.images == frames and report.videos[0]["tracks"] >= 1
    assert alive <= 8 + 16 + 16 + 4  # a chunk, what waits to be drawn and to be written, and those in hand
    assert held[frames] - held[500] < 6, held
    with (tmp_path / "out" / "long.jsonl").open() as file:
        assert sum(1 for _ in file) == frames


def test_large_frames_wait_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 40)
    monkeypatch.setattr("posezoo.predict.frames._waiting", lambda _: 200_000_000)
    monkeypatch.setattr("posezoo.predict.frames._waiting_drawn", lambda _: 200_000_000)
    written, most, lock = 0, 0, threading.Lock()
    add = VideoWriter.add

    def slow(self: VideoWriter, *given: Any) -> None:
        nonlocal written
        time.sleep(0.002)
        add(self, *given)
        with lock:
            written += 1

    def look(seen: int) -> None:
        nonlocal most
        most = max(most, seen - written)

    monkeypatch.setattr(VideoWriter, "add", slow)
    assert predict(request(path), lambda: Walkers(look)).images == 40
    assert most <= 3


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("people", [[1, 2, 0, 3], [0, 0, 0]])
def test_every_format(tmp_path: Path, format: str, people: list[int]) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    path = clip(tmp_path / "in" / "a.avi", people)
    pictures = [tmp_path / "in" / f"p{n}.png" for n in range(len(people))]
    for count, picture in zip(people, pictures, strict=True):
        write_image(picture, np.full((48, 64, 3), 60 * count, np.uint8))
    options: dict[str, Any] = {"format": format, "pictures": False, "track": "boxes"}
    report = predict(Request([str(path), str(tmp_path / "in")], tmp_path / "out", **options), Walkers)
    assert not report.failed and report.people == 2 * sum(people)
    out = tmp_path / "out"
    # posezoo's pictures are files of their own in the folder that the video's lines are in
    still = [file for file in sorted(out.iterdir()) if file.stem[0] == "p"] if FORMATS[format].each else []
    for places in ([Path(report.videos[0]["results"])], still or [Path(report.results or "")]):
        found = [each for place in places for each in read_results(place, skeleton=COCO)] if sum(people) else []
        assert sum(len(each.poses) for each in found) == sum(people)
    if FORMATS[format].lists:
        assert (json.loads(Path(report.videos[0]["results"]).read_text()) == []) == (sum(people) == 0)


def test_a_file_for_each_frame(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1, 0, 2])
    report = predict(request(path, format="coco", per_frame=True, pictures=False), Walkers)
    names = sorted(file.name for file in Path(report.videos[0]["results"]).iterdir())
    assert report.videos[0]["results"] == str(tmp_path / "out" / "a")
    assert names == [f"a_{n:012d}.json" for n in range(3)]
    with pytest.raises(PosezooError, match="csv has one file for all"):
        request(path, format="csv", per_frame=True)


def test_pictures_and_videos_together(tmp_path: Path) -> None:
    a, b = clip(tmp_path / "x" / "a.avi", [1] * 5), clip(tmp_path / "y" / "a.avi", [2] * 4)
    write_image(tmp_path / "x" / "a.png", np.full((48, 64, 3), 60, np.uint8))
    sources = [str(a), str(tmp_path / "x" / "a.png"), "gone.mp4", str(b)]
    report = predict(Request(sources, tmp_path / "out"), Walkers)
    assert [row["frames"] for row in report.videos] == [5, 4] and len(report.written) == report.total == 1
    assert [row["source"] for row in report.failed] == ["gone.mp4"]
    names = {"a.jsonl", "a.mp4", "a-2.jsonl", "a-2.mp4", "a-3.json", "a-3.jpg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    with pytest.raises(PosezooError, match=r"holds the source a\.avi"):
        predict(Request([str(a)], tmp_path / "x"), Walkers)


def test_a_folder_or_glob_of_videos(tmp_path: Path) -> None:
    for name in ("b.avi", "a.avi"):
        clip(tmp_path / "in" / name, [1] * 3)
    for spec in ("in", "in/*.avi", "**/*.avi"):
        report = predict(Request([str(tmp_path / spec)], tmp_path / "out" / spec[:2], pictures=False), Walkers)
        assert [Path(row["source"]).name for row in report.videos] == ["a.avi", "b.avi"] and not report.failed
    write_image(tmp_path / "in" / "p.png", np.zeros((48, 64, 3), np.uint8))
    report = predict(Request([str(tmp_path / "in")], tmp_path / "all"), Walkers)
    assert report.total == 1 and not report.videos  # a folder of pictures is what it always was


def test_a_list_with_entries_that_are_missing(tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", np.full((48, 64, 3), 60, np.uint8))
    (tmp_path / "list.txt").write_text("gone.png\np.png\n")
    report = predict(Request([str(tmp_path / "list.txt")], tmp_path / "out"), Walkers)
    assert [row["people"] for row in report.written] == [1]
    assert [row["source"] for row in report.failed] == ["gone.png"]


def test_only_a_part_is_done(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 30)
    report = predict(request(path, start="10f", end="0:00.8", every=3), Walkers)
    assert [row["frame"] for row in lines(tmp_path / "out" / "a.jsonl")] == [10, 13, 16, 19]
    frames = shown(tmp_path / "out" / "a.mp4")
    assert len(frames) == 4 and frames[3].time_s == pytest.approx(9 / FPS, abs=0.01)  # no faster than it was
    assert report.images == 4
    late = predict(request(path, start="99"), Walkers)
    assert "ends before the start" in late.failed[0]["error"]


@pytest.mark.parametrize("format", ["csv", "coco", "alphapose", "jsonl"])
def test_a_video_that_is_called_as_the_list_of_pictures_is(tmp_path: Path, format: str) -> None:
    stem = Path(FORMATS[format].file).stem
    video = clip(tmp_path / "in" / f"{stem.upper()}.avi", [1, 2])
    write_image(tmp_path / "in" / f"{stem}.png", np.full((48, 64, 3), 180, np.uint8))
    report = predict(Request([str(video), str(tmp_path / "in")], tmp_path / "out", format=format), Walkers)
    files = [Path(report.videos[0]["results"]), Path(report.results or "")]
    assert [file.stem for file in files] == [stem.upper(), f"{stem}-2"] and not report.failed
    assert [sum(len(each.poses) for each in read_results(file)) for file in files] == [3, 3]
    assert (tmp_path / "out" / f"{stem.upper()}.mp4").exists()
    alone = predict(Request([str(video)], tmp_path / "alone", format=format), Walkers)
    assert Path(alone.videos[0]["results"]).stem == stem.upper()


class Untimed(Source):
    """Frames from another program, which says nothing of their time."""

    def _read(self) -> Iterator[Frame]:
        for index in range(0, 40, self._span.every):
            yield Frame(np.full((48, 64, 3), 60, np.uint8), index, None, self.name)


@pytest.mark.parametrize("kind", ["stdin", "pictures"])
def test_frames_without_a_time_are_timed_by_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    times: dict[str, list[float]] = {"track": [], "smooth": [], "trails": []}

    def note(owner: Any, method: str, name: str) -> None:
        call = getattr(owner, method)

        def noted(self: Any, *given: Any) -> Any:
            times[name].append(given[-1])
            return call(self, *given)

        monkeypatch.setattr(owner, method, noted)

    note(Tracker, "__call__", "track")
    note(OneEuro, "__call__", "smooth")
    note(Trails, "add", "trails")
    sources = ["-"]
    if kind == "stdin":
        monkeypatch.setattr(
            "posezoo.predict.run.open_source", lambda *_, **__: Untimed("stdin", make_span(None, None, 8))
        )
    else:
        sources = [str(tmp_path / name) for name in ("in", "more")]
        for n in range(40):
            write_image(tmp_path / ("in" if n < 24 else "more") / f"{n:02}.png", np.full((48, 64, 3), 60, np.uint8))
    options: dict[str, Any] = {"track": "boxes", "smooth": True, "look": Look(trails=True), "every": 8, "fps": 10}
    report = predict(Request(sources, tmp_path / "out", **options), Walkers)
    expected = pytest.approx([0, 0.8, 1.6, 2.4, 3.2])
    assert not report.failed and times == {"track": expected, "smooth": expected, "trails": expected}
    if kind == "stdin":
        assert all("time" not in row for row in lines(tmp_path / "out" / "stdin.jsonl"))


@pytest.mark.parametrize("track", ["boxes", "flow"])
def test_frames_in_a_folder_are_followed(tmp_path: Path, track: str) -> None:
    for n in range(12):
        image = np.random.default_rng(1).integers(100, 140, (48, 64, 3)).astype(np.uint8)
        write_image(tmp_path / "in" / f"{n}.png", image)
    report = predict(Request([str(tmp_path / "in")], tmp_path / "out", track=track, smooth=True, fps=10), Walkers)
    assert [Path(row["image"]).stem for row in report.written] == [str(n) for n in range(12)]
    rows = [json.loads((tmp_path / "out" / f"{n}.json").read_text()) for n in range(12)]
    assert [[person["track_id"] for person in row["people"]] for row in rows] == [[1, 2]] * 12
    assert all("time" not in row and "frame" not in row for row in rows)


def test_a_detector_that_follows_is_told_of_every_frame(tmp_path: Path) -> None:
    class Follows:
        def __init__(self) -> None:
            self.log: list[str] = []

        def reset(self) -> None:
            self.log.append("reset")

        def tell(self, poses: Poses) -> None:
            self.log.append("told")

        def __call__(self, images: Any, names: Any) -> None:
            self.log.append("asked")

    path = clip(tmp_path / "in" / "a.avi", [1] * 5)
    follows = Follows()
    predict(request(path), lambda: Walkers(detector=follows))
    assert follows.log == ["reset", *["asked", "told"] * 5]


def test_a_boxes_file_of_another_video(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 5)
    (tmp_path / "boxes.json").write_text('{"b.avi#0": [[1, 1, 5, 5]], "b.avi#1": []}')
    (failed,) = predict(request(path), lambda: Walkers(detector=BoxesFile.read(tmp_path / "boxes.json"))).failed
    assert "has none of the pictures (it has, for example, 'b.avi#0')" in failed["error"]
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "boxes.json").write_text('{"a.avi#3": [[1, 1, 5, 5]]}')
    assert predict(request(path), lambda: Walkers(detector=BoxesFile.read(tmp_path / "boxes.json"))).images == 5


def test_a_full_disk_keeps_the_lines_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.formats.writers import Blocks

    path, write = clip(tmp_path / "in" / "a.avi", [1] * 40), Blocks.write
    other = clip(tmp_path / "in" / "b.avi", [1] * 3)

    def full(self: Blocks, text: str) -> None:
        if '"frame": 20' in text:
            raise PosezooError("cannot write a.jsonl: No space left on device")
        write(self, text)

    monkeypatch.setattr(Blocks, "write", full)
    report = predict(Request([str(path), str(other)], tmp_path / "out"), Walkers)
    assert [row["error"] for row in report.failed] == ["cannot write a.jsonl: No space left on device"]
    assert len(lines(tmp_path / "out" / "a.jsonl")) == 20 == len(shown(tmp_path / "out" / "a.mp4"))
    assert [row["frames"] for row in report.videos] == [20, 3] and no_leftovers(tmp_path)


def test_results_go_on_without_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, add = clip(tmp_path / "in" / "a.avi", [1] * 40), VideoWriter.add

    def refuse(self: VideoWriter, *given: Any) -> None:
        if self.frames == 10:
            self._fail(OSError(28, "No space left on device"))
        add(self, *given)

    monkeypatch.setattr(VideoWriter, "add", refuse)
    report = predict(request(path), Walkers)
    assert len(report.failed) == 1 and "a.mp4: No space left on device" in report.failed[0]["error"]
    assert len(lines(tmp_path / "out" / "a.jsonl")) == 40 and "video" not in report.videos[0]
    assert no_leftovers(tmp_path) and not (tmp_path / "out" / "a.mp4").exists()


def test_our_own_mistakes_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 40)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("posezoo.draw.draw_poses", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        predict(request(path), Walkers)
    assert no_leftovers(tmp_path) and not (tmp_path / "out" / "a.mp4").exists()


def test_a_rate_that_nothing_plays_is_unknown(tmp_path: Path) -> None:
    """Some files say the ticks of their clock; each frame has a time of its own all the same."""
    av = pytest.importorskip("av")
    path = tmp_path / "in" / "a.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=2000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(6):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.fps is None and source.total == 6
    report = predict(request(path), Walkers)
    assert not report.failed and len(shown(tmp_path / "out" / "a.mp4")) == 6
    assert [row["time"] for row in lines(tmp_path / "out" / "a.jsonl")] == pytest.approx([n / 2000 for n in range(6)])


@pytest.mark.parametrize("format", ["avi", "gif"])
def test_the_look_of_a_video(tmp_path: Path, format: str) -> None:
    path = clip(tmp_path / "in" / "a.avi", [2] * 6)
    look = Look(boxes=True, names=True, trails=True, side_by_side=True, theme="mono")
    report = predict(request(path, look=look, video_format=format, track="boxes"), Walkers)
    frame = shown(Path(report.videos[0]["video"]))[-1].image_rgb
    assert report.videos[0]["video"].endswith(f"a.{format}") and frame.shape[1] > 2 * 64
    assert np.abs(frame[:, :64].astype(int) - 120).max() < 40 < np.abs(frame[:, -60:].astype(int) - 120).max()


def test_frames_as_pictures(tmp_path: Path) -> None:
    path = clip(tmp_path / "in" / "a.avi", [1] * 3)
    report = predict(request(path, videos=False, frame_pictures=True, pictures_folder="vis", results="r.json",
                             format="alphapose"), Walkers)  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out" / "vis").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    assert read_image(tmp_path / "out" / "vis" / "2.jpg").shape == (48, 64, 3) and "video" not in report.videos[0]
    entries = json.loads((tmp_path / "out" / "r.json").read_text())
    assert [entry["image_id"] for entry in entries] == ["0.jpg", "1.jpg", "2.jpg"]


def test_frames_are_read_ahead_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, threads, ahead = clip(tmp_path / "in" / "a.avi", [1] * 60), set(), []
    read, given, until = VideoFile.__next__, 0, time.monotonic() + 20

    def noting(self: VideoFile) -> Frame:
        nonlocal given
        threads.add(threading.current_thread().name)
        frame = read(self)
        given += 1
        return frame

    def look(seen: int) -> None:
        time.sleep(0.001)
        while max(given - seen, *ahead, 0) <= 8 and time.monotonic() < until:  # a busy machine takes its time
            time.sleep(0.001)
        ahead.append(given - seen)

    monkeypatch.setattr(VideoFile, "__next__", noting)
    predict(request(path, pictures=False), lambda: Walkers(look))
    assert all(name.startswith("posezoo-ahead") for name in threads)
    assert 8 < max(ahead) <= 8 + 16 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_format": "mkv"}, "unknown video format 'mkv'"),
        ({"track": "sort"}, "unknown tracker 'sort'"),
        ({"fps": 0}, "fps must be above 0"),
        ({"every": 0}, "every must be at least 1"),
        ({"start": "soon"}, "start must be seconds"),
        ({"look": Look(theme="drak")}, "unknown theme 'drak'"),
    ],
)
def test_mistakes_in_a_request(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        request(tmp_path / "in" / "a.avi", **options)
