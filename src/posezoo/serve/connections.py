"""Connections, whatever is asked on them: how many there may be, and how long one may keep the server waiting."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from posezoo.serve.refusals import Refusal

_MOST = 2000
_BACKLOG = 128
_OPEN_FILES = 512  # of a process, where the system does not say
_SELDOM_S = 60.0


def room() -> tuple[int, int]:
    """How many connections may be open, and how many may wait to be: with them the process has files to spare."""
    try:
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        files = _OPEN_FILES if files == resource.RLIM_INFINITY else files
    except ImportError:  # on Windows
        files = _OPEN_FILES
    return min(files // 2, _MOST), min(files // 4, _BACKLOG)


class Connection(H11Protocol):
    """Hangs up on a client that lets the server wait: for the head of a request, or to take the answer.

    Attributes:
        wait_s: how long a client may do nothing, in seconds; at the latest it is hung up on after twice that.
        most: connections that may be open; one more is told so, and closed.
    """

    wait_s: float
    most: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_full(self.most))
            transport.close()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.wait_s, self._look, self._seen())

    def _seen(self) -> tuple[Any, int]:
        """The request that was last begun, and how many bytes of answers the client has not taken."""
        return self.cycle, self.transport.get_write_buffer_size()

    def _look(self, before: tuple[Any, int]) -> None:
        cycle, unsent = self._seen()
        waits = cycle is None or cycle.response_complete or unsent > 0
        if waits and (cycle, unsent) == before:
            self.transport.abort()
        else:
            self._wait()


def connection_class(wait_s: float, most: int) -> type[Connection]:
    """For uvicorn, which makes one for each connection."""
    return type("Connection", (Connection,), {"wait_s": wait_s, "most": most})


def _full(most: int) -> bytes:
    """The whole answer to a client that is one too many."""
    refusal = Refusal("busy", f"the limit of {most} connections at a time is reached; try again")
    body = json.dumps(refusal.body()).encode()
    headers = {**refusal.headers, "Content-Type": "application/json", "Content-Length": len(body)}
    lines = (f"{name}: {value}\r\n" for name, value in {**headers, "Connection": "close"}.items())
    status = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
    return f"{status}{''.join(lines)}\r\n".encode() + body


class Seldom(logging.Filter):
    """Lets a line through once a minute: that there are no files left asyncio says at each try to take a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        line, now = record.getMessage().partition("\n")[0], time.monotonic()
        if now - self._said.get(line, -_SELDOM_S) < _SELDOM_S:
            return False
        self._said[line] = now
        return True
