"""Reading and writing videos: order, times, rotation, damage, full disks, flat memory; by both of the two libraries."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.media.sources import VideoFile, open_source
from posezoo.media.span import Span, make_span, parse_mark
from posezoo.media.video import is_cut_off, open_decoder
from posezoo.media.writer import VideoWriter

NEEDS_PYAV = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV (the extra video)")
BACKENDS = ["opencv", pytest.param("pyav", marks=NEEDS_PYAV)]


def scene(index: int, size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame whose brightness tells its number, with a red square at the top left, so that a turn shows."""
    width, height = size_wh
    image = np.full((height, width, 3), 30 + 8 * (index % 24), np.uint8)
    image[: height // 3, : width // 3] = (220, 30, 40)
    return image


def number_of(image_rgb: np.ndarray) -> int:
    """The inverse of `scene`, below 24."""
    height, width = image_rgb.shape[:2]
    return round((float(image_rgb[height // 2 :, width // 2 :].mean()) - 30) / 8)


def clip(path: Path, frames: int, backend: str = "opencv", size_wh: tuple[int, int] = (64, 48)) -> Path:
    with VideoWriter(path, size_wh, 25, backend) as video:
        for index in range(frames):
            video.add(scene(index, size_wh))
    return path


def turned(path: Path, degrees: int) -> Path:
    """The MP4 with another matrix in its track header (ISO 14496-12, 8.3.2): shown turned clockwise."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (v << 16 for v in {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def damaged(path: Path, which: list[int]) -> Path:
    """An AVI whose frames of these numbers are overwritten."""
    data, starts = bytearray(path.read_bytes()), []
    at = data.find(b"movi")
    while (at := data.find(b"00dc", at + 4)) >= 0:
        starts.append(at)
    for index in which:
        begin = starts[index] + 8
        length = int.from_bytes(data[begin - 4 : begin], "little")
        data[begin : begin + length] = b"\x55" * length
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("reader", BACKENDS)
@pytest.mark.parametrize("writer", BACKENDS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, writer: str, reader: str) -> None:
    path = clip(tmp_path / f"clip{suffix}", 20, writer)
    with VideoFile(str(path), Span(), reader) as video:
        assert (video.kind, video.total, video.size_wh) == ("video", 20, (64, 48))
        assert video.fps == pytest.approx(25, rel=0.02)
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 25 for index in range(20)], abs=1e-3)
    assert [number_of(frame.image_rgb) for frame in frames] == list(range(20))
    red, green, blue = (int(v) for v in frames[0].image_rgb[5, 5])
    assert red > 170 and green < 90 and blue < 90
    assert video.skipped == 0 and frames[0].name == str(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_odd_sizes(tmp_path: Path, suffix: str, backend: str) -> None:
    path = clip(tmp_path / f"clip{suffix}", 3, backend, (65, 49))
    with VideoFile(str(path), Span(), backend) as video:
        assert video.size_wh == ((65, 49) if suffix == ".gif" else (66, 50))
        last = list(video)[-1].image_rgb
    assert np.abs(last[:49, 64].astype(int) - scene(2, (65, 49))[:, 64].astype(int)).max() < 20


TIMES = [5.0, 5.04, 5.24, 5.34, 5.9, 6.0]


@NEEDS_PYAV
@pytest.mark.parametrize("reader", BACKENDS)
def test_variable_rate_is_kept_in_mp4(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, (64, 48), 25, "pyav") as video:
        for index, time_s in enumerate(TIMES):
            video.add(scene(index), time_s)
    with VideoFile(str(path), Span(), reader) as frames:
        assert [frame.time_s for frame in frames] == pytest.approx([t - 5 for t in TIMES], abs=1e-3)


def test_a_steady_format_repeats_frames_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    with VideoWriter(path, (64, 48), 25) as video:
        for index, time_s in enumerate(TIMES):
            video.add(scene(index), time_s)
        assert video.frames == len(TIMES)
    with VideoFile(str(path), Span()) as frames:
        shown = {round(frame.time_s * 25): number_of(frame.image_rgb) for frame in frames}
    assert [shown[round(25 * (t - 5))] for t in TIMES] == list(range(6))
    assert len(shown) == 26 and shown[4] == 1


def test_gif_keeps_times_in_hundredths(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    with VideoWriter(path, (64, 48), 25) as video:
        for index, time_s in enumerate([0.0, 0.1, 0.105, 0.15, 1.15]):  # the third comes too soon to be shown
            video.add(scene(index), time_s)
    with open_source(path) as frames:
        seen = [(round(frame.time_s, 2), number_of(frame.image_rgb)) for frame in frames]
    assert seen == [(0.0, 0), (0.1, 1), (0.15, 3), (1.15, 4)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("degrees", "corner"), [(90, "top right"), (180, "bottom right"), (270, "bottom left")])
def test_rotation_is_applied(tmp_path: Path, backend: str, degrees: int, corner: str) -> None:
    path = turned(clip(tmp_path / "clip.mp4", 3), degrees)
    with VideoFile(str(path), Span(), backend) as video:
        assert video.size_wh == ((64, 48) if degrees == 180 else (48, 64))
        image = next(video).image_rgb
    assert image.shape[1::-1] == video.size_wh
    y, x = (-5 if "bottom" in corner else 4), (-5 if "right" in corner else 4)
    assert image[y, x, 0] > 170
    assert image.flags.c_contiguous


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_frames_are_skipped_and_counted(tmp_path: Path, backend: str) -> None:
    path = damaged(clip(tmp_path / "clip.avi", 20), [5, 6, 12])
    with VideoFile(str(path), Span(), backend) as video:
        numbers = {frame.index: number_of(frame.image_rgb) for frame in video}
    assert numbers == {index: index for index in range(20) if index not in (5, 6, 12)}
    assert video.skipped == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_span_of_a_video(tmp_path: Path, backend: str) -> None:
    path = str(clip(tmp_path / "clip.mp4", 20))

    def taken(start: str | float | None = None, end: str | float | None = None, every: int = 1) -> list[int]:
        with VideoFile(path, make_span(start, end, every), backend) as video:
            frames = list(video)
            assert video.total == len(frames)
            assert [number_of(frame.image_rgb) for frame in frames] == [frame.index for frame in frames]
            return [frame.index for frame in frames]

    assert taken() == list(range(20))
    assert taken("5f", "8f") == [5, 6, 7]
    assert taken(0.4, "0:0.52") == [10, 11, 12]
    assert taken("3f", every=5) == [3, 8, 13, 18]
    assert taken(end=100) == list(range(20))
    with pytest.raises(PosezooError, match=r"ends before the start: its last frame is 19f, at 0\.8 s"):
        taken(5)


@pytest.mark.parametrize(
    ("given", "seconds", "frame"),
    [("12.5", 12.5, None), (3, 3.0, None), ("1:02:03.5", 3723.5, None), ("2:03", 123.0, None), ("120f", None, 120)],
)
def test_marks(given: str | float, seconds: float | None, frame: int | None) -> None:
    mark = parse_mark(given, "start")
    assert mark is not None and (mark.seconds, mark.frame) == (seconds, frame)


@pytest.mark.parametrize("given", ["x", "-1", "1:99", "1:60:00", "", "nan", "f", "1.5f", "inf"])
def test_wrong_marks(given: str) -> None:
    with pytest.raises(PosezooError, match="start must be seconds"):
        parse_mark(given, "start")


def test_wrong_spans() -> None:
    with pytest.raises(PosezooError, match="must come after the start"):
        make_span("0:10", "5", 1)
    with pytest.raises(PosezooError, match="every must be at least 1"):
        make_span(None, None, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_that_are_no_video(tmp_path: Path, backend: str) -> None:
    text, empty, sound = tmp_path / "notes.mp4", tmp_path / "empty.mp4", tmp_path / "song.wav"
    text.write_text("not a video\n" * 40)
    empty.touch()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    for path, why in ((text, "nor a video"), (empty, r"empty \(0 bytes\)"), (sound, "no video|nor a video")):
        with pytest.raises(PosezooError, match=f"{path.name}: .*{why}") as caught:
            open_decoder(str(path), backend=backend)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cut_off_files(tmp_path: Path, backend: str) -> None:
    whole = clip(tmp_path / "whole.mp4", 20)
    assert not is_cut_off(whole)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(PosezooError, match="cut off before its index"):
        open_decoder(str(cut), backend=backend)
    film = clip(tmp_path / "film.avi", 20)
    data = film.read_bytes()
    first, index = data.find(b"movi"), data.find(b"idx1")
    film.write_bytes(data[: (first + index) // 2])
    frames = []
    with (
        pytest.raises(PosezooError, match=r"cut off: \d+ frames could be read"),
        VideoFile(str(film), Span(), backend) as video,
    ):
        frames.extend(frame.index for frame in video)
    assert 4 <= len(frames) < 15  # those before the cut were given


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = damaged(clip(tmp_path / "clip.avi", 3), [0, 1, 2])
    with pytest.raises(PosezooError, match="no frame that can be decoded"):
        open_source(path)


def test_real_clips(shared: Path) -> None:
    with open_source(shared / "samples_free" / "pedestrians.avi", start="0:10", end="10.5", every=2) as video:
        frames = list(video)
    assert (video.fps, video.size_wh) == (10, (768, 576))
    assert [frame.index for frame in frames] == [100, 102, 104]
    assert [frame.time_s for frame in frames] == pytest.approx([10.0, 10.2, 10.4])


def test_a_stopped_writer_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, (64, 48), 25) as video:
        for index in range(7):
            video.add(scene(index))
        assert not path.exists()
        raise KeyboardInterrupt
    with open_source(path) as frames:
        assert len(list(frames)) == 7
    with VideoWriter(tmp_path / "none.gif", (64, 48), 25):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["clip.mp4"]


FULL = """
import resource, sys
import numpy as np
from posezoo.errors import PosezooError
from posezoo.media.writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
random = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], (160, 120), 25, sys.argv[2]) as video:
        for _ in range(40):
            video.add(random.integers(0, 255, (120, 160, 3), np.uint8))
except PosezooError as err:
    print(err)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on file sizes stands for the full disk")
@pytest.mark.parametrize(
    ("name", "backend", "limit"),
    [
        ("clip.mp4", "opencv", 60_000),
        pytest.param("clip.mp4", "pyav", 60_000, marks=NEEDS_PYAV),
        pytest.param("clip.mp4", "pyav", 0, marks=NEEDS_PYAV),
        ("clip.avi", "auto", 60_000),
        ("clip.gif", "auto", 60_000),
    ],
)
def test_a_full_disk(tmp_path: Path, name: str, backend: str, limit: int) -> None:
    (tmp_path / name).write_bytes(b"what was there before")
    arguments = [sys.executable, "-c", FULL, str(tmp_path / name), backend, str(limit)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / name}: ")
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"what was there before"


def test_wrong_use_of_the_writer(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=r"suffix must be one of \.mp4 \.avi \.gif"):
        VideoWriter(tmp_path / "clip.mkv", (64, 48), 25)
    with pytest.raises(PosezooError, match="frames a second"):
        VideoWriter(tmp_path / "clip.mp4", (64, 48), 0)
    (tmp_path / "file").touch()
    with pytest.raises(PosezooError, match="is a file"):
        VideoWriter(tmp_path / "file" / "clip.mp4", (64, 48), 25)
    video = VideoWriter(tmp_path / "clip.mp4", (64, 48), 25)
    with pytest.raises(PosezooError, match="frame of 32x32 pixels among those of 64x48"):
        video.add(np.zeros((32, 32, 3), np.uint8))
    video.close()
    with pytest.raises(PosezooError, match="it is closed"):
        video.add(scene(0))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def copy_and_watch(folder: Path, frames: int, size_wh: tuple[int, int], backend: str) -> int:
    """Write a clip and copy it; how much the memory grew from a quarter of the way to the end of each."""
    grown, quarter = [], frames // 4
    first, second = folder / "first.mp4", folder / "second.mp4"
    with VideoWriter(first, size_wh, 25, backend) as video:
        for index in range(frames):
            if index == quarter:
                before = resident_bytes()
            video.add(scene(index, size_wh))
        grown.append(resident_bytes() - before)
    with VideoFile(str(first), Span(), backend) as source, VideoWriter(second, size_wh, 25, backend) as video:
        for frame in source:
            if frame.index == quarter:
                before = resident_bytes()
            video.add(frame.image_rgb, frame.time_s)
        assert video.frames == frames
        grown.append(resident_bytes() - before)
    return max(grown)


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@needs_proc
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_flat(tmp_path: Path, backend: str) -> None:
    # the frames after the first quarter take 16 MB where they are kept
    assert copy_and_watch(tmp_path, 300, (192, 128), backend) < 8e6


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_flat_over_ten_thousand_frames(tmp_path: Path, backend: str) -> None:
    # 691 MB where they are kept
    assert copy_and_watch(tmp_path, 10_000, (192, 160), backend) < 20e6
