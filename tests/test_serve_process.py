"""`posezoo serve` as a process: ports, messages, exit codes, bodies that never end, and an end that loses nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import command_line
from posezoo.errors import PosezooError
from posezoo.serve.run import address_of, open_socket

EXAMPLE = (Path(__file__).parents[1] / "examples" / "basketball.png").read_bytes()


@contextmanager
def started(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on a port of its own, once it is ready."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "posezoo", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if line.startswith("ready"):
                break
        assert port, process.communicate(timeout=20)
        yield process, port
    finally:
        process.kill()
        process.wait(20)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def ask(port: int, content: bytes = EXAMPLE, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/predict", content, {"Content-Type": "image/png", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def send_raw(port: int, head: str, pieces: int = 0, piece: bytes = b"") -> tuple[bytes, int]:
    """What comes back for a request of which `pieces` pieces are sent, and how many could be."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n\r\n".encode())
        sent = 0
        try:
            for sent in range(pieces):  # noqa: B007
                connection.sendall(piece)
        except OSError:  # it hung up
            pass
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
        return answer, sent


def test_a_server_answers_refuses_and_ends_with_what_it_took(tmp_path: Path) -> None:
    with started("--max-body-mb", "1", "--max-queue", "64", POSEZOO_TOKEN="") as (process, port):
        status, found = ask(port)
        assert status == 200 and len(found["results"][0]["people"]) >= 1

        # a body that is announced as too large is not read at all
        answer, _ = send_raw(port, f"Content-Type: image/png\r\nContent-Length: {10**12}")
        assert answer.startswith(b"HTTP/1.1 413") and b"too_large" in answer
        # and one that never ends is cut: the client cannot send on
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        answer, sent = send_raw(port, "Content-Type: image/png\r\nTransfer-Encoding: chunked", 2000, chunk)
        assert answer.startswith(b"HTTP/1.1 413") or sent < 1999
        assert ask(port)[0] == 200
        assert ask(port, headers={"Host": "evil.example"})[0] == 421

        # told to end while it works: what was taken is answered, then it is gone
        answers: list[int] = []
        clients = [threading.Thread(target=lambda: answers.append(ask(port)[0])) for _ in range(6)]
        answered = 'posezoo_requests_total{route="/v1/predict",status="200"}'
        before = metric(port, answered)
        for client in clients:
            client.start()
        while metric(port, "posezoo_requests_taken") + metric(port, answered) - before < 6:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        _, errors = process.communicate(timeout=60)
        assert answers == [200] * 6
        assert process.returncode == 0 and "Traceback" not in errors
        lines = [json.loads(line) for line in errors.splitlines()]
        assert sum(line["status"] == 200 and line["path"] == "/v1/predict" for line in lines) == 8


def metric(port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M)[0])


@pytest.mark.slow
def test_ctrl_c_ends_it_as_well() -> None:
    with started("--no-log") as (process, port):
        assert ask(port)[0] == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


def refused(*arguments: str, **variables: str) -> str:
    result = command_line.run("serve", *arguments, **variables)
    assert result.code == 2 and result.err.count("\n") == 1, result.err
    return result.err


def test_a_port_that_is_taken_is_one_line() -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = address_of(taken).rpartition(":")[2]
        assert f"port {port} of 127.0.0.1 is taken" in refused("--port", port)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "no.such.host.invalid"], "no such address"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--token-file", "missing"], "no such token file"),
        (["--max-images", "0"], "max-images must be 1 or more"),
        (["--detector", "follow"], "from frame to frame"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], says: str) -> None:
    assert says in refused("--port", "0", *arguments)


def test_tokens_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    from posezoo.commands.serve import _token

    file = tmp_path / "token"
    file.write_text("from-a-file-12\n")
    assert _token(file) == "from-a-file-12"
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PosezooError, match="not text"):
        _token(file)
    file.write_text(" \n")
    with pytest.raises(PosezooError, match="empty"):
        _token(file)
    assert "8 or more" in refused("--port", "0", POSEZOO_TOKEN="short")


@pytest.mark.parametrize("model", ["/no/such/file.onnx", "pose_hrnet_w31"])
def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.serve import run

    monkeypatch.setattr(run, "_log_to_stderr", lambda requests: None)
    assert model in refused("--port", "0", "-m", model)


def test_a_public_address_without_a_token_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.serve import run

    served: list[Any] = []
    monkeypatch.setattr(run, "serve", lambda settings, opened, **_: (served.append(settings), opened.close()))
    public = command_line.run("serve", "--port", "0", "--host", "0.0.0.0", POSEZOO_TOKEN="")
    assert "no token is asked for" in public.err and public.code == 0 and served[-1].hosts == ()
    guarded = command_line.run("serve", "--port", "0", "--host", "0.0.0.0", POSEZOO_TOKEN="long-enough-1")
    assert guarded.err == "" and served[-1].token == "long-enough-1"
    own = command_line.run("serve", "--port", "0", "--allow-host", "Pose.example", POSEZOO_TOKEN="")
    assert own.err == "" and set(served[-1].hosts) == {"localhost", "127.0.0.1", "::1", "pose.example"}


SLOW = """
import sys, time
from posezoo import cli, detect
from posezoo.serve import worker
{patch}
cli.main(["serve", "--port", "0", "--no-log", *sys.argv[1:]])
"""
LOADS_SLOWLY = "detect.get_detector = lambda *_: (print('loading', flush=True), time.sleep(60))"
WORKS_SLOWLY = "worker.Worker._work = lambda *_: (print('working', flush=True), time.sleep(60))"


def slowly(patch: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW.format(patch=patch)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """What was printed until a line begins so."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(word):
            break
    return said


@pytest.mark.timeout(60)
def test_told_to_end_while_a_model_loads_it_does() -> None:
    with slowly(LOADS_SLOWLY) as process:
        wait_for(process, "loading")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, out, errors) == (0, "", "")


@pytest.mark.timeout(60)
def test_told_to_end_twice_it_does_so_at_once() -> None:
    with slowly(WORKS_SLOWLY) as process:
        port = int(re.findall(r":(\d+)$", wait_for(process, "ready"), re.M)[0])
        asking = http.client.HTTPConnection("127.0.0.1", port)
        asking.request("POST", "/v1/predict", EXAMPLE, {"Content-Type": "image/png"})
        wait_for(process, "working")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):  # it finishes what it has taken
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        asking.close()


def test_the_decoder_is_told_the_limit_before_it_is_imported() -> None:
    code = "import os, uvicorn; from posezoo import cli; variable = 'OPENCV_IO_MAX_IMAGE_PIXELS'; "
    code += "uvicorn.Server.run = lambda *_, **more: print(variable, os.environ.get(variable)); "
    code += "cli.main(['serve', '--port', '0', '--max-megapixels', '7'])"
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_IO_MAX_IMAGE_PIXELS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert "OPENCV_IO_MAX_IMAGE_PIXELS 7000000\n" in done.stdout, done.stderr


@pytest.mark.slow
def test_more_connections_than_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))  # which the server inherits
    try:
        with started("--timeout", "2") as (process, port):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(300)]
            limit = time.monotonic() + 30
            while time.monotonic() < limit:
                try:
                    if ask(port)[0] == 200:
                        break
                except OSError:
                    time.sleep(0.2)
            assert ask(port)[0] == 200
            for connection in idle:
                connection.close()
            process.terminate()
            assert len(process.communicate(timeout=20)[1]) < 20_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
