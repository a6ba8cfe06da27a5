"""Weights files from where they are published, or from a mirror, into the cache folder: whole and checked, or not.

Settings, all from the environment: POSEZOO_HOME, the folder (~/.cache/posezoo); POSEZOO_MIRRORS, local folders of
files and addresses under which files lie by name, asked first, separated by commas or as PATH is; POSEZOO_OFFLINE=1,
nothing is requested; POSEZOO_TIMEOUT, seconds to wait for a server.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.files import atomic_path
from posezoo.zoo.download import LARGEST, Advance, Failed, Sink, cannot_write, discard, download, fill, is_url
from posezoo.zoo.entry import Entry, Weights
from posezoo.zoo.kinds import kind_of
from posezoo.zoo.store import find_fault, location, on_this_machine

Progress = Callable[[int, "int | None", str], None]
_CONNECT, _READ = 10.0, 30.0  # seconds
_LOOK = 0.2  # seconds between two looks at what another process has fetched
_STALLED = 600.0  # seconds without a new byte after which that process is given up


def fetch(
    entry: Entry,
    choices: Sequence[Weights] | None = None,
    *,
    offline: bool | None = None,
    mirrors: Sequence[str | os.PathLike[str]] = (),
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """The path of an entry's weights file, fetched into the cache folder if it is not there yet.

    Every mirror is asked in turn, then every published address. A file that comes is checked (its hash, as far as the
    entry states one, its size, its kind) before it gets its name. A broken download goes on where it stopped, now or
    in a later call. Of several processes that want one file, one fetches it and the others wait.

    Args:
        entry: an entry of the zoo.
        choices: its files, the best first, any of which will do; default: all it has.
        offline: request nothing; default: whether POSEZOO_OFFLINE is set.
        mirrors: local folders and addresses under which files lie by name; those of POSEZOO_MIRRORS follow.
        timeout: seconds to wait for a connection, and for the next bytes; default: POSEZOO_TIMEOUT, or 10 and 30.
        progress: called with the bytes there are, the bytes there will be (None: unknown) and the file's name, also
            while another process fetches it. At another address it may begin anew.

    Raises:
        PosezooError: it cannot be had (the error lists each place with the reason, and says how to mend it), it cannot
            be written, or what lies under its name is another file.
    """
    choices = tuple(entry.weights if choices is None else choices)
    if not choices:
        raise PosezooError(f"{entry.name} has no weights to load: {_give_file(entry)}")
    found = on_this_machine(choices)
    if found is not None:
        return found
    choices = tuple(weights for weights in choices if not weights.packaged)
    if not choices:
        raise PosezooError(f"the weights of {entry.name} are missing from this package: install posezoo again")
    if offline is None:
        offline = os.environ.get("POSEZOO_OFFLINE", "").lower() not in ("", "0", "no", "false", "off")
    folders = [os.fspath(mirror) for mirror in mirrors] + split_places(os.environ.get("POSEZOO_MIRRORS", ""))
    waits = _timeout(timeout)
    tried: list[str] = []
    for weights in choices:
        places = _places(weights, folders, offline)
        if places and _fetch_one(weights, places, waits, progress, tried):
            return location(weights)
    raise _not_found(entry, choices, tried, offline)


def split_places(text: str) -> list[str]:
    """Folders and addresses from one line, separated by commas or as PATH is (where ":" parts, it parts no address)."""
    address = rf"https?://(?:[^/,@]*@)?(?:\[[^]/,]*\]|[^/,:;]*)(?::\d+)?(?:/[^,{os.pathsep}]*)?"
    found = re.findall(rf"\s*{address}|[^,{os.pathsep}]+", text, re.IGNORECASE)
    return [place.strip() for place in found if place.strip()]


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A callback for `fetch` that draws a bar on a terminal's stderr; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, file: bar.update(task, completed=done, total=total, description=file)


def _timeout(given: float | None) -> tuple[float, float]:
    """Seconds to wait for a connection and for the next bytes."""
    text = os.environ.get("POSEZOO_TIMEOUT") if given is None else given
    if not text:
        return _CONNECT, _READ
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise PosezooError(f"a timeout must be a positive number of seconds, not '{text}' (POSEZOO_TIMEOUT sets it)")
    return seconds, seconds


def _places(weights: Weights, mirrors: Sequence[str], offline: bool) -> list[str]:
    """Where to look for a file, in order. A mirror may have it as published: zipped."""
    names = [weights.file, *(url.rpartition("/")[2] for url in weights.urls if url.endswith(".zip"))]
    places: list[str] = []
    for mirror in mirrors:
        if not is_url(mirror):
            paths = [str(Path(mirror).expanduser() / name) for name in names]
            places.append(next(filter(os.path.isfile, paths), paths[0]))
        elif not offline:
            places += [f"{mirror.rstrip('/')}/{name}" for name in names]
    return list(dict.fromkeys(places if offline else [*places, *weights.urls]))


def _fetch_one(
    weights: Weights, places: Sequence[str], waits: tuple[float, float], progress: Progress | None, tried: list[str]
) -> bool:
    """Whether the file is now at its location; if not, `tried` has each place with the reason."""
    target = location(weights)

    def advance(done: int, total: int | None) -> None:
        if progress is not None:
            progress(done, total, weights.file)

    with _alone(target, advance):
        if on_this_machine((weights,)):  # another process was quicker
            return True
        for place in places:
            tag = hashlib.sha256(place.encode()).hexdigest()[:8]
            partial = target.with_name(f"{target.name}.{tag}.part")
            zipped = place.lower().endswith(".zip")
            try:
                download(place, partial, None if zipped else weights.bytes, waits, advance)
                (_unpack if zipped else _accept)(partial, weights, target)
            except Failed as err:
                tried.append(f"{re.sub('//[^/@]*@', '//', place)}: {err}")  # never show a password
                continue
            for left in (partial, *_partials(target)):
                discard(left)
            return True
    return False


def _partials(target: Path) -> list[Path]:
    return list(target.parent.glob(f"{target.name}.????????.part"))


def _accept(partial: Path, weights: Weights, target: Path) -> None:
    """Give a file its final name if it is the right one, else remove it."""
    fault = find_fault(partial, weights)
    if fault:
        discard(partial)
        raise Failed(fault)
    try:
        partial.replace(target)
    except OSError as err:
        raise cannot_write(target, err) from None


def _unpack(partial: Path, weights: Weights, target: Path) -> None:
    """Give the one member of a .zip that has the file's name its final place, if it is the right one.

    No path inside the archive is ever used, and no other member is read.
    """
    try:
        if kind_of(partial) == "page":
            raise Failed("it is a web page")
        with atomic_path(target) as temporary:
            most = LARGEST if weights.bytes is None else weights.bytes
            with zipfile.ZipFile(partial) as archive:
                member = archive.getinfo(weights.file)
                if member.file_size > most:
                    raise Failed(f"its {weights.file} has {member.file_size} bytes, expected at most {most}")
                with archive.open(member) as source, Sink(temporary, weights.bytes) as sink:
                    fill(sink, source)
            fault = find_fault(temporary, weights)
            if fault:
                raise Failed(fault)
    except KeyError:
        raise Failed(f"the .zip has no {weights.file} in it") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as err:
        raise Failed(f"it is no whole .zip: {err}") from None  # encrypted ones are a RuntimeError
    finally:
        discard(partial)


@contextmanager
def _alone(target: Path, advance: Advance) -> Iterator[None]:
    """Keeps other processes from fetching the same file; waits, and tells how far they are, while one does."""
    import filelock

    path = target.with_name(f".{target.name}.lock")
    lock = filelock.FileLock(path)
    seen, since = 0, time.monotonic()
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOOK)
            break
        except filelock.Timeout:
            done = sum(part.stat().st_size for part in _partials(target) if part.exists())
            advance(done, None)
            if done != seen:
                seen, since = done, time.monotonic()
            if time.monotonic() - since > _STALLED:
                raise PosezooError(
                    f"another process holds {path} and fetches nothing: stop it, or delete that file"
                ) from None
        except (OSError, NotImplementedError) as err:
            reason = getattr(err, "strerror", None) or err
            raise PosezooError(f"cannot use {path.parent} (POSEZOO_HOME sets another folder): {reason}") from None
    try:
        yield
    finally:
        lock.release()


def _not_found(entry: Entry, choices: Sequence[Weights], tried: Sequence[str], offline: bool) -> PosezooError:
    """What was tried with what result, and how to mend it, in one line."""
    files = " or ".join(weights.file for weights in choices)
    targets = " or ".join(str(location(weights)) for weights in choices)
    urls = " or ".join(url for weights in choices for url in weights.urls)
    notes = "; ".join(weights.note for weights in choices if weights.note)
    if offline:
        head = f"offline, and {files} ({entry.name}) is not on this machine"
    elif any(weights.dead for weights in choices):
        head = f"the page that lists {files} ({entry.name}) has no working link to it"
    elif not urls:
        head = f"no link that leads straight to {files} ({entry.name}) is known"
    else:
        head = f"cannot fetch {files} ({entry.name})"
    if notes:
        head += f": {notes}"
    if tried:
        head += f"; tried {'; '.join(tried)}"
    unpack = " (unpacked)" if ".zip" in urls else ""
    by_hand = f"download {urls} by hand" if urls else "get it by hand"
    return PosezooError(
        f"{head}; {by_hand} and put it{unpack} at {targets}, {_give_file(entry)}, or name a folder or an address "
        "that has it in POSEZOO_MIRRORS"
    )


def _give_file(entry: Entry) -> str:
    """What a user can do who has the file."""
    if entry.task != "pose":
        return "give its file as the detector (--detector FILE)"
    return (
        "give its file (--weights FILE; demo: --checkpoint FILE; in Python weights=PATH, of get_model pretrained=PATH)"
    )
