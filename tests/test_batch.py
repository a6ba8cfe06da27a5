"""`posezoo batch` without Ray: what is found, how it is cut, what a worker writes, and how a run goes on."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posezoo import cli
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.formats import read_results
from posezoo.lock import locked
from tiny_networks import detector_network, picture, pose_network

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from batch_fixtures import PLACES, encoded, here, pictures, shard  # noqa: E402
from posezoo.batch import parts, work  # noqa: E402
from posezoo.batch.parts import Counts, part_path, read_counts, tries_path  # noqa: E402
from posezoo.batch.plan import Plan, Settings, cut, make_plan, read_plan, write_plan  # noqa: E402
from posezoo.batch.run import Request, _check_address, _share  # noqa: E402
from posezoo.batch.sources import Item  # noqa: E402
from posezoo.batch.work import Job, Worker  # noqa: E402


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("networks")
    pose, detector = pose_network(folder / "pose.onnx"), detector_network(folder / "detector.onnx")
    return Settings(str(pose), detector=str(detector))


def run(sources: Sequence[str], settings: Settings, output: str = "out", most: int | None = None, **more: Any) -> Plan:
    """As `run_batch` does it, in this process; `most`: parts until it is killed."""
    with locked(Path(output), "-o"):
        plan = make_plan(sources, Path(output), settings, 1, **more)
        worker = Worker(Job(settings.absolute(), Path(output).absolute(), plan.folder, "cpu", 1))
        for part in plan.to_do()[:most]:
            outcome = worker(part)
            assert not outcome.error, outcome.error
        return plan


def table(name: str, output: str = "out") -> list[dict[str, Any]]:
    paths = sorted(Path(output, name).glob("*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


# ---- what a worker writes


def test_the_figures_are_those_of_predict(here: Path, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    names = pictures(here / "in", 9)
    run(["in"], settings)
    found = {record.image: record for record in read_results(Path("out/people"))}
    assert sorted(found) == [name for n, name in enumerate(names) if n % 4]
    estimator = Estimator(settings.model, detector=settings.detector, threads=1)
    for name in found:
        poses = estimator(name)
        assert np.abs(found[name].poses.keypoints_xy - poses.keypoints_xy).max() <= 0.0051
        assert np.abs(found[name].poses.scores - poses.scores).max() <= 0.000051
        assert np.abs(found[name].poses.boxes_xyxy - poses.boxes_xyxy).max() <= 0.0051
    assert [(row["source"], row["image"], row["people"]) for row in table("images")] == [
        (name, name, n % 4) for n, name in enumerate(names)
    ]
    with pytest.raises(SystemExit):
        network = ["-m", settings.model, "--detector", settings.detector]
        cli.main(["predict", "in", *network, "--format", "parquet", "--no-images", "-o", "single"])
    assert "error" not in capfd.readouterr().err
    single = parquet.read_table("single/results.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if k != "source"} for row in table("people")] == single


def test_every_kind_of_source_in_one_run(here: Path, settings: Settings) -> None:
    data = [encoded(people) for people in range(4)]
    pictures(here / "in", 3)
    shard(here / "in" / "s.tar", [("k/0.png", data[2]), ("k/0.cls", b"1"), ("k/1.png", b"no picture")])
    rows = {"image": [data[1], b"", data[3]], "key": ["x", "y", "z"]}
    parquet.write_table(pyarrow.table(rows), here / "in" / "t.parquet")
    video = cv2.VideoWriter(str(here / "in" / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for people in (0, 1, 2, 3):
        video.write(cv2.cvtColor(picture(640, 480, PLACES[:people]), cv2.COLOR_RGB2BGR))
    video.release()
    (here / "in" / "torn.png").write_bytes(data[1][:300])
    plan = run(["in"], replace(settings, every=2))
    images = [(row["source"], row["image"], row["frame"], row["people"]) for row in table("images")]
    assert images == [
        ("in/p0.png", "in/p0.png", None, 0),
        ("in/p1.png", "in/p1.png", None, 1),
        ("in/p2.png", "in/p2.png", None, 2),
        ("in/s.tar", "k/0.png", None, 2),
        ("in/t.parquet", "x", None, 1),
        ("in/t.parquet", "z", None, 3),
        ("in/v.avi", "in/v.avi", 0, 0),
        ("in/v.avi", "in/v.avi", 2, 2),
    ]
    errors = table("errors")
    assert [(row["source"], row["image"]) for row in errors] == [
        ("in/s.tar", "k/1.png"),
        ("in/t.parquet", "y"),
        ("in/torn.png", "in/torn.png"),
    ]
    assert "k/1.png in in/s.tar" in errors[0]["error"] and "cut off" in errors[2]["error"]
    people = table("people")
    assert sum(row[3] for row in images) == len(people)
    assert {row["source"] for row in people} == {"in/p1.png", "in/p2.png", "in/s.tar", "in/t.parquet", "in/v.avi"}
    counted = read_counts(Path("out"), [part.number for part in plan.parts])
    assert sum(c.images for c in counted.values()) == 8 and sum(c.errors for c in counted.values()) == 3


def test_columns(here: Path, settings: Settings) -> None:
    pictures(here / "in", 2)
    run(["in"], settings)
    schema = parquet.read_schema(part_path(Path("out"), "people", 0))
    assert schema.names[:4] == ["source", "image", "frame", "time"] and "nose_x" in schema.names
    assert str(schema.field("source").type) == "string" and str(schema.field("nose_x").type) == "float"
    assert str(schema.field("frame").type) == "int64" and str(schema.field("person").type) == "int32"
    (row,) = table("people")
    assert (row["width"], row["height"], row["skeleton"], row["person"]) == (640, 480, "coco17", 0)


def test_min_score(here: Path, settings: Settings) -> None:
    pictures(here / "in", 4)
    run(["in"], replace(settings, min_score=1.0))
    assert table("people") == [] and [row["people"] for row in table("images")] == [0, 0, 0, 0]


def test_a_name_that_is_no_unicode(here: Path, settings: Settings) -> None:
    (here / "in").mkdir()
    try:
        (here / "in" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(1))
    except OSError:
        pytest.skip("this file system takes Unicode only")
    plan = run(["in"], settings)
    assert table("people")[0]["image"] == "in/caf\\udce9.png"
    assert read_plan(Path("out/plan.parquet")) == plan.parts


# ---- the plan


def test_parts_are_cut_for_the_workers() -> None:
    loose = [Item("picture", f"{n}.jpg") for n in range(100)]
    assert [len(part.items) for part in cut(loose, 2)] == [13] * 7 + [9]
    assert [len(part.items) for part in cut(loose, 100)] == [8] * 12 + [4]
    assert max(len(part.items) for part in cut(loose * 100, 1)) == 1000
    mixed = [*loose[:2], Item("tar", "a.tar"), Item("tar", "b.tar"), *loose[2:4]]
    parts = cut(mixed, 2, start=5)
    assert [(part.number, len(part.items)) for part in parts] == [(5, 2), (6, 1), (7, 1), (8, 2)]


def test_a_plan_is_read_as_it_was_written(here: Path) -> None:
    parts = cut([Item("picture", "a b.jpg"), Item("parquet", "ü.parquet", 3, 2), Item("tar", "\udce9.tar")], 1)
    write_plan(Path("plan.parquet"), parts)
    assert read_plan(Path("plan.parquet")) == parts
    Path("plan.parquet").write_bytes(b"PAR1")
    with pytest.raises(PosezooError, match="cannot read the plan"):
        read_plan(Path("plan.parquet"))


def test_a_killed_run_goes_on_without_loss_or_duplicates(here: Path, settings: Settings) -> None:
    pictures(here / "in", 50)
    (here / "in" / "p7.png").write_bytes(b"no picture")
    run(["in"], settings, "whole")
    assert len(run(["in"], settings, most=2).to_do()) == 4
    # what a kill leaves between two steps: a part with images and no people yet, a file that was being written, one
    # whose end never reached the disk
    for name in ("images", "people"):
        Path("out", name, ".part-000002.ab12.parquet").write_bytes(b"PAR1 half")
    Path("out/images/part-000002.parquet").write_bytes(Path("whole/images/part-000002.parquet").read_bytes())
    Path("out/people/part-000001.parquet").write_bytes(b"")
    plan = run(["in"], settings)
    assert sorted(plan.done) == [0] and [part.number for part in plan.to_do()] == [1, 2, 3]
    for name in ("people", "images", "errors"):
        assert table(name) == table(name, "whole")
    assert len({row["image"] for row in table("images")}) == 49 and len(table("errors")) == 1
    assert not list(Path("out").rglob(".part-*"))
    assert run(["in"], settings).to_do() == []


def test_new_files_are_added(here: Path, settings: Settings) -> None:
    pictures(here / "in", 10)
    before = run(["in"], settings)
    (here / "in" / "p00.png").write_bytes(encoded(3))  # sorts before all others
    after = run([str(here / "in")], settings)
    assert after.parts[: len(before.parts)] == before.parts
    assert [item.path for part in after.to_do() for item in part.items] == [str(here / "in" / "p00.png")]
    assert len(table("images")) == 11


def test_another_folder_changes_nothing(here: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(here / "in", 20)
    run(["in"], settings, most=1)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    plan = run(["../in"], settings, str(here / "out"))
    assert len(plan.parts) == 3 and len(plan.done) == 1
    assert [row["image"] for row in table("images", str(here / "out"))] == [f"in/p{n}.png" for n in range(20)]


def test_errors_are_tried_again_when_asked(here: Path, settings: Settings) -> None:
    pictures(here / "in", 20)
    (here / "in" / "p9.png").write_bytes(b"")
    run(["in"], settings)
    (here / "in" / "p9.png").write_bytes(encoded(2))
    assert run(["in"], settings).to_do() == [] and len(table("errors")) == 1
    plan = run(["in"], settings, retry_errors=True)
    assert [part.number for part in plan.to_do()] == [1]
    assert table("errors") == [] and len(table("images")) == 20


@pytest.mark.parametrize("placed", ["errors", "images"])
def test_a_run_that_is_killed_while_it_does_a_part_again_leaves_it_undone(
    here: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, placed: str
) -> None:
    names = pictures(here / "in", 4)
    whole = Path(names[2]).read_bytes()
    Path(names[2]).write_bytes(whole[:300])
    run(["in"], settings)
    assert len(table("people")) == 4 and len(table("errors")) == 1
    Path(names[2]).write_bytes(whole)

    class Killed(BaseException):
        pass

    def finish(table: parts._Table) -> None:
        finished(table)
        if table._path.parent.name == placed:
            raise Killed

    finished = parts._Table.finish
    monkeypatch.setattr(parts._Table, "finish", finish)
    Path(names[3]).write_bytes(whole[:300])  # so that there are errors to put in place
    with pytest.raises(Killed):
        run(["in"], settings, retry_errors=True)
    monkeypatch.setattr(parts._Table, "finish", finished)
    plan = run(["in"], settings)  # without being asked to
    assert [part.number for part in plan.to_do()] == [0]
    assert [row["people"] for row in table("images")] == [0, 1, 2] and len(table("people")) == 3


def test_a_table_that_could_not_be_read_when_it_was_planned(
    here: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posezoo.batch.sources.ROWS", 2)
    (here / "in").mkdir()
    path = here / "in" / "t.parquet"
    parquet.write_table(pyarrow.table({"image": [encoded(1)] * 6}), path, row_group_size=2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    run(["in"], settings)
    assert len(table("errors")) == 1
    path.write_bytes(whole)
    plan = run(["in"], settings)  # it is planned, as a whole
    assert (len(plan.parts), plan.to_do()) == (1, [])
    run(["in"], settings, retry_errors=True)
    assert [row["image"] for row in table("images")] == [f"row {n}" for n in range(6)]
    assert len(table("people")) == 6 and not Path("out/errors/part-000000.parquet").exists()
    # one that was split stays so, while it cannot be read
    parquet.write_table(pyarrow.table({"image": [encoded(1)] * 4}), here / "in" / "u.parquet", row_group_size=2)
    assert len(run(["in"], settings).parts) == 3
    (here / "in" / "u.parquet").write_bytes(b"PAR1")
    assert len(run(["in"], settings).parts) == 3


def test_folders_that_are_called_like_networks_are_no_files(here: Path) -> None:
    for name in ("whole", "embedded", "yolov3", "yolov3-spp"):
        (here / name).mkdir()
        asked = Settings(name, detector=name)
        assert asked.absolute() == asked and asked.said()["detector"] == asked.said()["model"] == name
    (here / "yolov3" / "p0.json").write_text("[]")
    assert Settings(detector="./yolov3").absolute().detector == str(here / "yolov3")
    assert "sha256" in Settings(detector="./yolov3").said()["detector"]


def test_another_runs_folder_is_refused(here: Path, settings: Settings) -> None:
    pictures(here / "in", 4)
    run(["in"], settings)
    other = pose_network(here / "other.onnx", all_blue=True)
    with pytest.raises(PosezooError) as caught:
        run(["in"], replace(settings, model=str(other), flip=True))
    told = str(caught.value)
    assert "of another run" in told and "model was " in told and "other.onnx" in told
    assert "flip was off, now on" in told and "detector" not in told
    with pytest.raises(PosezooError, match=r"sources was .*/in, now .*/in/p0.png"):
        run(["in/p0.png"], settings)
    own = Path(settings.model).read_bytes()
    try:  # the same name, but another network
        Path(settings.model).write_bytes(other.read_bytes())
        with pytest.raises(PosezooError, match=r"model was .*sha256"):
            run(["in"], settings)
    finally:
        Path(settings.model).write_bytes(own)


def test_wrong_output_folders(here: Path, settings: Settings) -> None:
    pictures(here / "in", 1)
    (here / "file").write_text("x")
    with pytest.raises(PosezooError, match="is a file; choose a folder"):
        run(["in"], settings, "file")
    with pytest.raises(PosezooError, match=r"has other files in it \(p0.png\)"):
        run(["in"], settings, "in")
    (here / "old").mkdir()
    for text in ("no json", '{"format": 99}', "[]"):
        (here / "old" / "run.json").write_text(text)
        with pytest.raises(PosezooError, match="choose another"):
            run(["in"], settings, "old")
    with locked(Path("busy"), "-o"), pytest.raises(PosezooError, match="another run is at work in busy"):
        run(["in"], settings, "busy")


# ---- what goes wrong


def test_a_full_disk_ends_the_run(here: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(here / "in", 4)
    plan = run(["in"], settings, most=0)
    full = OSError(28, "No space left on device")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", refuse)
    outcome = Worker(Job(settings, Path("out").absolute(), plan.folder, "cpu", 1))(plan.parts[0])
    assert outcome.hopeless and "No space left on device" in outcome.error and outcome.counts is None
    assert not list(Path("out").rglob("*part-*"))


def test_a_worker_says_what_is_wrong(here: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(here / "in", 1)
    plan = run(["in"], settings, most=0)
    job = Job(settings, Path("out").absolute(), plan.folder, "cpu", 1)
    for wrong, reason in (
        (replace(job, output=Path("elsewhere")), "does not see elsewhere"),
        (replace(job, version="0.0.1"), "install that"),
        (replace(job, settings=replace(settings, model="no_such_model")), "unknown model"),
        (replace(job, folder="/no/such/folder"), "give the sources by their full paths"),
    ):
        outcome = Worker(wrong)(plan.parts[0])
        assert outcome.hopeless and reason in outcome.error

    def broken(*_: Any) -> Counts:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(work, "do_part", broken)
    outcome = Worker(job)(plan.parts[0])
    assert not outcome.hopeless and outcome.error == "ZeroDivisionError: ours"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 0}, "workers must be 1 or more"),
        ({"threads": -1}, "threads must be 1 or more"),
        ({"device": "gpu"}, "unknown device"),
        ({"settings": {"min_score": 2}}, "min-score must be between 0 and 1"),
        ({"settings": {"every": 0}}, "every must be at least 1"),
        ({"settings": {"max_megapixels": -1}}, "max-megapixels must be a number above 0, but is -1"),
        ({"settings": {"max_megapixels": float("nan")}}, "max-megapixels must be a number above 0, but is nan"),
        ({"settings": {"runtime": "tensorflow"}}, "unknown runtime"),
        ({"settings": {"detector": "follow"}}, "follow looks for one person"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        own = Settings(**wrong.pop("settings", {}))
        Request(["in"], Path("out"), own, **wrong)


def test_a_part_that_kills_its_workers_is_given_up(here: Path, settings: Settings) -> None:
    pictures(here / "in", 1)
    plan = run(["in"], settings, most=0)
    tries = tries_path(Path("out").absolute(), 0)
    tries.parent.mkdir()
    tries.write_bytes(b"...")
    worker = Worker(Job(settings, Path("out").absolute(), plan.folder, "cpu", 1))
    outcome = worker(plan.parts[0])
    assert not outcome.hopeless and "its worker died 3 times" in outcome.error
    assert run(["in"], settings).to_do() == plan.parts  # another run tries again
    assert len(table("images")) == 1 and not tries.exists()


def test_room_on_a_cluster(settings: Settings) -> None:
    def share(there: dict[str, float], **more: Any) -> tuple[float, ...]:
        found = _share(there, Request(["in"], Path("out"), settings, "auto", **more))
        return (found.workers, found.cpus, found.gpus)

    assert share({"CPU": 6.0}) == (6, 1, 0)
    assert share({"CPU": 6.0}, threads=2) == (3, 2, 0)
    assert share({"CPU": 6.0}, workers=4) == (4, 1, 0)
    assert share({"CPU": 16.0, "GPU": 2.0}, device="cuda") == (2, 1, 1)
    assert share({"CPU": 1.0, "GPU": 2.0}, device="cuda") == (2, 0.5, 1)
    assert share({"CPU": 16.0, "GPU": 2.0}, device="cpu") == (16, 1, 0)
    for there, more, said in (
        ({"CPU": 2.0}, {"workers": 3}, "the cluster has 2 cores: 3 workers do not fit; give --workers 2"),
        ({"CPU": 2.0}, {"threads": 4}, "no worker of 4 threads fits"),
        ({"CPU": 2.0}, {"device": "cuda"}, "Ray sees no GPU"),
    ):
        with pytest.raises(PosezooError, match=said):
            share(there, **more)


@pytest.mark.parametrize("address", ["somewhere", "ray://host", "ray://host:port", "http://host:80/x", "host:0"])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(PosezooError, match="is no address of a Ray cluster"):
        _check_address(address)


def test_nobody_answers() -> None:
    with pytest.raises(PosezooError, match=r"no Ray cluster at ray://127\.0\.0\.1:1: Connection refused"):
        _check_address("ray://127.0.0.1:1")


def test_the_command_without_its_extra(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    pictures(here / "in", 1)
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", "in", "-o", "out"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.splitlines() == ["error: posezoo batch needs ray: pip install 'posezoo[batch]'"]
    assert not (here / "out").exists()


def test_run_json_is_readable(here: Path, settings: Settings) -> None:
    pictures(here / "in", 1)
    run(["in"], settings)
    kept = json.loads(Path("out/run.json").read_text())
    assert kept["sources"] == [str(here / "in")] and kept["folder"] == str(here)
    assert kept["settings"]["model"].startswith(settings.model + " (sha256 ")
