"""A small server for tests of the page: its files, the zoo's own catalogue, and answers that a test can choose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from conftest import REPOSITORY
from posezoo.serve import catalogue

PAGE = REPOSITORY / "src" / "posezoo" / "serve" / "page"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src blob:"
EMBEDDED = "mobile_pose_fpn_1.75.embedded_256x192"
LOADED = (EMBEDDED, "pose_hrnet_w32.hrnet_coco_256x192")


class PageServer(ThreadingHTTPServer):
    """What `POST /v1/predict` answers is in `answer`; the refusals in `refusals` come first, one a request.

    `posts` has the path, the headers and the body of each, `most_at_once` how many of them ran side by side.
    """

    daemon_threads = True

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.entries, self.skeletons = catalogue.entries(), catalogue.skeleton_rows()
        self.models = [{**row, "loaded": row["name"] in LOADED} for row in catalogue.model_rows()]
        self.lock = threading.Lock()
        self.answer: dict[str, Any] = json.loads(json.dumps(answer))  # a test may change it
        self.refusals: list[tuple[int, str, str, dict[str, str]]] = []
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.delay_s, self.token = 0.0, ""
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = PAGE / (path.strip("/") or "index.html")
        if file.parent == PAGE and file.is_file():
            self.send(200, file.read_bytes(), KINDS[file.suffix])
        elif not self.allowed():
            self.refuse(401, "unauthorised", "no token came: send the header Authorization: Bearer TOKEN")
        elif path == "/v1/models":
            self.send(200, {"models": self.server.models})
        else:
            _, _, kind, name = path.split("/") if path.count("/") == 3 else [""] * 4
            known = {"models": self.server.entries, "skeletons": self.server.skeletons}.get(kind, {})
            self.send(200, known[name]) if name in known else self.refuse(404, "not_found", f"no {path}")

    def do_POST(self) -> None:
        server = self.server
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.posts.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
            refusal = server.refusals.pop(0) if server.refusals else None
        time.sleep(server.delay_s)
        if not self.allowed():
            self.refuse(401, "unauthorised", "this is not the server's token")
        elif refusal:
            self.refuse(*refusal)
        else:
            self.send(200, server.answer)
        with server.lock:
            server.at_once -= 1

    def allowed(self) -> bool:
        return not self.server.token or self.headers["Authorization"] == f"Bearer {self.server.token}"

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, {"error": {"code": code, "message": message}}, headers=headers or {})

    def send(
        self, status: int, body: Any, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        every = {"Content-Type": kind, "Content-Length": str(len(data)), "Content-Security-Policy": POLICY}
        for key, value in {**every, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except ConnectionError:
            pass  # the page gave the request up


@contextmanager
def serve_page(answer: dict[str, Any]) -> Iterator[PageServer]:
    server = PageServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_of(poses: Any, image: str, size_wh: tuple[int, int]) -> dict[str, Any]:
    """The server's answer that says what an estimator found."""
    from posezoo.formats.posezoo import to_json

    table = json.loads(to_json(poses, image, size_wh))
    about = {key: table.pop(key) for key in ("skeleton", "joints")}
    result = {"image": image, "size_wh": list(size_wh), "people": table["people"], "error": None}
    return {"model": EMBEDDED, **about, "results": [result], "timing_ms": {"total": 93.4, "read": 3.1}}
