"""`posezoo batch` on Ray: two nodes, a killed driver, a killed worker, Ctrl-C, and what is wrong with a cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from tiny_networks import detector_network, picture, pose_network

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

# looked for but not imported: every run collects these tests, and few run them
HAS_RAY = importlib.util.find_spec("ray") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not HAS_RAY, reason="needs Ray: pip install 'posezoo[batch]'"),
]
PLACES = [(2, 2), (6, 3), (8, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with 0, 1, 2, 3, 0, ... people, one torn; and networks."""
    folder = tmp_path_factory.mktemp("batch")
    pose_network(folder / "pose.onnx")
    detector_network(folder / "detector.onnx")
    (folder / "in").mkdir()
    for n in range(240):
        bgr = cv2.cvtColor(picture(640, 480, PLACES[: n % 4]), cv2.COLOR_RGB2BGR)
        (folder / "in" / f"p{n}.jpg").write_bytes(cv2.imencode(".jpg", bgr)[1].tobytes())
    (folder / "in" / "p100.jpg").write_bytes(b"\xff\xd8 torn")
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": 10901}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def begin(folder: Path, output: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posezoo", "batch", "in", "-o", output, "-m", "pose.onnx"]
    command += ["--detector", "detector.onnx", "--device", "cpu", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )


def run(folder: Path, output: str, *more: str) -> tuple[int, str, str]:
    process = begin(folder, output, *more)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out, err


def table(folder: Path, output: str, name: str) -> list[dict[str, Any]]:
    paths = sorted((folder / output / name).glob("*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def wait_for_parts(folder: Path, output: str, count: int) -> None:
    limit = time.monotonic() + 120
    while len(list((folder / output / "people").glob("part-*"))) < count:
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables of an unbroken run on this machine alone."""
    code, out, err = run(folder, "whole", "--workers", "2", "--json")
    assert code == 2, err  # the torn picture
    lines = err.splitlines()
    assert len(lines) == 1 and "p100.jpg" in lines[0], lines
    said = json.loads(out)
    assert (said["images"], said["people"], said["errors"]) == (239, 360, 1)
    assert said["parts_done"] == said["parts"] == 8 and said["workers"] == 2 and said["failed"] == []
    assert said["this_run"]["images"] == 239 and said["this_run"]["images_per_second"] > 0
    assert "onnx on cpu, fp32, 1 thread" in said["computed_by"]
    return {name: table(folder, "whole", name) for name in ("people", "images", "errors")}


def same(folder: Path, output: str, whole: dict[str, list[dict[str, Any]]]) -> None:
    found = {name: table(folder, output, name) for name in whole}
    assert found == whole
    assert len({row["image"] for row in found["images"]}) == len(found["images"]) == 239
    assert not list((folder / output).rglob(".part-*"))


def test_two_nodes(folder: Path, address: str, whole: Any) -> None:
    code, out, err = run(folder, "two", "--address", address, "--json")
    assert code == 2 and len(err.splitlines()) == 1 and "p100.jpg" in err, err
    assert json.loads(out)["workers"] == 2  # each node has room for one
    same(folder, "two", whole)


def test_a_ray_address(folder: Path, address: str, whole: Any) -> None:
    pytest.importorskip("grpc")
    code, _, err = run(folder, "client", "--address", "ray://127.0.0.1:10901")
    assert code == 2 and len(err.splitlines()) == 1 and "p100.jpg" in err, err
    same(folder, "client", whole)


def test_a_killed_driver_goes_on(folder: Path, whole: Any) -> None:
    process = begin(folder, "killed", "--workers", "2")
    wait_for_parts(folder, "killed", 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(list((folder / "killed" / "people").glob("part-*")))
    code, out, err = run(folder, "killed", "--workers", "2", "--json")
    assert code == 2, err
    said = json.loads(out)
    assert 2 <= before <= said["parts_done_before"] < 8 and said["parts_done"] == 8
    assert said["this_run"]["images"] < said["images"] == 239
    same(folder, "killed", whole)
    code, out, _ = run(folder, "killed", "--workers", "2")  # nothing is left to do
    assert code == 2 and "(8 of 8 parts by an earlier run) -> killed" in out


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm(folder: Path, whole: Any, told: signal.Signals) -> None:
    output = f"stopped by {told.name}"
    process = begin(folder, output, "--workers", "1")
    wait_for_parts(folder, output, 1)
    process.send_signal(told)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from there" in err, err
    assert len(err.splitlines()) == 1
    assert run(folder, output, "--workers", "2")[0] == 2
    assert {row["image"]: row["people"] for row in table(folder, output, "images")} == {
        row["image"]: row["people"] for row in whole["images"]
    }
    assert len(table(folder, output, "people")) == len(whole["people"])


def test_a_lost_worker(folder: Path, address: str, whole: Any) -> None:
    process = begin(folder, "lost", "--address", address)
    wait_for_parts(folder, "lost", 1)
    victims = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if b"MapWorker" in command_of(pid)]
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and len(err.splitlines()) == 1 and "p100.jpg" in err, err
    same(folder, "lost", whole)


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_no_room_and_no_cluster(folder: Path, address: str) -> None:
    for output, more, said in (
        (
            "a",
            ("--address", address, "--workers", "3"),
            "the cluster has 2 cores: 3 workers do not fit; give --workers 2",
        ),
        ("b", ("--address", address, "--threads", "4"), "no worker of 4 threads fits"),
        ("c", ("--address", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1: Connection refused"),
        ("c", ("--address", "somewhere"), "'somewhere' is no address of a Ray cluster"),
        ("d", ("--workers", "1", "--device", "cuda"), "Ray sees no GPU"),
        ("e", ("--workers", "1", "--model", "no_such_model"), "unknown model 'no_such_model'"),
    ):
        code, _, err = run(folder, output, *more)
        assert code == 2 and len(err.splitlines()) == 1 and said in err, err
