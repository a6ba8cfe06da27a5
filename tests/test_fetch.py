"""Weights come whole and checked, or not at all: every way in which a download goes wrong, on a server of our own."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.zoo import Entry, Weights, get_entry
from posezoo.zoo.fetch import fetch, split_places
from posezoo.zoo.store import find_weights

FILE = "net.params"
CONTENT = struct.pack("<QQ", 0x112, 0) + np.random.default_rng(0).bytes(300_000)
OTHER = struct.pack("<QQ", 0x112, 0) + np.random.default_rng(1).bytes(300_000)
HALF = len(CONTENT) // 2
HTML = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"


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


# what goes well


def test_a_file_is_fetched_once(server: Server, home: Path) -> None:
    entry = entry_of(server.add("/net.params"), bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    seen: list[tuple[int, int | None, str]] = []
    path = fetch(entry, progress=lambda *now: seen.append(now))
    assert path == home / FILE
    assert path.read_bytes() == CONTENT
    assert left(home) == [FILE]
    assert seen[0] == (0, len(CONTENT), FILE)
    assert seen[-1] == (len(CONTENT), len(CONTENT), FILE)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert fetch(entry) == find_weights(entry, entry.weights) == path
    assert len(server.asked) == 1
    assert all(agent and agent.startswith("posezoo/") for agent in server.agents)


def test_find_weights_fetches(server: Server, home: Path) -> None:
    entry = entry_of(server.add("/a"))
    assert find_weights(entry, entry.weights).read_bytes() == CONTENT


def test_redirects_are_followed_to_http_only(server: Server, home: Path, tmp_path: Path) -> None:
    server.add("/there")
    moved = server.add("/moved", Page(status=302, location="/there"))
    assert fetch(entry_of(moved)).read_bytes() == CONTENT
    (home / FILE).unlink()
    (tmp_path / "secret").write_bytes(CONTENT)
    local = server.add("/local", Page(status=302, location=(tmp_path / "secret").as_uri()))
    with pytest.raises(PosezooError, match="leads to what is no http address: 'file:"):
        fetch(entry_of(local))
    assert left(home) == []


def test_the_wanted_member_of_a_zip_and_no_other(server: Server, home: Path, tmp_path: Path) -> None:
    hostile = zipped(
        **{"../evil.params": b"evil", f"../{FILE}": OTHER, "/abs": b"evil", "big": bytes(9), FILE: CONTENT}
    )
    assert fetch(entry_of(server.add("/net.zip", Page(hostile)))).read_bytes() == CONTENT
    assert left(home) == [FILE]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


# mirrors


def test_mirrors_come_first_and_in_order(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nfs"
    folder.mkdir()
    server.add("/m/net.params")
    entry = entry_of(server.add("/published"))
    monkeypatch.setenv("POSEZOO_MIRRORS", f"{folder}{os.pathsep}{server.url('/none/')},{server.url('/m/')}")
    path = fetch(entry)
    assert [path for path, _ in server.asked] == ["/none/net.params", "/m/net.params"]
    path.unlink()
    (folder / FILE).write_bytes(CONTENT)
    assert fetch(entry).read_bytes() == CONTENT
    path.unlink()
    assert fetch(entry, offline=True).read_bytes() == CONTENT
    path.unlink()
    assert len(server.asked) == 2
    fetch(entry, mirrors=[server.url("/m")])  # before those of the environment
    assert len(server.asked) == 3


def test_a_mirror_may_hold_the_zip(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net-1.zip").write_bytes(zipped(**{FILE: CONTENT}))
    assert fetch(entry_of(server.url("/net-1.zip")), mirrors=[tmp_path]).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", []),
        ("/a, http://h:8000/x ,~/b", ["/a", "http://h:8000/x", "~/b"]),
        ("/a:http://h:8000/x:rel/b:https://[::1]:80:/c", ["/a", "http://h:8000/x", "rel/b", "https://[::1]:80", "/c"]),
        ("https://me:pw@h/p q:/c", ["https://me:pw@h/p q", "/c"]),
        ("http://h:/c", ["http://h", "/c"]),
    ],
)
def test_places_in_one_line(text: str, places: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathsep", ":")
    assert split_places(text) == places


def test_places_in_one_line_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathsep", ";")
    assert split_places(r"C:\a b;D:/c;http://h:80/x,E:\d") == [r"C:\a b", "D:/c", "http://h:80/x", r"E:\d"]


def test_the_next_place_helps(server: Server, home: Path, tmp_path: Path) -> None:
    """Refused connection, 404, 503, wrong hash, page, cut short for good, too long: each is listed with its reason."""
    with Server() as closed:
        gone = closed.url("/gone")
    (tmp_path / "net.zip").mkdir()
    bad = {
        gone.replace("//", "//me:secret@"): "refused",
        server.url("/404"): "404 Not Found",
        server.add("/503", Page(status=503)): "503 Service Unavailable",
        server.add("/wrong", Page(OTHER)): "its sha1 begins",
        server.add("/html", Page(HTML, kind="text/html")): "it is a web page",
        server.add("/hidden", Page(HTML)): "it is a web page",
        server.add("/text", Page(b"sorry, gone")): "it is no weights file",
        server.add("/cut", Page(cuts=[HALF] * 3, version=None)): f"of {len(CONTENT)} bytes",
        server.add("/bad.zip", Page(CONTENT)): "no whole .zip",
        server.add("/empty.zip", Page(zipped(**{f"../{FILE}": CONTENT}))): "has no net.params in it",
        server.add("/wrong.zip", Page(zipped(**{FILE: OTHER}))): "its sha1 begins",
        server.add("/page.zip", Page(HTML)): "it is a web page",
    }
    with pytest.raises(PosezooError) as caught:
        fetch(entry_of(*bad))
    message = str(caught.value)
    lines = dict(part.split(": ", 1) for part in message.partition("; tried ")[2].split("; ")[: len(bad)])
    assert list(lines) == [url.replace("me:secret@", "") for url in bad]
    for url, reason in bad.items():
        assert reason in lines[url.replace("me:secret@", "")]
    assert str(home / FILE) in message
    assert "POSEZOO_MIRRORS" in message
    assert "\n" not in message
    assert FILE not in left(home)
    assert len([path for path, _ in server.asked if path == "/cut"]) == 3
    assert fetch(entry_of(*bad, server.add("/good"))).read_bytes() == CONTENT
    assert left(home) == [FILE]


def test_sizes_are_limits(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/a")
    with pytest.raises(PosezooError, match=f"it has {len(CONTENT)} bytes, expected 1000"):
        fetch(entry_of(url, bytes=1000))
    bomb = server.add("/a.zip", Page(zipped(**{FILE: CONTENT[:16] + bytes(10**6)})))
    with pytest.raises(PosezooError, match="expected at most 1000"):
        fetch(entry_of(bomb, bytes=1000))
    monkeypatch.setattr("posezoo.zoo.download.LARGEST", 1000)
    with pytest.raises(PosezooError, match="more than any weights file"):
        fetch(entry_of(url))
    monkeypatch.setattr("posezoo.zoo.download._total", lambda *unused: None)  # a server that does not say
    with pytest.raises(PosezooError, match="sends more than 1000 bytes"):
        fetch(entry_of(url))
    assert left(home) == []


# broken downloads


def test_a_broken_download_goes_on(server: Server, home: Path) -> None:
    page = Page(cuts=[HALF, HALF + 100_000])
    assert fetch(entry_of(server.add("/a", page))).read_bytes() == CONTENT
    (first, second, third) = [wanted for _, wanted in server.asked]
    assert first is None
    assert 0 < int(second[6:-1]) <= HALF < int(third[6:-1]) <= HALF + 100_000
    assert left(home) == [FILE]


def test_ctrl_c_leaves_a_part_that_goes_on_later(server: Server, home: Path) -> None:
    entry = entry_of(server.add("/a"))

    def stop(done: int, total: int | None, file: str) -> None:
        if done > HALF:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(entry, progress=stop)
    assert not (home / FILE).exists()
    (part,) = home.glob("*.part")
    kept = part.read_bytes()
    assert len(kept) > HALF
    assert CONTENT.startswith(kept)
    # the part is of that address only
    server.add("/b", Page(cuts=[1] * 3))
    with pytest.raises(PosezooError, match="broke off after 0 of"):
        fetch(entry_of(server.url("/b")))
    seen: list[int] = []
    assert fetch(entry, progress=lambda done, *_: seen.append(done)).read_bytes() == CONTENT
    assert [wanted for path, wanted in server.asked if path == "/a"] == [None, f"bytes={len(kept)}-"]
    assert seen[0] == len(kept)
    assert left(home) == [FILE]


@pytest.mark.parametrize(
    ("then", "cut", "requests"),
    [
        (Page(OTHER, version='"v2"'), HALF, 1),
        (Page(OTHER, version='"v1"', ranges=False), HALF, 1),
        (Page(OTHER, version=None), HALF, 1),
        (Page(OTHER[:200_000]), 290_000, 2),  # there is nothing at the place asked for
    ],
    ids=["changed", "no ranges", "no version", "shorter"],
)
def test_a_changed_file_is_never_joined_to_the_old_one(
    then: Page, cut: int, requests: int, server: Server, home: Path
) -> None:
    with pytest.raises(PosezooError, match="broke off"):
        fetch(entry_of(server.add("/a", Page(cuts=[cut] * 3, ranges=False)), hashed=False))
    assert list(home.glob("*.part"))
    server.asked.clear()
    server.add("/a", then)
    assert fetch(entry_of(server.url("/a"), hashed=False)).read_bytes() == then.content
    assert left(home) == [FILE]
    assert len(server.asked) == requests
    assert server.asked[0][1]


def test_a_server_that_ignores_if_range(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PosezooError, match="broke off"):
        fetch(entry_of(server.add("/a", Page(cuts=[HALF] * 3, ranges=False)), hashed=False))
    server.add("/a", Page(OTHER, version='"v2"'))
    get = BaseHTTPRequestHandler.parse_request

    def forget(self: Handler) -> bool:
        done = get(self)
        del self.headers["If-Range"]
        return done

    monkeypatch.setattr(Handler, "parse_request", forget)
    assert fetch(entry_of(server.url("/a"), hashed=False)).read_bytes() == OTHER
    assert [bool(wanted) for _, wanted in server.asked][-2:] == [True, False]


def test_a_slow_server_is_not_waited_for(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    gate = threading.Event()
    request.addfinalizer(gate.set)
    url = server.add("/slow", Page(gate=gate))
    began = time.monotonic()
    with pytest.raises(PosezooError, match=rf"no answer in time after \d+ of {len(CONTENT)} bytes"):
        fetch(entry_of(url), timeout=0.2)
    monkeypatch.setenv("POSEZOO_TIMEOUT", "0.2")
    assert fetch(entry_of(url, server.add("/a"))).read_bytes() == CONTENT
    assert time.monotonic() - began < 5
    monkeypatch.setenv("POSEZOO_TIMEOUT", "soon")
    (home / FILE).unlink()
    with pytest.raises(PosezooError, match="positive number of seconds, not 'soon'"):
        fetch(entry_of(url))


class FullDisk(io.FileIO):
    """A disk with room for 100 kB."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        room = 100_000 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data[:room]))


@pytest.mark.parametrize("suffix", ["params", "zip"])
def test_a_full_disk(suffix: str, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page() if suffix == "params" else Page(zipped(**{FILE: CONTENT[:16] + bytes(10**6)}))
    entry = entry_of(server.add(f"/net.{suffix}", page), server.add("/second"))
    usual = Path.open

    def opened(self: Path, mode: str = "r", *args: int, **kwargs: int) -> object:
        return FullDisk(self, mode) if mode in ("wb", "ab") else usual(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(PosezooError, match=r"No space left on device; free some space, or set POSEZOO_HOME"):
        fetch(entry)
    assert left(home) == []  # and what there was of it is free again
    assert len(server.asked) == 1  # another mirror would not help


def test_a_folder_that_cannot_be_made(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(PosezooError, match=r"cannot use .*file.home \(POSEZOO_HOME sets another folder\)"):
        fetch(entry_of(server.add("/a")))


def test_folders_that_may_not_be_looked_into(
    tmp_path: Path, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, usual = tmp_path / "closed", os.stat

    def stat(path: str | Path, *args: object, **kwargs: object) -> object:
        if isinstance(path, str | Path) and closed in Path(path).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    entry = entry_of(server.add("/a"))
    assert fetch(entry, mirrors=[closed]).read_bytes() == CONTENT
    monkeypatch.setenv("POSEZOO_HOME", str(closed / "home"))
    with pytest.raises(
        PosezooError, match=r"cannot use .*closed.home \(POSEZOO_HOME sets another folder\): Permission"
    ):
        fetch(entry)


CHILD = """
import sys, dataclasses, pathlib
from posezoo.zoo import Weights, get_entry
from posezoo.zoo.fetch import fetch
marker, url = pathlib.Path(sys.argv[1]), sys.argv[2]
entry = dataclasses.replace(get_entry("embedded"), weights=(Weights("net.params", (url,)),))
path = fetch(entry, progress=lambda done, total, file: total or marker.write_text(file))
print(len(path.read_bytes()))
"""


def test_two_processes_fetch_once(server: Server, home: Path, tmp_path: Path) -> None:
    gate = threading.Event()
    url = server.add("/a", Page(gate=gate))
    marker = tmp_path / "one waits"
    command = [sys.executable, "-c", CHILD, str(marker), url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    until = time.monotonic() + 30
    while not marker.exists() and time.monotonic() < until:
        time.sleep(0.02)
    waited = marker.exists()
    gate.set()
    assert [process.communicate(timeout=30)[0].strip() for process in both] == [str(len(CONTENT))] * 2
    assert waited
    assert server.asked == [("/a", None)]


# without a link


def test_offline_asks_nobody(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of(server.add("/a"), server.url("/b.zip"))
    monkeypatch.setenv("POSEZOO_OFFLINE", "1")
    with pytest.raises(PosezooError, match=r"^offline, and net\.params") as caught:
        fetch(entry, mirrors=[server.url("/m")])
    assert server.asked == []
    for needed in (str(home / FILE), server.url("/a"), server.url("/b.zip"), "unpacked"):
        assert needed in str(caught.value)
    with pytest.raises(PosezooError, match=r"^offline, and net\.params"):
        find_weights(entry, entry.weights)
    monkeypatch.setenv("POSEZOO_OFFLINE", "0")
    assert fetch(entry).is_file()
    monkeypatch.setenv("POSEZOO_OFFLINE", "1")
    assert fetch(entry) == home / FILE


def test_no_working_link(home: Path, tmp_path: Path) -> None:
    entry = entry_of(dead=True, note="the page links its bare name")
    with pytest.raises(
        PosezooError, match=r"page that lists net\.params .* has no working link to it: .* bare"
    ) as caught:
        fetch(entry)
    assert str(home / FILE) in str(caught.value)
    assert "pretrained=PATH" in str(caught.value)
    with pytest.raises(
        PosezooError, match=r"no link that leads straight to net\.params .* in a folder; get it by hand"
    ):
        fetch(entry_of(note="in a folder"))
    (tmp_path / FILE).write_bytes(CONTENT)
    assert fetch(entry, mirrors=[tmp_path]) == home / FILE
    with pytest.raises(PosezooError, match=r"net.test has no weights to load: pass pretrained=PATH"):
        fetch(entry, ())


def test_a_wrong_file_put_there_by_hand(server: Server, home: Path) -> None:
    entry = entry_of(server.add("/a"))
    home.mkdir()
    (home / FILE).write_bytes(HTML)
    with pytest.raises(PosezooError, match=r"another file: it is a web page; delete it and fetch it again"):
        fetch(entry)
    assert (home / FILE).read_bytes() == HTML  # somebody's file is not ours to replace


@pytest.mark.parametrize(
    ("file", "content", "is_good"),
    [
        ("a.params", CONTENT, True),
        ("a.pth", b"PK\x03\x04abc", True),
        ("a.pth.tar", b"\x80\x02}q", True),
        ("a.safetensors", struct.pack("<Q", 2) + b"{}", True),
        ("yolo.weights", struct.pack("<3i", 0, 2, 0), True),
        ("yolo.weights", b" \n<HTML><head>", False),
        ("a.pth", b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", False),
        ("a.pth", b"Not found", False),
        ("a.pth", b"", False),
    ],
)
def test_what_is_taken_for_weights(file: str, content: bytes, is_good: bool, tmp_path: Path, home: Path) -> None:
    (tmp_path / file).write_bytes(content)
    entry = entry_of(file=file, hashed=False)
    if is_good:
        assert fetch(entry, mirrors=[tmp_path]).read_bytes() == content
    else:
        with pytest.raises(PosezooError, match=r"it is (a web page|no weights file)"):
            fetch(entry, mirrors=[tmp_path])
        assert left(home) == []


# Google Drive

DRIVE = "https://drive.google.com/open?id=1kQhnMRURFiy7NsdS8EFL-8vtqEXOgECn"


def test_google_drive_without_gdown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(PosezooError, match=r"pip install 'posezoo\[drive\]'") as caught:
        fetch(entry_of(DRIVE))
    assert f"download {DRIVE} by hand and put it at {home / FILE}" in str(caught.value)
    folder = "https://drive.google.com/drive/folders/1hOTihvbyIxsm5ygDpbUuJ7O_tzv4oXjC"
    with pytest.raises(PosezooError, match="it is a folder of Google Drive"):
        fetch(entry_of(folder))


def test_google_drive_with_gdown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers: list[bytes | Exception] = [RuntimeError("Cannot retrieve\n the public link"), HTML, CONTENT]

    def download(id, output, quiet, use_cookies, timeout, progress) -> None:
        asked.append(id)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            output.write(CONTENT[:1000])  # no later call can go on from there
            raise answer
        output.write(answer)
        output.flush()
        progress(len(answer), None)

    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=download))
    entry = entry_of(DRIVE)
    with pytest.raises(PosezooError, match=r"Cannot retrieve the public link"):
        fetch(entry)
    assert left(home) == []
    with pytest.raises(PosezooError, match=r"it is a web page"):
        fetch(entry)
    assert left(home) == []
    viewed = entry_of("https://drive.google.com/file/d/1S-ROA28de-1zvLv-hVfPFJ5tFBYOSITb/view?usp=sharing")
    seen: list[int] = []
    assert fetch(viewed, progress=lambda done, *_: seen.append(done)).read_bytes() == CONTENT
    assert asked == ["1kQhnMRURFiy7NsdS8EFL-8vtqEXOgECn"] * 2 + ["1S-ROA28de-1zvLv-hVfPFJ5tFBYOSITb"]
    assert seen == [len(CONTENT)]


def test_import_is_light() -> None:
    heavy = ("requests", "filelock", "rich", "torch", "gdown")
    code = f"import sys, posezoo.zoo.fetch; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
