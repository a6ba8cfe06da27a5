"""The rows of `posezoo benchmark`, and how it ends on good and on bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from command_line import Ran
from posezoo.bench import entrants, machine
from posezoo.bench.rows import Row, Stage, merge_csv, read_csv, write_csv
from posezoo.bench.run import MOST_OPEN, Request, _groups
from posezoo.bench.stages import STAGES
from posezoo.bench.table import stage_table, summary
from posezoo.deploy.runtimes import TorchRuntime
from posezoo.errors import PosezooError
from posezoo.media import write_image
from tiny_networks import picture, pose_network

KEYS = ["model", "runtime", "precision", "batch_size", "threads", "device", "latency_ms", "images_per_second"]


@pytest.fixture
def run(run: Callable[..., Ran]) -> Callable[..., Ran]:
    return partial(run, "benchmark")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return pose_network(tmp_path / "pose.onnx")


def a_row(**changes: Any) -> Row:
    values = dict(
        model="a.b", runtime="onnx", precision="fp32", batch_size=2, threads=1, device="cpu", latency_ms=20.0,
        images_per_second=100.0, data="dummy", weights="own", flip=False, input="256x192", entry=None, spread=0.05,
        wall_ms=20.0, cpu_ms=19.0, memory_mb=12.5, calls=30,
    )  # fmt: skip
    return Row(**{**values, **changes})


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [
        a_row(),
        a_row(flip=True, data="images", images=3, people=5, stages={"detect": Stage(1.5, 1.25)}, memory_mb=None),
    ]
    write_csv(tmp_path / "new" / "r.csv", rows)
    with (tmp_path / "new" / "r.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["machine"] and lines[0]["processor"] and "posezoo" in lines[0]["versions"] and lines[0]["command"]
    assert (lines[0]["detect ms"], lines[1]["detect ms"], lines[1]["detect cpu_ms"]) == ("", "1.5", "1.25")
    back = read_csv(tmp_path / "new" / "r.csv")
    for row, line in zip(rows, back, strict=True):
        values = row.to_dict()
        del values["stages"]
        assert {key: line[key] for key in values} == values
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.csv"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no file that posezoo benchmark"),
        (b"a,b\n1,2\n", "no file that posezoo benchmark"),
        (b"\xff\xfe\0\0", "cannot read"),
    ],
)
def test_other_files_are_refused(content: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(PosezooError, match=word):
        read_csv(tmp_path / "x.csv")


def edited(path: Path, column: str, cell: str, **changes: Any) -> Path:
    """What `write_csv` writes of two rows, with another cell in the second."""
    write_csv(path, [a_row(), a_row(**changes)])
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    lines[1][column] = cell
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


@pytest.mark.parametrize(
    ("column", "cell", "wanted"),
    [
        *((column, cell, "a number above 0") for column in ("latency_ms", "images_per_second")
          for cell in ("fast", "0", "-3", "nan", "inf", "")),
        *((column, cell, "a number, 0 or more") for column in ("wall_ms", "cpu_ms") for cell in ("-1", "nan", "")),
        *((column, cell, "a number, 0 or more") for column in ("spread", "memory_mb") for cell in ("-1", "inf")),
        *((column, cell, "a whole number above 0") for column in ("batch_size", "threads", "calls")
          for cell in ("0", "1.5", "")),
        ("people", "-1", "a whole number, 0 or more"),
        ("images", "0", "a whole number above 0"),
        ("flip", "yes", "True or False"),
        ("flip", "", "True or False"),
        ("precision", "INT8", "fp32 or bf16 or fp16 or int8"),
        ("device", "", "cpu or cuda"),
        ("data", "dummies", "dummy or images"),
        *((column, "", "text") for column in ("model", "runtime", "input", "processor", "versions", "date")),
    ],
)  # fmt: skip
def test_a_cell_that_was_never_written_is_refused(
    run: Any, tmp_path: Path, column: str, cell: str, wanted: str
) -> None:
    edited(tmp_path / "r.csv", column, cell)
    ran = run("--from", "r.csv", "--chart", "a.html")
    held = repr(cell) if cell else "nothing"
    assert ran.code == 2 and ran.err.startswith(f"error: r.csv, line 3, {column}: {held}, where {wanted}")
    assert len(ran.err.splitlines()) == 1 and not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("cell", ["TRUE", "true", "1", "True", "FALSE", "false", "0", "False"])
def test_flip_is_read_as_a_spreadsheet_writes_it(tmp_path: Path, cell: str) -> None:
    lines = read_csv(edited(tmp_path / "r.csv", "flip", cell))
    assert [line["flip"] for line in lines] == [False, cell.casefold() in ("true", "1")]


@pytest.mark.parametrize("column", ["entry", "spread", "memory_mb", "images", "people"])
def test_what_may_be_unknown_may_be_empty(tmp_path: Path, column: str) -> None:
    changes = dict(entry="a.b", data="images", images=3, people=5)
    path = edited(tmp_path / "r.csv", column, "", **changes)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets mark UTF-8
    assert read_csv(path)[1][column] is None


def test_of_a_single_call_there_is_no_spread(run: Any, network: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(320, 240, [(2, 1)]))
    once = ("--images", "in", "--rounds", 1, "--warmup", 0, "--csv", "r.csv")
    ran = run(network, *once, "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)
    assert row["calls"] == 1 and row["spread"] is None and read_csv("r.csv")[0]["spread"] is None
    columns, (line,) = summary([a_row(spread=None)])[1]
    assert line[columns.index("spread %")] == ""


def test_opencv_takes_the_threads_that_the_row_names(
    run: Any, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / "a.png", picture(320, 240, [(2, 1)]))
    seen: list[int] = []
    call = entrants.Pipeline.__call__

    def counted(self: Any) -> None:
        seen.append(cv2.getNumThreads())
        call(self)

    monkeypatch.setattr(entrants.Pipeline, "__call__", counted)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(5)
        for threads, said in ((("--threads", 2), "7"), ((), "3")):
            monkeypatch.setenv("OMP_NUM_THREADS", said)
            ran = run(network, "--images", "in", "--rounds", 1, "--warmup", 0, "--json", *threads)
            assert ran.code == 0, ran.err
            (row,) = json.loads(ran.out)
            assert set(seen) == {row["threads"]} and cv2.getNumThreads() == 5
            seen.clear()
    finally:
        cv2.setNumThreads(before)


def test_memory_of_a_gpu_is_known_where_torch_gives_it_out() -> None:
    from types import SimpleNamespace

    memory: Any = SimpleNamespace(peak=lambda device: 5_000_000)
    here, there = SimpleNamespace(device="cpu"), SimpleNamespace(device="cuda")
    assert entrants._megabytes(memory, here) == 5.0  # type: ignore[arg-type]
    assert entrants._megabytes(memory, there) is None  # type: ignore[arg-type]
    assert entrants._megabytes(memory, TorchRuntime(None, "cuda")) == 5.0


def test_what_rows_share_is_said_once() -> None:
    rows = [a_row(), a_row(runtime="openvino", images_per_second=250.0), a_row(batch_size=4, images_per_second=90.0)]
    shared, (columns, lines), legend = summary(rows)
    assert shared == "a.b, 256x192, its own weights, fp32, on cpu, 1 thread"
    assert columns[:2] == ["runtime", "batch"] and columns[-1] == "times"
    assert [line[-1] for line in lines] == ["1.00", "2.50", "1.00"]
    assert all(len(line) == len(columns) for line in lines)
    assert max(map(len, [shared, *legend.splitlines()])) <= 100
    alone = summary([a_row(weights="random", flip=True)])
    assert "random weights" in alone[0] and "with flip" in alone[0] and "times" not in alone[1][0]


def test_memory_that_nobody_knows_is_left_blank() -> None:
    assert summary([a_row(memory_mb=None)])[1][1][0][-1] == ""


def test_stages_add_up() -> None:
    split = {step: Stage(2.0, 1.0) for step in STAGES}
    columns, lines = stage_table(a_row(data="images", images=2, people=4, stages=split))
    assert [line[0] for line in lines] == list(STAGES) and all(len(line) == len(columns) for line in lines)
    assert lines[0] == ["decode image", "2.00", "1.00", "0.50", "14.3", "1.000"]
    assert sum(float(line[4]) for line in lines) == pytest.approx(100, abs=0.5)


def test_networks_of_one_model_stay_together() -> None:
    request = Request(list("abcde"), runtimes=["onnx", "torch", "openvino"])
    groups = list(_groups(request))
    assert [sorted({setting.name for setting in group}) for group in groups] == [["a", "b"], ["c", "d"], ["e"]]
    assert all(len(group) <= MOST_OPEN for group in groups) and sum(map(len, groups)) == 15


def test_json_has_the_rows(run: Any, network: Path) -> None:
    ran = run(network, "--json", "--batch-size", 2, "--batch-size", 1, "--rounds", 2, "--threads", 1, "--csv", "r.csv")
    assert ran.code == 0 and ran.err == ""
    rows = json.loads(ran.out)
    assert [list(row)[: len(KEYS)] for row in rows] == [KEYS, KEYS]
    assert [row["batch_size"] for row in rows] == [1, 2]
    for row in rows:
        assert row["model"] == str(network) and row["runtime"] == "onnx" and row["precision"] == "fp32"
        assert (row["threads"], row["device"], row["weights"], row["data"]) == (1, "cpu", "own", "dummy")
        assert row["input"] == "256x192" and row["calls"] >= 2 and row["cpu_ms"] > 0
        assert row["images_per_second"] == pytest.approx(row["batch_size"] / row["latency_ms"] * 1e3, rel=0.02)
    assert len(read_csv("r.csv")) == 2


def test_table_and_flip(run: Any, network: Path) -> None:
    ran = run(network, "--rounds", 1, "--flip", "--batch-size", 1, "--dummy")
    assert ran.code == 0 and "with flip" in ran.out and "images/s" in ran.out
    assert max(map(len, ran.out.splitlines()[1:])) <= 100


def test_flip_computes_twice(network: Path) -> None:
    from posezoo.estimator import open_network

    spec, runtime = open_network(str(network), runtime="onnx", device="cpu", threads=1)
    seen: list[np.ndarray] = []

    class Counting:
        device = "cpu"

        def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
            seen.append(batch)
            return runtime(batch)

    entrants.alone(spec, Counting(), 3, flip=True).call()  # type: ignore[arg-type]
    assert [batch.shape for batch in seen] == [(3, 3, 256, 192)] * 2
    assert np.array_equal(seen[1], seen[0][..., ::-1])


def test_the_whole_pipeline(run: Any, network: Path, tmp_path: Path) -> None:
    for n in range(3):
        write_image(tmp_path / "in" / f"{n}.png", picture(320, 240, [(2, 1)]))
    ran = run(network, "--images", "in", "--rounds", 2, "--warmup", 0, "--json", "--threads", 1, "--batch-size", 4)
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)
    assert row["data"] == "images" and row["images"] == 3 and row["calls"] == 2 and row["batch_size"] == 4
    assert list(row["stages"]) == list(STAGES)
    assert row["images_per_second"] == pytest.approx(1e3 / row["latency_ms"], rel=0.02)
    assert sum(stage["ms"] for stage in row["stages"].values()) == pytest.approx(row["latency_ms"], rel=0.4)
    assert row["stages"]["detect"]["ms"] > 0 and row["stages"]["decode image"]["ms"] > 0
    text = run(network, "--images", "in", "--rounds", 1, "--stages", "--csv", "s.csv")
    assert text.code == 0 and all(step in text.out for step in STAGES) and "whole pipeline" in text.out
    assert "network cpu_ms" in (tmp_path / "s.csv").read_text().splitlines()[0]


def test_random_weights_where_none_are_there(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path / "home"))
    name = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192"
    ran = run(name, "--rounds", 1, "--batch-size", 1, "--runtime", "torch", "--json", "--warmup", 0, "--threads", 1)
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)
    assert row["weights"] == "random" and row["model"] == row["entry"] == name
    from posezoo.bench.random_weights import random_weights
    from posezoo.zoo import get_entry, get_model

    state = torch.get_rng_state()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = (random_weights(get_entry(name), tmp_path / folder) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes() and torch.equal(state, torch.get_rng_state())
    network = get_model(name, first)
    with torch.no_grad():
        found = network(torch.randn(1, 3, 256, 192))
    assert 1e-4 < float(found.std()) < 10, "as built, it would be 1e-11"


def bad(*arguments: object, word: str) -> Any:
    return pytest.param(arguments, word, id=word)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        bad("simple_pose_resnet50_v1", word="did you mean simple_pose_resnet50_v1d"),
        bad("gone.onnx", word="no such file: gone.onnx"),
        bad(word="name a model"),
        bad("pose.onnx", "--batch-size", 0, word="batch-size must be 1 or more"),
        bad("pose.onnx", "--rounds", 0, word="rounds must be 1 or more"),
        bad("pose.onnx", "--threads", 0, word="threads must be 1 or more"),
        bad("pose.onnx", "--warmup", "-1", word="warmup must be 0 or more"),
        bad("pose.onnx", "--runtime", "tflite", word="unknown runtime 'tflite'"),
        bad("pose.onnx", "--precision", "int4", word="unknown precision 'int4'"),
        bad("pose.onnx", "--device", "cudo", word="did you mean cuda"),
        bad("pose.onnx", "--images", "empty", word="no pictures in the folder"),
        bad("pose.onnx", "--images", "text", word="not a picture"),
        bad("pose.onnx", "--stages", word="--stages is for the whole pipeline"),
        bad("pose.onnx", "--dummy", "--images", "empty", word="exclude each other"),
        bad("pose.onnx", "--random", word="--random is for models of the zoo"),
        bad("pose.onnx", "--weights", "a.pth", word="--weights is for models of the zoo"),
        bad("pose.onnx", "embedded", "--weights", "a.pth", word="--weights belong to one model"),
        bad("embedded", "--weights", "a.pth", "--random", word="--weights and --random"),
        bad("pose.onnx", "--csv", "pose.onnx/a.csv", word="pose.onnx"),
        bad("pose.onnx", "--csv", "empty", word="empty is a folder"),
        bad("pose.onnx", "--from", "a.csv", "--chart", "a.html", word="--from draws results"),
        bad("--from", "a.csv", "--chart", "a.html", word="no such file: a.csv"),
        bad("--from", "a.csv", word="--chart FILE"),
        bad("--from", "a.csv", "--chart", "a.html", "--csv", "b.csv", word="nothing to measure"),
    ],
)
def test_bad_input_is_one_line(run: Any, network: Path, tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_text("hello, I am a text\n")
    before = sorted(tmp_path.rglob("*"))
    ran = run(*arguments)
    assert ran.code == 2 and ran.out == ""
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("error: ") and word in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_gpu(run: Any, network: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    ran = run(network, "--device", "cuda", "--runtime", "onnx")
    assert ran.code == 2 and "CUDA" in ran.err and len(ran.err.splitlines()) == 1


def test_a_runtime_that_is_not_installed(run: Any, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    ran = run(network, "--runtime", "onnx", "--runtime", "openvino", "--rounds", 1, "--batch-size", 1, "--json")
    assert ran.code == 2 and "posezoo[deploy]" in ran.err and len(ran.err.splitlines()) == 1
    assert [row["runtime"] for row in json.loads(ran.out)] == ["onnx"], "the others are measured all the same"


def test_out_of_memory_is_told(run: Any, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(entrants, "alone", refuse)
    ran = run(network, "--batch-size", 100000)
    assert ran.code == 2 and "smaller --batch-size" in ran.err and ran.out == ""


def test_ctrl_c_keeps_what_is_done(run: Any, network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from posezoo.bench import run as module

    real, races = module.race, []

    def stopped(*arguments: Any) -> Any:
        races.append(arguments)
        if len(races) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "race", stopped)
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    second = pose_network(tmp_path / "second.onnx")
    ran = run(network, second, "--batch-size", 1, "--rounds", 1, "--csv", "r.csv")
    assert ran.code == 130 and "stopped by Ctrl-C after 1 of 2" in ran.err
    assert [line["model"] for line in read_csv("r.csv")] == [str(network)]


def test_machine_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / "__main__.py"), "benchmark", "a b"])
    facts = machine.machine_facts()
    assert facts["command"] == "posezoo benchmark 'a b'"
    assert facts["processor"] and "CPUs" in facts["machine"] and "numpy" in facts["versions"]


def test_what_was_measured_elsewhere_stays_in_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    merge_csv(path, [{"model": "a", "times": 1.5}, {"model": "b", "times": 2.0}])
    here = machine.machine_facts()["processor"]
    monkeypatch.setattr(machine, "cpu_name", lambda: "another")
    merge_csv(path, [{"model": "a", "times": 7.0}])
    merge_csv(path, [{"model": "a", "times": 8.0}])
    with path.open(newline="") as file:
        lines = [(line["model"], line["times"], line["processor"]) for line in csv.DictReader(file)]
    assert lines == [("a", "1.5", here), ("b", "2.0", here), ("a", "8.0", "another")]


@pytest.mark.slow
def test_a_model_is_exported_for_its_runtimes(run: Any) -> None:
    for module in ("torch", "onnx", "openvino"):
        pytest.importorskip(module)
    name = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192"
    ran = run(
        name, "--random", "--runtime", "onnx", "--runtime", "openvino", "--rounds", 2, "--batch-size", 1, "--json"
    )
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)
    assert [row["runtime"] for row in rows] == ["onnx", "openvino"]
    assert {row["model"] for row in rows} == {row["entry"] for row in rows} == {name}
    assert {row["weights"] for row in rows} == {"random"} and {row["precision"] for row in rows} == {"fp32"}
    assert all(row["memory_mb"] is None or 5 < row["memory_mb"] < 150 for row in rows), "without what the export took"
