"""From one address or local path to one file here: over HTTP with resume, from Google Drive, or by copying."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from posezoo import __version__
from posezoo.errors import PosezooError, require

if TYPE_CHECKING:
    from requests import Response

Advance = Callable[[int, "int | None"], None]
LARGEST = 4 << 30  # bytes of a file whose size nobody states; the largest of the zoos has under 1 GiB
PIECE = 1 << 16  # bytes read at once, and what a broken connection loses
_ATTEMPTS = 3  # at one address, where the connection breaks in the middle
_DRIVE = re.compile(r"https?://(drive|docs)\.google\.com/")
_DRIVE_FILE = re.compile(r"[?&]id=([\w-]+)|/file/d/([\w-]+)")


class Failed(Exception):
    """An address did not give the file; the text is the reason, in a few words."""


class _Broken(Failed):
    """The connection broke in the middle: asking again may bring the rest."""


def is_url(place: str) -> bool:
    """Whether a place is an HTTP address and not a path."""
    return re.match(r"https?://", place, re.IGNORECASE) is not None


def download(place: str, partial: Path, size: int | None, timeout: tuple[float, float], advance: Advance) -> None:
    """Bring what lies at `place` to the file `partial`, as it is; nothing of it is checked but its size.

    What a broken HTTP download has brought stays in `partial`, with the version of it (ETag or date) in a file beside.
    The next call asks for the rest of that version, and begins anew if there is another by then.

    Args:
        place: an http or https address, which may redirect to another one, or the path of a file.
        partial: the file to write; one for each place.
        size: how many bytes it must have, if known; `LARGEST` is the most in any case.
        timeout: seconds to wait for a connection, and for the next bytes.
        advance: called with the bytes there are and the bytes there will be (None: unknown).

    Raises:
        Failed: it cannot be had from there.
        PosezooError: it cannot be written, such as to a full disk; then nothing is left of it.
    """
    if not is_url(place):
        _copy(Path(place), partial, size, advance)
    elif _DRIVE.match(place):
        _from_drive(place, partial, size, timeout, advance)
    else:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _over_http(place, partial, size, timeout, advance)
            except _Broken:
                if attempt == _ATTEMPTS:
                    raise


def discard(partial: Path) -> None:
    """Remove what a download left, as far as that is possible."""
    for path in (partial, _version_file(partial)):
        with suppress(OSError):
            path.unlink(missing_ok=True)


class Sink:
    """A file being written: takes no more bytes than it should, tells how far it is, and leaves no half of a full disk.

    Args:
        path: the file.
        size: how many bytes it must have, if known.
        advance: called with how many it has, and `total`.
        total: how many are said to come.
        start: how many of those that it has already are kept.
        keep: whether what came before an error stays.
    """

    def __init__(
        self,
        path: Path,
        size: int | None,
        advance: Advance | None = None,
        total: int | None = None,
        start: int = 0,
        keep: bool = False,
    ) -> None:
        self.path, self.done, self.total, self.keep = path, start, total, keep
        self.most = LARGEST if size is None else size
        self.advance = advance

    def __enter__(self) -> Sink:
        try:
            # unbuffered: what was written is in the file, even if Ctrl-C is next
            self.file = self.path.open("ab" if self.done else "wb", buffering=0)
        except OSError as err:
            raise self._cannot_write(err) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        if kind is not None and not self.keep:
            self._remove()
        try:
            if kind is None:
                os.fsync(self.file.fileno())  # before it gets its final name, or a power cut may leave that name empty
            self.file.close()
        except OSError as err:
            if kind is None:
                raise self._cannot_write(err) from None

    def write(self, data: bytes) -> int:
        """Append `data`.

        Raises:
            Failed: these are too many bytes.
            PosezooError: they cannot be written.
        """
        if self.done + len(data) > self.most:
            self._remove()
            raise Failed(f"sends more than {self.most} bytes")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as err:
            raise self._cannot_write(err) from None
        self.done += len(data)
        if self.advance is not None:
            self.advance(self.done, self.total)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def _remove(self) -> None:
        with suppress(OSError, AttributeError):  # no attribute: it could not even be opened
            self.file.close()
        discard(self.path)

    def _cannot_write(self, err: OSError) -> PosezooError:
        self._remove()
        return cannot_write(self.path, err)


def cannot_write(path: Path, err: OSError) -> PosezooError:
    """The error for a file that cannot be written, which says what to do where the disk is full."""
    full = err.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "; free some space, or set POSEZOO_HOME to a folder on another disk" if full else ""
    return PosezooError(f"cannot write {path}: {err.strerror or err}{advice}")


def fill(sink: Sink, source: IO[bytes]) -> None:
    """Write all of `source` into `sink`, in pieces."""
    while piece := source.read(PIECE):
        sink.write(piece)


def _copy(source: Path, partial: Path, size: int | None, advance: Advance) -> None:
    try:
        with source.open("rb") as file, Sink(partial, size, advance, source.stat().st_size) as sink:
            fill(sink, file)
    except OSError as err:
        raise Failed((err.strerror or str(err)).lower()) from None


def _over_http(url: str, partial: Path, size: int | None, timeout: tuple[float, float], advance: Advance) -> None:
    """One request, for all of a file or for what is missing of it."""
    import requests

    start, version = _kept(partial)
    headers = {"User-Agent": f"posezoo/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    except (requests.RequestException, ValueError) as err:  # some wrong addresses are a ValueError
        raise Failed(_reason(err)) from None
    with response:
        start = _answered(response, start, version, partial)
        total = _total(response, start)
        if size is not None and total not in (None, size):
            raise Failed(f"it has {total} bytes, expected {size}")
        if total is not None and total > LARGEST:
            raise Failed(f"it has {total} bytes, more than any weights file")
        if not start:
            _begin(partial, response)
        with Sink(partial, size, advance, total, start, keep=_version_file(partial).exists()) as sink:
            advance(start, total)
            try:
                for piece in response.iter_content(PIECE):
                    sink.write(piece)
            except requests.RequestException as err:
                reason = _reason(err)
                if "in time" in reason:  # asking again would only wait again
                    raise Failed(f"{reason} after {sink.done} of {total or '?'} bytes") from None
                raise _Broken(f"broke off after {sink.done} of {total or '?'} bytes") from None


def _version_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.version")


def _kept(partial: Path) -> tuple[int, str]:
    """How many bytes of an earlier download can be kept, and of which version of the file they are."""
    try:
        return partial.stat().st_size, _version_file(partial).read_text("ascii")
    except (OSError, ValueError):
        return 0, ""


def _begin(partial: Path, response: Response) -> None:
    """Note the version of the file that now begins to come; without one, what comes can never be gone on with."""
    discard(partial)
    version = _version(response)
    if version:
        try:
            _version_file(partial).write_text(version, "ascii")
        except OSError as err:
            discard(partial)
            raise cannot_write(partial, err) from None


def _version(response: Response) -> str:
    """What an If-Range header may say of the file that is being sent, or ""."""
    if _is_encoded(response):
        return ""  # a range would be one of the encoded bytes
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")  # W/"..." is no exact one
    return version if version.isascii() else ""


def _is_encoded(response: Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")


def _answered(response: Response, start: int, version: str, partial: Path) -> int:
    """From which byte on the server sends: `start` as asked, or 0.

    Raises:
        Failed: it sends no file.
    """
    status = response.status_code
    if start and status in (206, 416):
        span = re.match(r"bytes (\d+)-(\d+)/", response.headers.get("Content-Range", ""))
        # some servers send the rest of whatever they have by now
        if status == 206 and span and int(span[1]) == start <= int(span[2]) and _version(response) == version:
            return start
        discard(partial)
        raise _Broken("sends another part of the file than asked for")
    if status != 200:
        raise Failed(f"{status} {response.reason or ''}".strip())
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Failed("it is a web page")
    return 0


def _total(response: Response, start: int) -> int | None:
    """How many bytes the whole file has, if the server says so."""
    whole = re.search(r"/(\d{1,15})$", response.headers.get("Content-Range", "")) if start else None
    if whole:
        return int(whole[1])
    length = response.headers.get("Content-Length", "")
    return start + int(length) if re.fullmatch(r"\d{1,15}", length) and not _is_encoded(response) else None


def _reason(err: Exception) -> str:
    """Why a request failed, without the names of classes around it."""
    import requests

    inner = err.args[0] if err.args else err
    text = " ".join(str(getattr(inner, "reason", inner)).split())
    if isinstance(err, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(err, requests.Timeout) or "timed out" in text:
        return "no answer in time"
    if isinstance(err, requests.exceptions.InvalidSchema):
        return f"leads to what is no http address: {text.rpartition(' ')[2]}"
    return (text.partition("): ")[2] or text or type(err).__name__)[:200].rstrip(". ")


def _from_drive(url: str, partial: Path, size: int | None, timeout: tuple[float, float], advance: Advance) -> None:
    """A file of Google Drive, which asks a browser's questions before it sends one: gdown answers them."""
    found = _DRIVE_FILE.search(url)
    if not found:
        raise Failed("it is a folder of Google Drive: take the file out of it in a browser")
    try:
        gdown = require("gdown", "drive", "Google Drive")
    except PosezooError as err:
        raise Failed(str(err)) from None
    discard(partial)
    with Sink(partial, size) as sink:
        try:
            gdown.download(
                id=found[1] or found[2], output=sink, quiet=True, use_cookies=False, timeout=timeout, progress=advance
            )
        except (Failed, PosezooError):
            raise
        except Exception as err:  # gdown's own errors and those of all it calls
            raise Failed(_reason(err)) from None
