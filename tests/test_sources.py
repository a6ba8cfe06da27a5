"""Where frames come from: every kind of source, and what each says when it is missing, damaged, unplugged or silent."""

from __future__ import annotations

import http.server
import io
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.media import write_image
from posezoo.media.live import Watched, camera_frames
from posezoo.media.piped import PictureSplitter
from posezoo.media.sources import Camera, PipedPictures, Source, open_source
from posezoo.media.span import Span, make_span
from posezoo.media.writer import VideoWriter


def flat(value: int) -> np.ndarray:
    return np.full((24, 32, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 1.png to 10.png, each of its number, and a file that is none."""
    place = tmp_path / "pictures"
    for number in range(1, 11):
        write_image(place / f"{number}.png", flat(number))
    (place / "notes.md").write_text("nothing")
    return place


def numbers(source: Source) -> list[int]:
    """The values of the frames' pixels."""
    with source:
        return [int(frame.image_rgb[0, 0, 0]) for frame in source]


def test_pictures(folder: Path) -> None:
    assert numbers(open_source(folder)) == list(range(1, 11))
    assert numbers(open_source(folder / "3.png")) == [3]
    assert numbers(open_source(str(folder / "1*.png"))) == [1, 10]
    with open_source(folder, start="2f", end="9f", every=3) as source:
        assert (source.kind, source.fps, source.size_wh, source.total) == ("pictures", None, None, 3)
        assert [path.name for path in source.paths] == ["3.png", "6.png", "9.png"]
        found = [(frame.index, frame.time_s, frame.name) for frame in source]
    assert found == [(index, None, str(folder / f"{index + 1}.png")) for index in (2, 5, 8)]


def test_a_bad_picture_does_not_stop_the_others(folder: Path) -> None:
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:-20])
    source = open_source(folder)
    assert numbers(source) == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert source.skipped == 1
    assert source.failed[0].source == str(folder / "4.png")
    assert "cut off" in str(source.failed[0].error)


@pytest.mark.parametrize(
    ("spec", "options", "why"),
    [
        ("nothing.mp4", {}, "no such file: .*nothing.mp4"),
        ("none*.jpg", {}, "no pictures match"),
        ("n" * 300, {}, "no such file: nnn"),
        ("n" * 300 + "*", {}, "no pictures match"),
        ("a\0b", {}, "no such file: a"),
        ("~nobody_/a", {}, "no such file: ~nobody_/a"),
        ("pictures", {"start": 3}, "pictures have no times; give start and end as frames"),
        ("pictures", {"start": "10f"}, "ends before the start: its last picture is 9f"),
        ("pictures", {"every": 0}, "every must be at least 1"),
        ("pictures/notes.md", {}, "neither a picture .* nor a video"),
    ],
)
def test_wrong_sources(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spec: str, options: dict[str, Any], why: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(PosezooError, match=why) as caught:
        open_source(spec, **options)
    assert "\n" not in str(caught.value)


def test_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    entries = ["# two of them", "", "2.png", f"{folder / '5.png'}", "gone.png", "pictures/7.png", "2.png", "notes.md"]
    entries[4:4] = ["n" * 300]
    (folder / "list.txt").write_text("\ufeff" + "\r\n".join(entries), encoding="utf-8")
    source = open_source(folder / "list.txt")
    assert [failure.source for failure in source.failed] == ["n" * 300, "gone.png"]
    assert source.total == 4
    assert numbers(source) == [2, 5, 7]
    assert source.skipped == 3
    assert ["no such file" in str(failure.error) for failure in source.failed] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no entries"), (b"a.jpg\nb.jpg", "none of the 2 entries .* no such file"), (b"\xff\xfe\0", "text file")],
)
def test_wrong_lists(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(PosezooError, match=why):
        open_source(tmp_path / "list.txt")


def test_gifs(tmp_path: Path) -> None:
    write_image(tmp_path / "still.gif", flat(80))
    with VideoWriter(tmp_path / "moving.gif", (32, 24), 10) as video:
        for value in (40, 80, 120):
            video.add(flat(value))
    with open_source(tmp_path / "still.gif") as still, open_source(tmp_path / "moving.gif") as moving:
        assert (still.kind, len(list(still))) == ("pictures", 1)
        assert (moving.kind, [round(frame.time_s, 3) for frame in moving]) == ("video", [0, 0.1, 0.2])


# stdin


def jpeg(value: int, quality: int = 90) -> bytes:
    noise = np.random.default_rng(value).integers(0, 12, (24, 32, 3), np.uint8)
    return cv2.imencode(".jpg", noise + np.uint8(value), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def with_thumbnail(data: bytes) -> bytes:
    """A JPEG with another, whole one inside a segment, as cameras write them."""
    inner = jpeg(250, 10)
    return data[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + data[2:]


class Dripping(io.BytesIO):
    """A pipe that gives few bytes at once."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.read(7)


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
def test_pictures_from_a_pipe(kind: type[io.BytesIO]) -> None:
    png = cv2.imencode(".png", flat(90))[1].tobytes()
    files = [jpeg(50), png, with_thumbnail(jpeg(100)), jpeg(150), png]
    splitter = PictureSplitter(kind(b"".join(files)))
    assert list(splitter) == files
    assert splitter.skipped == 0


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
def test_a_pipe_with_rubbish_in_it(kind: type[io.BytesIO]) -> None:
    broken = bytearray(cv2.imencode(".png", flat(90))[1].tobytes())
    broken[45:60] = bytes(15)
    data = b"text" * 5 + jpeg(50) + b"\0" * 30 + jpeg(100) + bytes(broken) + jpeg(150) + jpeg(60)[:100]
    source = PipedPictures(Span(), kind(data), None)
    assert [round(value / 50) for value in numbers(source)] == [1, 2, 3]
    assert source.skipped == 4  # text, zeros, the broken picture, and the one that is cut off


def test_a_pipe_without_pictures() -> None:
    for data, why in ((b"", "stdin is empty"), (b"text" * 20, "no JPEG or PNG picture")):
        with pytest.raises(PosezooError, match=why):
            next(PipedPictures(Span(), io.BytesIO(data), None))
    with pytest.raises(PosezooError, match="have no times"):
        PipedPictures(make_span(2, None, 1), io.BytesIO(), None)


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
@pytest.mark.parametrize("begin", [b"\0\0\0\x20ftypisom", b"RIFF\1\2\3\4AVI LIST", b"\x1a\x45\xdf\xa3" + bytes(20)])
def test_a_video_in_a_pipe_is_told(kind: type[io.BytesIO], begin: bytes) -> None:
    """Also where something in it looks like a picture."""
    with pytest.raises(PosezooError, match=r"stdin is a video.*-f image2pipe -c:v mjpeg - \| posezoo predict -"):
        next(PipedPictures(Span(), kind(begin + jpeg(50)), None))
    with pytest.raises(PosezooError, match="no JPEG or PNG picture"):
        next(PipedPictures(Span(), kind(b"\0\0\0\x20ftypheic" + bytes(20)), None))


def test_stdin_as_a_program_gets_it() -> None:
    code = "from posezoo.media.sources import open_source as o; print(*(f.index for f in o('-', start='1f', every=2)))"
    data = b"".join(jpeg(value) for value in range(50, 56))
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"1", b"3", b"5"]


# cameras


class FakeCapture:
    """A camera that gives so many frames, and is then unplugged or hangs."""

    def __init__(self, frames: int, *, hangs: bool = False, opens: bool = True) -> None:
        self.frames, self.hangs, self.opens, self.given, self.released = frames, hangs, opens, 0, False

    def __call__(self, number: int) -> FakeCapture:
        return self

    def isOpened(self) -> bool:
        return self.opens

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.002)
        if self.given >= self.frames:
            if self.hangs:
                time.sleep(1.5)
            return False, None
        self.given += 1
        return True, np.full((24, 32, 3), (self.given, 0, 0), np.uint8)  # BGR

    def release(self) -> None:
        self.released = True


def test_an_unplugged_camera() -> None:
    capture = FakeCapture(12)
    seen = []
    with (
        pytest.raises(PosezooError, match="camera 0 stopped after 12 frames: it was unplugged"),
        Camera(0, Span(), 2, capture) as camera,
    ):
        assert (camera.kind, camera.size_wh, camera.name) == ("live", (32, 24), "webcam:0")
        seen.extend(camera)
    assert len(seen) + camera.dropped == 12
    assert seen[0].index == 0 and seen[0].time_s == 0
    assert [int(frame.image_rgb[0, 0, 2]) for frame in seen] == [frame.index + 1 for frame in seen]
    assert all(a.time_s < b.time_s for a, b in itertools.pairwise(seen))
    assert capture.released


def test_a_slow_asker_gets_what_the_camera_sees_now() -> None:
    with Camera(0, Span(), 2, FakeCapture(1000)) as camera:
        next(camera)
        time.sleep(0.2)
        late = [next(camera) for _ in range(4)]
    assert late[-1].index > 20 and camera.dropped > 10


def test_a_camera_that_hangs() -> None:
    seen, began = [], time.monotonic()
    with pytest.raises(PosezooError, match=r"the camera 0 is silent after \d+ frames: nothing for 0\.3 s"):
        seen.extend(Camera(0, Span(), 0.3, FakeCapture(5, hangs=True)))
    assert time.monotonic() - began < 1.2


def test_cameras_that_are_not_there() -> None:
    with pytest.raises(PosezooError, match="cannot open the camera 3: there is none"):
        Camera(3, Span(), 2, FakeCapture(0, opens=False))
    with pytest.raises(PosezooError, match="the camera 3 gives no pictures"):
        list(camera_frames(3, FakeCapture(0)))
    for spec in ("webcam:97", "97"):
        with pytest.raises(PosezooError, match="cannot open the camera 97"):
            open_source(spec, timeout_s=5)


def test_the_end_of_a_live_span() -> None:
    with Camera(0, make_span(None, "3f", 1), 2, FakeCapture(1000)) as camera:
        assert all(frame.index < 3 for frame in camera)
    with Camera(0, make_span(None, 0.1, 1), 2, FakeCapture(1000)) as camera:
        assert 0 < max(frame.time_s for frame in camera) < 0.1


def test_a_folder_named_like_a_camera_is_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / "0")
    assert numbers(open_source("0", end="2f")) == [1, 2]


def test_errors_of_the_thread_are_raised_where_items_are_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise PosezooError("broken")

    watched = Watched(items, "it", timeout_s=2)
    assert next(watched) == 1
    with pytest.raises(PosezooError, match="broken"):
        next(watched)
    assert list(watched) == []


# streams


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of a clip of 40 frames: whole, broken off half way, silent from there on, or mute."""
    noise = np.random.default_rng(0)
    with VideoWriter(tmp_path / "clip.avi", (160, 120), 25) as video:
        for _ in range(40):
            video.add(noise.integers(0, 255, (120, 160, 3), np.uint8))
    data = (tmp_path / "clip.avi").read_bytes()
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what = self.path.strip("/")
            if what == "mute":
                done.wait(10)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data if what == "whole" else data[: len(data) // 2])
                if what == "silent":
                    done.wait(10)
            except OSError:  # the reader had enough
                return

        def log_message(self, format: str, *args: Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        done.set()
        running.shutdown()


@pytest.fixture(params=["opencv", "pyav"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Streams are read by this library."""
    from posezoo.media import sources, video

    if request.param == "pyav":
        pytest.importorskip("av")
    monkeypatch.setattr(
        sources, "open_decoder", lambda name, timeout_s: video.open_decoder(name, timeout_s, request.param)
    )
    return str(request.param)


def test_a_stream_with_an_end_is_a_video(server: str, backend: str) -> None:
    with open_source(f"{server}/whole", timeout_s=5, every=2) as stream:
        assert (stream.kind, stream.total, stream.size_wh) == ("video", 20, (160, 120))
        assert [frame.index for frame in stream] == list(range(0, 40, 2))


@pytest.mark.parametrize(("what", "why"), [("short", r"stopped after \d+ frames"), ("silent", "nothing came for 1 s")])
def test_a_stream_that_stops(server: str, backend: str, what: str, why: str) -> None:
    seen, began = [], time.monotonic()
    with pytest.raises(PosezooError, match=why), open_source(f"{server}/{what}", timeout_s=1) as stream:
        seen.extend(stream)
    assert 10 < len(seen) < 30  # what came is kept
    assert time.monotonic() - began < 5


def test_streams_that_are_not_there(server: str, backend: str) -> None:
    for address in (f"{server}/mute", "rtsp://127.0.0.1:9/camera"):
        with pytest.raises(PosezooError, match=f"cannot open the stream {address}: ") as caught:
            open_source(address, timeout_s=1)
        assert "\n" not in str(caught.value)


def test_leaving_early_lets_go(server: str, backend: str) -> None:
    with open_source(f"{server}/whole", timeout_s=5) as stream:
        next(stream)
    assert "posezoo-live" not in [thread.name for thread in threading.enumerate() if thread.is_alive()]
