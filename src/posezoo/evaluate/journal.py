"""What a run has found so far, on disk after every picture, so that a killed run goes on where it stopped.

One file a process, of JSON lines: first the run's arguments, then one object a picture, at the end `{"finished": n}`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from posezoo.errors import PosezooError
from posezoo.files import write_atomic

PATIENCE = 600.0  # seconds without news from another process after which it is taken for dead


@dataclass
class Journal:
    """The results of the pictures done, by the row of each.

    Attributes:
        path: the file.
        arguments: what the results depend on; only a file with the same is gone on with.
        note: what became of an earlier file; "" where there was none.
        found: of each picture its predictions.
        unreadable: of each picture that could not be read, why.
    """

    path: Path
    arguments: Mapping[str, Any]
    note: str = ""
    found: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    _file: TextIO | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path, arguments: Mapping[str, Any], resume: bool = True) -> Journal:
        """Go on with the file at `path`, or begin it anew where its arguments are others or `resume` is off.

        Raises:
            PosezooError: it cannot be written.
        """
        journal = cls(path, json.loads(json.dumps(arguments)))
        if resume and path.is_file():
            lines = _lines(path)
            earlier = lines[0].get("arguments") if lines else None
            earlier = earlier if isinstance(earlier, dict) else {}
            if earlier == journal.arguments:
                journal._take(lines[1:])
                journal.note = f"went on after {len(journal.found)} pictures of an earlier run" if journal.found else ""
            else:
                journal.note = f"started anew, since {_difference(earlier, journal.arguments)}"
        # written again without a last line that was cut off, and without the pictures that could not be read then
        journal.unreadable.clear()
        lines = [{"arguments": journal.arguments}, *({"row": r, "predictions": p} for r, p in journal.found.items())]
        write_atomic(path, "".join(_text(line) for line in lines))
        try:
            journal._file = path.open("a", encoding="utf-8")
        except OSError as err:
            raise PosezooError(f"cannot write {path}: {err.strerror or err}") from None
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Note what was found in a picture."""
        self.found[row] = [dict(prediction) for prediction in predictions]
        self._write({"row": row, "predictions": self.found[row]})

    def fail(self, row: int, why: str) -> None:
        """Note that a picture could not be read."""
        self.unreadable[row] = why
        self._write({"row": row, "unreadable": why})

    def finish(self) -> None:
        """Note that every picture is done."""
        self._write({"finished": len(self.found)})

    def join(self, path: Path, arguments: Mapping[str, Any], patience: float = PATIENCE) -> None:
        """Wait for the file of another process and take its results too.

        Raises:
            PosezooError: the process has written nothing for `patience` seconds.
        """
        other = Journal(path, json.loads(json.dumps(arguments)))
        heard, size = time.monotonic(), -1
        while True:
            lines = _lines(path) if path.is_file() and _is_finished(path) else []
            if lines and lines[0].get("arguments") == other.arguments:
                self._take(lines[1:])
                return
            now = path.stat().st_size if path.is_file() else 0
            if now != size:
                heard, size = time.monotonic(), now
            elif time.monotonic() - heard > patience:
                raise PosezooError(f"the process that writes {path} was silent for {patience:g} s; run again")
            time.sleep(0.1)

    def _take(self, lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            if "predictions" in line:
                self.found[int(line["row"])] = line["predictions"]
            elif "unreadable" in line:
                self.unreadable[int(line["row"])] = line["unreadable"]

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_text(line))
            self._file.flush()
        except OSError as err:
            raise PosezooError(f"cannot write {self.path}: {err.strerror or err}") from None


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n"


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; one that was cut off, or that no run wrote, ends the list."""
    lines: list[dict[str, Any]] = []
    parse: Callable[[bytes], Any] = json.loads
    for text in path.read_bytes().split(b"\n"):
        try:
            line = parse(text)
        except (ValueError, RecursionError):
            break
        if not (isinstance(line, dict) and _is_of_a_run(line)):
            break
        lines.append(line)
    return lines


def _is_of_a_run(line: Mapping[str, Any]) -> bool:
    row, found = line.get("row", 0), line.get("predictions", [])
    return isinstance(row, int) and isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _is_finished(path: Path) -> bool:
    """Whether the last line says so; only the end is read, since this is asked again and again."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return b'{"finished":' in file.read().rstrip().rpartition(b"\n")[2]


def _difference(earlier: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> str:
    """The first argument that changed, in words."""
    for key in now:
        if earlier.get(key) == now[key]:
            continue
        if isinstance(now[key], Mapping) and isinstance(earlier.get(key), Mapping):
            return _difference(earlier[key], now[key], f"{key} ")
        return f"{inside}{key} was {earlier.get(key, 'not said')}, now {now[key]}"
    return "the earlier run had other arguments"
