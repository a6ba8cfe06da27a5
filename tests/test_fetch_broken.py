"""Downloads that break: they go on, begin again or end in an error, and nothing half is ever taken for a file."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fetch_fixtures import CONTENT, FILE, HALF, OTHER, Handler, Page, Server, entry_of, home, left, server, zipped
from posezoo.errors import PosezooError
from posezoo.zoo.fetch import fetch

# ---- broken downloads


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
