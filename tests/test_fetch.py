"""Weights come whole and checked, or not at all: every way in which a download goes wrong, on a server of our own."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fetch_fixtures import CONTENT, FILE, HALF, OTHER, Page, Server, entry_of, home, left, server, zipped
from posezoo.errors import PosezooError
from posezoo.zoo.fetch import fetch, split_places
from posezoo.zoo.store import find_weights

HTML = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"


# ---- what goes well


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


# ---- mirrors


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


# ---- without a link


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
    assert "give its file (--weights FILE; demo: --checkpoint FILE; in Python weights=PATH, of get_model" in str(
        caught.value
    )
    with pytest.raises(
        PosezooError, match=r"no link that leads straight to net\.params .* in a folder; get it by hand"
    ):
        fetch(entry_of(note="in a folder"))
    (tmp_path / FILE).write_bytes(CONTENT)
    assert fetch(entry, mirrors=[tmp_path]) == home / FILE
    with pytest.raises(PosezooError, match=r"net.test has no weights to load: give its file \(--weights FILE; demo"):
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
        ("a.pth", zipped(data=b"abc"), True),
        ("a.pth.tar", pickle.dumps({}), True),
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


def _torch_file(legacy: bool, **others: object) -> bytes:
    torch = pytest.importorskip("torch")
    data = io.BytesIO()
    torch.save(
        {"a": torch.ones(300), "b": torch.ones(50).half(), **others}, data, _use_new_zipfile_serialization=not legacy
    )
    return data.getvalue()


def _safetensors_file() -> bytes:
    head = b'{"__metadata__":{"name":"x"},"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    return struct.pack("<Q", len(head)) + head + bytes(36)


WHOLE = {
    "zipped.pth": lambda: _torch_file(False),
    "old.pth.tar": lambda: _torch_file(True),
    "others.pth": lambda: _torch_file(True, when=SimpleNamespace(epoch=3)),
    "a.safetensors": _safetensors_file,
    "a.weights": lambda: struct.pack("<3i", 0, 2, 0) + bytes(40),
}


@pytest.mark.parametrize("file", WHOLE)
def test_files_that_are_cut_off(file: str, tmp_path: Path, home: Path) -> None:
    """Though nothing is known of their size; what a server that breaks off leaves, or a copy that did."""
    content, entry, mirror = WHOLE[file](), entry_of(file=file, hashed=False), tmp_path / file
    for length in (len(content) - 1, len(content) // 2 + 1, 50):
        mirror.write_bytes(content[:length])
        with pytest.raises(PosezooError, match=rf"it is cut off after {length} bytes"):
            fetch(entry, mirrors=[tmp_path])
        assert left(home) == []
    mirror.write_bytes(content)
    assert fetch(entry, mirrors=[tmp_path]).read_bytes() == content
    (home / file).write_bytes(content[:51])
    with pytest.raises(
        PosezooError, match="damaged or another file: it is cut off after 51 bytes; delete it and fetch"
    ):
        find_weights(entry, entry.weights)


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
