"""What every request passes on its way in and every answer on its way out: host, token, headers, one line of log."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from posezoo.serve.metrics import Metrics
from posezoo.serve.refusals import FAILED, Refusal
from posezoo.serve.settings import Settings

ACCESS_LOG = logging.getLogger("posezoo.serve.access")
_LOG = logging.getLogger("posezoo.serve")
_GONE = 499  # the client hung up: no answer was sent
_LONGEST_PATH = 200

HEADERS = {
    # the page, its scripts and styles come from here and nowhere else; a picture that was dropped on it is a blob
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Gate:
    """ASGI middleware round the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, open_paths: Collection[str]) -> None:
        """`open_paths` need no token."""
        self._app, self._settings, self._metrics, self._open = app, settings, metrics, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(receive, send)
        notes = scope.setdefault("state", {}).setdefault("notes", {})  # what a route adds to the line
        try:
            self._check(scope)
            await self._app(scope, seen.receive, seen.send)
        except ClientDisconnect:
            seen.status = seen.status or _GONE
        except Refusal as refusal:
            refusal.__traceback__ = None  # its frames hold the refusal, and the pictures: they would go round in it
            await _answer(refusal, scope, seen, notes)
        except Exception as err:
            _LOG.exception("a request failed")
            err.__traceback__ = None
            await _answer(Refusal("internal", FAILED), scope, seen, notes)
        finally:
            self._note(scope, seen, notes)

    def _check(self, scope: Scope) -> None:
        """Refuse the wrong host, which a page elsewhere may have had resolved to this server, and the wrong token."""
        headers, settings = Headers(scope=scope), self._settings
        if settings.hosts and _host(headers.get("host", "")) not in settings.hosts:
            raise Refusal("wrong_host", "the Host header names another host than this server's; see --allow-host")
        if settings.token is None or scope["path"] in self._open:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), settings.token.encode())
        if scheme.lower() != "bearer" or not same:
            what = "a wrong token" if given else "no token"
            raise Refusal("unauthorised", f"{what}: send the header Authorization: Bearer TOKEN")

    def _note(self, scope: Scope, seen: _Seen, notes: MutableMapping[str, Any]) -> None:
        route, status = getattr(scope.get("route"), "path", None) or "other", seen.status or 500
        seconds = time.perf_counter() - seen.since
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if "code" in notes:
            self._metrics.refused.labels(notes["code"]).inc()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": (scope.get("client") or ["-"])[0],
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "ms": round(1e3 * seconds, 1),
            "bytes_in": seen.bytes_in,
            "bytes_out": seen.bytes_out,
            **notes,
        }
        ACCESS_LOG.info("%s", json.dumps(line))  # as ASCII: nothing in a path can end the line


class _Seen:
    """What has passed of a request and its answer."""

    def __init__(self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
        self._receive, self._send = receive, send
        self.status = self.bytes_in = self.bytes_out = 0
        self.since = time.perf_counter()

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        self.bytes_out += len(message.get("body", b""))
        await self._send(message)


async def _answer(refusal: Refusal, scope: Scope, seen: _Seen, notes: MutableMapping[str, Any]) -> None:
    notes["code"] = refusal.code
    if not seen.status:  # else half an answer is out, which the closed connection shows
        answer = JSONResponse(refusal.body(), refusal.status, refusal.headers)
        await answer(scope, seen.receive, seen.send)


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.strip().lower()
    return name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
