"""Writing results as they come, being stopped at any time, and wrong files: nothing torn, nothing silently lost."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from format_results import COCO, assert_same, every_format, frames, some_poses, strict, write
from posezoo.errors import PosezooError
from posezoo.formats import FORMATS, Format, Result, open_writer, read_results
from posezoo.formats.jsonl import Resumed, resume
from posezoo.formats.values import list_items
from posezoo.formats.writers import Blocks
from posezoo.skeletons import get_skeleton
from posezoo.types import Poses


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def held_by_this_file() -> int:
    """Bytes that this file's calls hold: threads that an earlier test left behind may take memory too."""
    traces = tracemalloc.take_snapshot().traces
    return sum(trace.size for trace in traces if any(frame.filename == __file__ for frame in trace.traceback))


@every_format
def test_memory_does_not_grow(tmp_path: Path, chosen: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posezoo.formats.parquet.GROUP", 2000)  # cells that it holds before they are written
    poses, held = some_poses(COCO, 5), []
    with open_writer(chosen.name, tmp_path / "out", COCO, video=True) as writer:
        try:
            for frame in range(91):
                writer.add(Result(poses, "a.mp4", frame, frame / 25, (640, 480)))
                if frame == 10:
                    tracemalloc.start(25)  # what is imported with the first results is not looked at
                elif frame % 20 == 10:
                    held.append(held_by_this_file())
        finally:
            tracemalloc.stop()
    # a table of the interpreter's own (that of interned names) may double once; what grows does so between all of them
    growth = statistics.median(np.diff(held))
    assert growth < 40e3, held  # 100 people are some 100 kB as text, and 500 kB as objects


@every_format
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_added_before_ctrl_c_is_a_valid_file(
    tmp_path: Path, chosen: Format, error: type[BaseException]
) -> None:
    records = frames(3)
    with pytest.raises(error):
        with open_writer(chosen.name, tmp_path / "out", COCO, video=True) as writer:
            for record in records:
                writer.add(record)
            raise error
    back = list(read_results(tmp_path / "out"))
    assert len(back) == 3 and leftovers(tmp_path) == []
    for one, other in zip(back, records, strict=True):
        assert_same(one, other, chosen)


@every_format
def test_discarded_files_leave_nothing(tmp_path: Path, chosen: Format) -> None:
    writer = open_writer(chosen.name, tmp_path / "out", COCO, video=True)
    writer.add(frames(1)[0])
    writer.discard()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # each of many files is whole; a video of posezoo's own is one file
    assert len(files) == (chosen.each and chosen.name != "posezoo") and leftovers(tmp_path) == []


@every_format
def test_closing_twice_is_closing_once(tmp_path: Path, chosen: Format) -> None:
    with open_writer(chosen.name, tmp_path / "out", COCO) as writer:
        writer.add(Result(some_poses(COCO), "a.jpg"))
        first = writer.close()
        assert writer.close() == first and first[0].exists()
    assert len(list(read_results(first[0]))) == 1


@every_format
def test_an_earlier_result_stays_until_the_first_of_the_new_ones(tmp_path: Path, chosen: Format) -> None:
    write(chosen.name, tmp_path / "out", frames(2), video=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    writer = open_writer(chosen.name, tmp_path / "out", COCO, video=True)
    writer.discard()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for file in writer.close():
        assert file.is_dir()


@pytest.mark.parametrize("name", [name for name in FORMATS if not FORMATS[name].each and name != "jsonl"])
def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path: Path, name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    (path,) = write(name, tmp_path, frames(1))
    before = path.read_bytes()
    with open_writer(name, path, COCO, video=True) as writer:
        writer.add(frames(2)[1])
        assert path.read_bytes() == before
    assert path.read_bytes() != before


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of a block that did fit is taken back, and what is there can be closed."""
    path = tmp_path / "x.txt"
    blocks = Blocks(path)
    blocks.write("one\n")
    real = blocks._file

    class Full:
        def __init__(self) -> None:
            self.left = 2

        def write(self, data: Any) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            done, self.left = real.write(data[: self.left]), 0
            return done

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    blocks._file = Full()  # type: ignore[assignment]
    with pytest.raises(PosezooError, match=r"cannot write .*x\.txt: No space left on device"):
        blocks.write("two\n")
    assert path.read_text() == "one\n"
    blocks._file = real
    blocks.write("three\n")
    blocks.close()
    assert path.read_text() == "one\nthree\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    with open_writer("jsonl", tmp_path / "out.jsonl", COCO, video=True) as writer:
        with pytest.raises(PosezooError, match=r"cannot write .*out\.jsonl: No space left on device"):
            writer.add(frames(1)[0])


@every_format
def test_a_disk_that_fills_up_leaves_a_whole_file_or_none(
    tmp_path: Path, chosen: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may write files of so many bytes only; what comes after that is refused as on a full disk."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("posezoo.formats.parquet.GROUP", 2000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    added = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(PosezooError, match=r"cannot write .*out/.*: "):
            with open_writer(chosen.name, tmp_path / "out", COCO, video=True) as writer:
                for people in (*[1] * 40, 50):
                    writer.add(frames(1, people, added)[0])
                    added += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert leftovers(tmp_path) == [] and added > 0
    if chosen.name == "parquet":  # its index is its end
        assert list((tmp_path / "out").iterdir()) == []
    else:
        assert len(list(read_results(tmp_path / "out"))) == added


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_formats_streams import COCO, frames
from posezoo.formats import open_writer
from pathlib import Path
writer = open_writer("posezoo", Path(sys.argv[1]), COCO, video=True)
for start in range(0, 10**6, 50):
    for record in frames(50, people=3, start=start):
        writer.add(record)
    print(start, flush=True)
"""


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "clip.jsonl"
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    back = list(read_results(path))
    assert len(back) >= 50 and [record.frame for record in back] == list(range(len(back)))
    resumed = resume(path)
    assert resumed.lines == len(back) and resumed.last is not None and resumed.last.frame == len(back) - 1
    assert resumed.next_track_id == 7 and resumed.images == frozenset()


@pytest.mark.parametrize("cut", [1, 2, 200, 700])
def test_a_cut_last_line_is_left_out_and_gone_on_after(tmp_path: Path, cut: int) -> None:
    (path,) = write("jsonl", tmp_path / "x.jsonl", frames(4), video=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # without its line's end alone the last line can still be read
    assert [record.frame for record in read_results(path)] == [0, 1, 2, 3][: 4 if cut == 1 else 3]
    resumed = resume(path)
    assert resumed.last is not None and (resumed.lines, resumed.last.frame) == (3, 2)
    write("jsonl", path, frames(1, start=3), video=True, resume=True)
    assert path.read_bytes() == whole
    assert resume(path).lines == 4 and path.read_bytes() == whole


def test_lines_are_gone_on_with_after_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At all of them, and at the joints of the last."""
    from posezoo.formats import jsonl

    (path,) = write("jsonl", tmp_path / "x.jsonl", frames(5), video=True)
    looked: list[str] = []
    lines, whole = jsonl._lines, jsonl.from_table
    monkeypatch.setattr(jsonl, "_lines", lambda *given, **how: looked.append("file") or lines(*given, **how))
    monkeypatch.setattr(jsonl, "from_table", lambda *given: looked.append("line") or whole(*given))
    before = resume(path, COCO)
    write("jsonl", path, frames(1, start=5), video=True, resume=before)
    assert looked == ["file", "line"] and before.next_track_id == 5
    assert [record.frame for record in read_results(path)] == list(range(6))


def test_resuming_tells_pictures_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert resume(path) == Resumed()
    records = [Result(some_poses(COCO, 2), "a.jpg"), Result(Poses.empty(COCO), "b.jpg")]
    write("jsonl", path, records)
    assert resume(path).images == {"a.jpg", "b.jpg"} and resume(path).next_track_id == 6
    path.write_bytes(b"")
    assert resume(path) == Resumed()
    path.write_bytes(b'{"form')
    assert resume(path) == Resumed() and path.read_bytes() == b""
    write("jsonl", path, records, resume=True)
    with pytest.raises(PosezooError, match="has the joints of coco17, expected mpii16"):
        open_writer("jsonl", path, get_skeleton("mpii16"), resume=True)
    before = path.read_bytes()
    with pytest.raises(PosezooError, match="has the joints of coco17, expected mpii16"):
        resume(path, get_skeleton("mpii16"))
    assert path.read_bytes() == before
    with pytest.raises(PosezooError, match="coco files cannot be gone on with"):
        open_writer("coco", tmp_path, COCO, resume=True)


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"a": 1}\n', '{"format": "posezoo/9"}\n'])
def test_no_other_file_is_ever_cut(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(PosezooError, match=r"x\.jsonl, line 1"):
        resume(path)
    assert path.read_text() == text


def test_a_torn_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (path,) = write("jsonl", tmp_path, frames(3), video=True)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:50] + "\n" + lines[2])
    with pytest.raises(PosezooError, match=r"results\.jsonl, line 2 is not valid JSON"):
        list(read_results(path))
    path.write_text(lines[0].replace(" ", "") + lines[1])  # as other tools write it again
    assert len(list(read_results(path))) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values, max_size=5), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_a_list_in_pieces_is_the_list(
    tmp_path: Path, values: list[Any], chunk: int, indent: int | None, ascii: bool
) -> None:
    path = tmp_path / "list.json"
    path.write_text(f" {json.dumps(values, indent=indent, ensure_ascii=ascii)}\n", encoding="utf-8")
    assert list(list_items(path, chunk)) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{}", "is not a JSON list"),
        ("[", "cut off after 0 entries"),
        ("[1, 2", "cut off after 2 entries"),
        ("[1, 2,", "cut off after 2 entries"),
        ('[1, {"a": [1', "cut off after 1 entries"),
        ("[1 2]", "entry 1: '2' where a comma should be"),
        ("[1, x]", "entry 1: Expecting value"),
        ("[1, NaN]", "entry 1: NaN is not a number"),
        ("[1] 2", "something follows the list of 1"),
        ("[" * 5000, "entry 0"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    for chunk in (3, 1 << 20):
        with pytest.raises(PosezooError, match=message) as caught:
            list(list_items(path, chunk))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "is empty"),
        ("a.json", "hello", "no results file of a known kind"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "no results file of a known kind"),
        ("a.json", "[1, 2]", "a JSON list of something else"),
        ("a.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "boxes without keypoints"),
        ("a.json", '{"images": [], "annotations": []}', "annotations, not of results"),
        ("a.json", '{"a": 1}', 'a JSON object with "a"'),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[{", "cut off after 0 entries"),
        ("a.json", '{"people": 3}', "has no list 'people'"),
        ("a.json", '{"people": [3]}', "person 0 is 3, expected an object"),
        ("a.json", '{"people": [{}]}', "person 0: 'pose_keypoints_2d' is missing"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2]}]}', r"has 2 values, expected 54 \(18 points\) or 75"),
        ("a.json", '{"bodies": [{"joints": [1]}]}', r"has 1 values, expected 54 \(18 points\)"),
        ("a.json", '[{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}]', "has 3 values, expected 51 numbers"),
        ("a.json", json.dumps([{"image_id": 1, "keypoints": [1] * 78, "score": 1}]), "halpe26 would fit"),
        ("a.json", '[{"image_id": 1, "keypoints": [NaN], "score": 1}]', "NaN is not a number"),
        ("a.csv", "image,nose_x\n", "lacks a column|names no skeleton|^$"),
        ("a.csv", "image;skeleton;nose_x\na.jpg;coco17;1\n", "separated by semicolons"),
        ("a.csv", "image,nose_x\na.jpg,1\n", "row 2 names no skeleton"),
        ("a.csv", "image,skeleton,nose_x\na.jpg,coco17,1\n", "unknown column 'nose_y'; did you mean nose_x"),
        ("a.csv", "image,skeleton,nose_x\na.jpg,coco17\n", "row 2 has 2 cells, expected 3"),
        ("a.parquet", b"PAR1 and no more", "cannot read .*a.parquet as Parquet"),
    ],
)
def test_wrong_files_are_named_with_the_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if message.endswith("^$"):  # a table of nobody says nothing of its joints
        assert list(read_results(path)) == []
        return
    with pytest.raises(PosezooError, match=message) as caught:
        list(read_results(path))
    assert "\n" not in str(caught.value)


def test_wrong_cells_are_named_with_their_column(tmp_path: Path) -> None:
    (path,) = write("csv", tmp_path, frames(2), video=True)
    good = path.read_text()
    header = good.splitlines()[0].split(",")
    for column, value in [("nose_x", "nan"), ("nose_x", "abc"), ("frame", "1.5"), ("track_id", "x"), ("width", "-3")]:
        rows = [line.split(",") for line in good.splitlines()]
        rows[2][header.index(column)] = value
        path.write_text("\n".join(",".join(row) for row in rows))
        with pytest.raises(PosezooError, match=f"row 3: '{column}' is ") as caught:
            list(read_results(path))
        assert value.strip("'") in str(caught.value)


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for options, message in [
        ({"format": "cocoo"}, "unknown format 'cocoo'; did you mean coco"),
        ({"format": "csv", "per_frame": True}, "csv has one file for all; a file for each frame have posezoo, coco"),
        ({"format": "csv", "output": tmp_path / "x.json"}, "csv files end in .csv"),
        ({"format": "openpose", "output": tmp_path / "x.json"}, "openpose has a file for each image: choose a folder"),
        ({"format": "coco", "output": tmp_path / "file"}, "cannot write to the folder .*file is a file"),
        ({"format": "openpose", "output": tmp_path / "file"}, "cannot write to the folder .*file is a file"),
        ({"format": "jsonl", "output": tmp_path / "file"}, "cannot write to the folder .*file is a file"),
    ]:
        with pytest.raises(PosezooError, match=message):
            open_writer(**{"output": tmp_path / "out", "skeleton": COCO, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for name in ("coco", "alphapose"):
        record = Result(some_poses(COCO), "a.jpg")
        with open_writer(name, tmp_path / name, COCO) as writer:
            writer.add(record)
            with pytest.raises(PosezooError, match=r"image a\.jpg is listed twice"):
                writer.add(record)
        with open_writer(name, tmp_path / name, COCO, video=True) as writer:
            writer.add(frames(1)[0])
            with pytest.raises(PosezooError, match=r"frames of a\.mp4 and b\.mp4"):
                writer.add(Result(some_poses(COCO), "b.mp4", 0))


@pytest.mark.parametrize("name", ["alphapose", "cmu", "coco", "openpose", "posezoo"])
def test_fewer_frames_than_before_leave_none_of_the_earlier(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"video": True, "per_frame": True}
    write(name, tmp_path / "out", frames(5), **options)
    others = [Result(some_poses(COCO), image) for image in ("a.jpg", "b_000000000007.jpg")]
    write(name, tmp_path / "out", others, per_frame=True)
    with open_writer(name, tmp_path / "out", COCO, **options) as writer:
        assert len(list((tmp_path / "out").iterdir())) == 7
        for record in frames(2, start=1):
            writer.add(record)
    ending = "_keypoints.json" if name == "openpose" else ".json"
    stems = ["a", "a_000000000001", "a_000000000002", "b_000000000007"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(stem + ending for stem in stems)


@pytest.mark.parametrize("name", ["alphapose", "coco", "posezoo"])
def test_a_file_for_each_frame(tmp_path: Path, name: str) -> None:
    (folder,) = write(name, tmp_path / "out", frames(3), video=True, per_frame=True)
    files = sorted(path.name for path in folder.iterdir())
    assert files == [f"a_{frame:012d}.json" for frame in range(3)]
    table = strict((folder / files[2]).read_text())
    if name != "posezoo":
        assert [entry["image_id"] for entry in table] == ["2.jpg" if name == "alphapose" else 2]
    back = list(read_results(folder))
    for one, other in zip(back, frames(3), strict=True):
        assert_same(one, other, FORMATS[name])


def test_files_are_named_as_their_pictures_and_never_twice(tmp_path: Path) -> None:
    images = ["a/x.jpg", "b/X.png", "x-2.jpg", "rtsp://cam:1/live?u=1", "webcam:0", ""]
    with open_writer("openpose", tmp_path, COCO) as writer:
        files = [writer.add(Result(some_poses(COCO, 1), image)) for image in images]
    stems = [file.name.removesuffix("_keypoints.json") for file in files if file]
    assert stems == ["x", "X-2", "x-2-2", "live_u=1", "webcam_0", "image"]
    with open_writer("posezoo", tmp_path / "n", COCO, name=lambda record: f"mine-{record.image}") as writer:
        assert writer.add(Result(some_poses(COCO, 1), "q")) == tmp_path / "n" / "mine-q.json"
