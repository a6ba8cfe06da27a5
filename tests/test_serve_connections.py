"""Connections of `posezoo serve`: those that say nothing, those that take nothing, and one too many."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import uvicorn

from posezoo.serve.connections import Seldom, connection_class, room
from posezoo.serve.run import open_socket

WAIT_S = 0.3
HEAD = b"GET /quick HTTP/1.1\r\nHost: here\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, slowly, or at length."""
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(4 * WAIT_S)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (10**8 if path == "/long" else 10)})


@contextmanager
def listening(most: int = 100, turned_away: Callable[[], object] = int) -> Iterator[int]:
    with open_socket("127.0.0.1", 0) as opened:
        made = connection_class(WAIT_S, most, turned_away)
        config = uvicorn.Config(app, http=made, log_config=None, lifespan="off", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        yield opened.getsockname()[1]
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ended_after(connection: socket.socket) -> float:
    """Seconds until the server hangs up; what it sends before is read."""
    started = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


def test_who_says_nothing_or_takes_for_ever_to_say_it_is_hung_up_on() -> None:
    with listening() as port, connect(port) as silent, connect(port) as half, connect(port) as again:
        half.sendall(HEAD[:-2])
        again.sendall(HEAD + HEAD[:9])  # the second is not whole
        for connection in (silent, half, again):
            assert ended_after(connection) < 10
        with connect(port) as trickling, pytest.raises(OSError):
            started = time.monotonic()
            while time.monotonic() < started + 10:
                trickling.sendall(b"GET / HTTP/1.1\r\nX: " if time.monotonic() < started + 0.01 else b"x")
                time.sleep(WAIT_S / 5)


def test_who_does_not_take_the_answer_is_hung_up_on_and_who_takes_it_slowly_is_not() -> None:
    with listening() as port, connect(port) as greedy, connect(port) as slow:
        greedy.sendall(HEAD.replace(b"quick", b"long"))
        slow.sendall(HEAD.replace(b"quick", b"long"))
        taken = 0
        for _ in range(20):  # for longer than the other is given
            taken += len(slow.recv(1 << 20, socket.MSG_WAITALL))
            time.sleep(WAIT_S / 4)
        with pytest.raises(ConnectionError):
            while more := greedy.recv(1 << 20):
                assert more
            raise ConnectionError("ended early")
        while taken < 10**8 and (more := slow.recv(1 << 20)):
            taken += len(more)
        assert taken >= 10**8


def test_a_request_that_is_worked_on_may_take_long() -> None:
    with listening() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for path in ("/quick", "/slow", "/quick"):
            connection.request("GET", path)
            assert len(connection.getresponse().read()) == 10
        connection.close()


def test_who_has_just_been_answered_is_not_hung_up_on() -> None:
    with listening() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.connect()
        time.sleep(WAIT_S / 2)
        connection.request("GET", "/slow")  # answered a little before the server looks again
        assert len(connection.getresponse().read()) == 10
        assert connection.sock is not None and ended_after(connection.sock) >= 0.8 * WAIT_S
        connection.close()


def test_one_too_many_is_told_so_however_much_it_sends() -> None:
    counted: list[int] = []
    with listening(most=1, turned_away=lambda: counted.append(1)) as port, connect(port) as first:
        first.sendall(HEAD)
        assert first.recv(65536)
        for sent in range(1, 6):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", "/quick", bytes(4_000_000))
            assert connection.getresponse().status == 429
            connection.close()
            assert len(counted) == sent
        first.sendall(HEAD)
        assert first.recv(65536)


def test_one_too_many_is_told_so_and_the_others_stay() -> None:
    with listening(most=2) as port:
        taken = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(2)]
        for connection in taken:
            connection.request("GET", "/quick")
            assert len(connection.getresponse().read()) == 10
        with connect(port) as third:
            answer = http.client.HTTPResponse(third)
            answer.begin()
            error = json.loads(answer.read())["error"]
        assert (answer.status, error["code"]) == (429, "busy") and "2 connections" in error["message"]
        assert answer.headers["Retry-After"] == "1" and answer.headers["Connection"] == "close"
        for connection in taken:
            connection.request("GET", "/quick")
            assert connection.getresponse().status == 200
            connection.close()


def test_there_are_fewer_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for files, expected in ((64, (32, 16)), (1024, (512, 128)), (10**6, (2000, 128)), (resource.RLIM_INFINITY, None)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        most, backlog = room()
        assert expected in (None, (most, backlog)) and 0 < backlog < most < 10_000


def test_the_same_line_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom, now = Seldom(), [0.0]
    monkeypatch.setattr("posezoo.serve.connections.time.monotonic", lambda: now[0])

    def let_through(text: str) -> bool:
        return seldom.filter(logging.LogRecord("asyncio", logging.ERROR, "", 0, text, (), None))

    assert [let_through("out of files\nsocket 1"), let_through("out of files\nsocket 2"), let_through("other")] == [
        *(True, False, True)
    ]
    now[0] = 61
    assert let_through("out of files")
