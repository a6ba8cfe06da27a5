"""A server of our own whose pages fail as they are told to, and a home for what is fetched from it."""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from posezoo.zoo import Entry, Weights, get_entry

FILE = "net.params"
CONTENT = struct.pack("<QQ", 0x112, 0) + np.random.default_rng(0).bytes(300_000)
OTHER = struct.pack("<QQ", 0x112, 0) + np.random.default_rng(1).bytes(300_000)
HALF = len(CONTENT) // 2


@dataclass
class Page:
    """What the server has at one address."""

    content: bytes = CONTENT
    version: str | None = '"v1"'  # its ETag
    cuts: list[int] = field(default_factory=list)  # after so many bytes the connection breaks, once each
    ranges: bool = True
    status: int = 200
    location: str | None = None
    kind: str = "application/octet-stream"
    length: int | None = None
    gate: threading.Event | None = None  # what follows the first half waits for it


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.agents.add(self.headers.get("User-Agent"))
        page = self.server.pages.get(self.path)
        if page is None or page.status != 200:
            self.send_response(404 if page is None else page.status)
            if page is not None and page.location:
                self.send_header("Location", page.location)
            self.end_headers()
            return
        start = 0
        wanted = self.headers.get("Range")
        if page.ranges and wanted and self.headers.get("If-Range") in (None, page.version):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(page.content):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(page.content) - 1}/{len(page.content)}")
        if page.version:
            self.send_header("ETag", page.version)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str((page.length or len(page.content)) - start))
        self.end_headers()
        end = page.cuts.pop(0) if page.cuts else len(page.content)
        if page.gate is None:
            self.wfile.write(page.content[start:end])
        else:
            self.wfile.write(page.content[start:HALF])
            page.gate.wait(10)
            self.wfile.write(page.content[HALF:end])

    def log_message(self, *unused: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.agents: set[str | None] = set()

    def add(self, path: str, page: Page | None = None) -> str:
        self.pages[path] = page or Page()
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("POSEZOO_MIRRORS", "POSEZOO_OFFLINE", "POSEZOO_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def entry_of(*urls: str, file: str = FILE, content: bytes = CONTENT, hashed: bool = True, **fields: object) -> Entry:
    """An entry with one file of weights, published there."""
    tag = hashlib.sha1(content).hexdigest()[:8] if hashed else None
    weights = Weights(file, urls, hash_tag=tag, **fields)  # type: ignore[arg-type]
    return replace(get_entry("embedded"), name="net.test", arch="net", weights=(weights,), aliases=(), onnx=None)


def left(home: Path) -> list[str]:
    """What is in the folder, without lock files."""
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock")


def zipped(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()
