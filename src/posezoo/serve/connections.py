"""Connections, whatever is asked on them: how many there may be, and how long one may keep the server waiting."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from posezoo.serve.refusals import Refusal

_MOST = 2000
_BACKLOG = 128
_OPEN_FILES = 512  # of a process, where the system does not say
_SELDOM_S = 60.0
_LINGER_S = 2.0  # in which one too many may read that it is: what it sends is not asked for, and dropped

LOG = logging.getLogger("posezoo.serve.connections")


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
        turned_away: called for each of those.
        lingering: those that are being told, of all.
    """

    wait_s: float
    most: int
    turned_away: Callable[[], object]
    lingering: set[Connection]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._turn_away()
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self not in self.lingering:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._timer.cancel()
        self.lingering.discard(self)
        super().connection_lost(exc)

    def _turn_away(self) -> None:
        """Answer, and close later: a client whose bytes go nowhere while it sends them never reads the answer."""
        LOG.warning("the limit of %d connections at a time is reached: more are turned away", self.most)
        self.turned_away()
        self.connections.discard(self)
        self.transport.write(_full(self.most))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.lingering.add(self)
        there_is_room = len(self.lingering) <= max(1, self.most // 2)  # files, for those beyond the limit
        self._timer = self.loop.call_later(_LINGER_S if there_is_room else 0, self.transport.abort)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.wait_s, self._look, self._seen())

    def _seen(self) -> tuple[Any, bool, int]:
        """The request that was last begun, whether it is answered, and how many bytes the client has not taken."""
        cycle = self.cycle
        return cycle, cycle is None or cycle.response_complete, self.transport.get_write_buffer_size()

    def _look(self, before: tuple[Any, bool, int]) -> None:
        _, is_answered, unsent = now = self._seen()
        if (is_answered or unsent) and now == before:
            self.transport.abort()
        else:
            self._wait()


def connection_class(wait_s: float, most: int, turned_away: Callable[[], object] = int) -> type[Connection]:
    """For uvicorn, which makes one for each connection."""
    given = {"wait_s": wait_s, "most": most, "turned_away": staticmethod(turned_away), "lingering": set()}
    return type("Connection", (Connection,), given)


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
