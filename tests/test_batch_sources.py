"""What `posezoo batch` finds and reads: folders, lists, Parquet tables and tar files, whole and broken."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from posezoo.errors import PosezooError
from posezoo.estimator import Estimator

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from batch_fixtures import encoded, here, pictures, shard  # noqa: E402
from posezoo.batch import read  # noqa: E402
from posezoo.batch.plan import Part, Settings  # noqa: E402
from posezoo.batch.read import Entry, choose_columns, read_item  # noqa: E402
from posezoo.batch.sources import Item, find_items  # noqa: E402
from posezoo.batch.work import _estimate  # noqa: E402


def said(entries: Sequence[Entry]) -> list[tuple[str, bool]]:
    return [(entry.image, isinstance(entry.data, PosezooError)) for entry in entries]


# ---- what is found


def test_a_folder_gives_what_is_right_in_it_in_natural_order(here: Path) -> None:
    for name in ("p10.jpg", "p2.JPG", "a.tar.gz", "clip.mp4", "notes.md", ".hidden.jpg", "deep/x.jpg"):
        (here / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (here / "in" / name).write_bytes(b"x")
    found = [(item.kind, Path(item.path).name) for item in find_items(["in"])]
    assert found == [("tar", "a.tar.gz"), ("video", "clip.mp4"), ("picture", "p2.JPG"), ("picture", "p10.jpg")]
    assert [item.path for item in find_items(["in/**/*.jpg"])] == ["in/deep/x.jpg", "in/p10.jpg"]
    assert len(find_items(["in", "in/*", str(here / "in")])) == 4  # each once


def test_lists_keep_what_is_missing(here: Path) -> None:
    pictures(here / "in", 2)
    (here / "in" / "list.txt").write_text("# mine\np0.png\n\ngone.mp4\np1.png\n")
    found = find_items(["in/list.txt"])
    assert [(item.kind, item.path) for item in found] == [
        ("picture", "in/p0.png"),
        ("video", "gone.mp4"),
        ("picture", "in/p1.png"),
    ]
    ((image, failed),) = said(list(read_item(found[1])))
    assert image == "" and failed


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone", "no such file or folder: gone"),
        ("empty", "no pictures, videos, tar shards or Parquet files in the folder empty; to search its folders too"),
        ("*.jpg", "no pictures, videos, tar shards or Parquet files match"),
        ("s3://bucket/x", "is an address"),
        ("notes.md", "notes.md is no picture, video, tar shard, Parquet file or list"),
        ("bad.txt", "none of the 2 entries of the list bad.txt can be used"),
        ("none.txt", "has no entries"),
    ],
)
def test_wrong_sources(here: Path, source: str, message: str) -> None:
    (here / "empty" / "deep").mkdir(parents=True)
    (here / "empty" / "deep" / "a.jpg").write_bytes(b"x")
    (here / "notes.md").write_text("hello")
    (here / "bad.txt").write_text("a\nb\n")
    (here / "none.txt").write_text("# nothing\n")
    with pytest.raises(PosezooError) as caught:
        find_items([source])
    assert message in str(caught.value)


LONG, NUL = "x" * 300, "a\0b"


def test_entries_that_no_file_can_have_stop_no_others(here: Path) -> None:
    pictures(here / "in", 1)
    wrong = [LONG + ".png", NUL + ".png", NUL + "*.png", LONG + ".tar", NUL + ".tar", NUL + ".parquet", LONG + ".mp4"]
    wrong.append("~nobody_/x.png")
    (here / "in" / "list.txt").write_text("\n".join([*wrong, "p0.png"]))
    found = find_items(["in/list.txt"])
    assert [item.path for item in found if item.path == "in/p0.png"] and len(found) == len(wrong) + 1
    estimator = Estimator("embedded", detector="whole", threads=1)
    entries = [entry for entry, _, _ in _estimate(Part(0, tuple(found)), Settings(), estimator)]
    failed = [entry.source for entry in entries if isinstance(entry.data, PosezooError)]
    assert failed == [item.path for item in found[:-1]] and len(entries) == len(found)


@pytest.mark.parametrize("source", [LONG, LONG + "*", NUL, NUL + "*", NUL + "/*.png", LONG + "/a.png"])
def test_sources_that_no_file_can_have(here: Path, source: str) -> None:
    with pytest.raises(PosezooError, match=r"no such file or folder|match"):
        find_items([source])


def test_a_folder_that_may_not_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PosezooError, match=r"cannot read the folder .*: Permission denied"):
        find_items([str(here)])


def test_results_are_no_sources(here: Path) -> None:
    for name in ("in/a.parquet", "in/out/people/part-000000.parquet"):
        (here / name).parent.mkdir(exist_ok=True, parents=True)
        parquet.write_table(pyarrow.table({"image": [b"x"]}), here / name)
    assert [item.path for item in find_items(["in/**/*.parquet"], Path("in/out"))] == ["in/a.parquet"]
    with pytest.raises(PosezooError, match="nothing in it but the results"):
        find_items(["in/out/people"], Path("in/out"))


def test_parquet_is_split_by_groups_of_rows(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posezoo.batch.sources.ROWS", 5)
    parquet.write_table(pyarrow.table({"image": [b"x"] * 11}), here / "a.parquet", row_group_size=3)
    found = find_items(["a.parquet"])
    assert [(item.first, item.groups) for item in found] == [(0, 2), (2, 2)]
    names = [entry.image for item in found for entry in read_item(item)]
    assert names == [f"row {n}" for n in range(11)]


# ---- what is read


def test_tar_members_stay_in_memory(here: Path) -> None:
    (here / "work").mkdir()
    os.chdir(here / "work")
    path = shard(
        here / "a.tar", [("../up.png", encoded(1)), ("a.json", b"{}"), ("/abs/b.png", b"B"), ("c/._d.png", b"x")]
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = list(read_item(Item("tar", str(path))))
    assert said(found) == [("../up.png", False), ("/abs/b.png", False), ("link.png", True)]
    assert found[1].data == b"B" and "link.png in" in str(found[2].data)
    assert sorted(each.name for each in here.iterdir()) == ["a.tar", "work"] and not list(Path().iterdir())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_kinds(here: Path, mode: str) -> None:
    path = shard(here / "a.tar", [(f"{n}.png", encoded(n)) for n in range(3)], mode)
    assert said(list(read_item(Item("tar", str(path))))) == [(f"{n}.png", False) for n in range(3)]


def test_broken_tars_keep_what_is_whole(here: Path) -> None:
    whole = shard(here / "a.tar", [(f"{n}.png", encoded(n)) for n in range(3)]).read_bytes()
    second = 512 + -(-len(encoded(0)) // 512) * 512
    damaged = bytearray(whole)
    damaged[second : second + 100] = b"?" * 100
    for data, pictures_before, reason in (
        (whole[: second + 700], 1, "unexpected end of data"),
        (whole[: second + 100], 1, "damaged"),
        (whole[:second], 1, "end mark is missing"),
        (bytes(damaged), 1, "a header in it is damaged"),
        (b"no tar at all" * 100, 0, "damaged"),
        (b"", 0, "end mark is missing"),
        (bytes(10240), 0, "has no pictures in it"),
    ):
        (here / "b.tar").write_bytes(data)
        *good, last = read_item(Item("tar", "b.tar"))
        assert said(good) == [(f"{n}.png", False) for n in range(pictures_before)]
        assert isinstance(last.data, PosezooError) and reason in str(last.data), last
    ((image, failed),) = said(list(read_item(Item("tar", "gone.tar"))))
    assert (image, failed) == ("", True)


def test_tar_limits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_BYTES", 1000)
    path = shard(here / "a.tar", [("big.png", bytes(1001)), ("small.png", bytes(1000))])
    assert said(list(read_item(Item("tar", str(path))))) == [("big.png", True), ("small.png", False)]
    long = shard(here / "b.tar", [("x" * 2_000_000 + ".png", b"x")])
    (only,) = read_item(Item("tar", str(long)))
    assert isinstance(only.data, PosezooError) and "a name or a header of" in str(only.data)


def test_parquet_rows(here: Path) -> None:
    rows = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None, {"bytes": b"4", "path": None}]
    parquet.write_table(pyarrow.table({"label": [1, 2, 3, 4], "image": rows}), here / "hf.parquet")
    found = list(read_item(Item("parquet", "hf.parquet")))
    assert said(found) == [("a.jpg", False), ("b.jpg", True), ("row 2", True), ("row 3", False)]
    parquet.write_table(pyarrow.table({"id": [7, 8], "mask": [b"m", b"m"], "jpg": [b"1", b"2"]}), here / "b.parquet")
    found = list(read_item(Item("parquet", "b.parquet")))
    assert [(entry.image, entry.data) for entry in found] == [("7", b"1"), ("8", b"2")]
    found = list(read_item(Item("parquet", "b.parquet"), column="mask"))
    assert [entry.data for entry in found] == [b"m", b"m"]


def test_wrong_parquet(here: Path) -> None:
    (here / "text.parquet").write_text("hello")
    parquet.write_table(pyarrow.table({"image": pyarrow.array([], pyarrow.binary())}), here / "none.parquet")
    for name, reason in (("text", "as Parquet"), ("gone", "no such file"), ("none", "has no rows")):
        (only,) = read_item(Item("parquet", f"{name}.parquet"))
        assert only.image == "" and reason in str(only.data)
    schema = pyarrow.schema([("one", pyarrow.binary()), ("two", pyarrow.binary()), ("key", pyarrow.string())])
    with pytest.raises(PosezooError, match=r"which column has the pictures\? Columns of bytes: one, two"):
        choose_columns(schema, "x.parquet")
    with pytest.raises(PosezooError, match=r"no column 'key' of bytes \(those of bytes: one, two\)"):
        choose_columns(schema, "x.parquet", "key")
    assert choose_columns(schema, "x.parquet", "two") == ("two", "key")
