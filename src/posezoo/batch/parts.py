"""The tables that a part becomes: people, images and errors, Parquet, each file whole or not there.

    DIR/errors/part-000007.parquet    source, image, error
    DIR/images/part-000007.parquet    source, image, frame, time, width, height, people
    DIR/people/part-000007.parquet    source, then the columns of posezoo.formats.table; one row a person

They are put in place in this order, so that a part is done once its people are there, be there any or not. Doing a part
again writes the same files, once the people of the time before are gone: nothing is lost or there twice, whoever was
killed when.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from posezoo.errors import PosezooError, require
from posezoo.formats import table
from posezoo.formats.parquet import GROUP, TYPES
from posezoo.formats.result import Result
from posezoo.formats.writers import Pending
from posezoo.skeletons import Skeleton

PEOPLE, IMAGES, ERRORS = "people", "images", "errors"
_COUNTS = b"posezoo.batch"
_IMAGE_COLUMNS = ("source", "image", "frame", "time", "width", "height", "people")
_ERROR_COLUMNS = ("source", "image", "error")
_TYPES = {**TYPES, **dict.fromkeys(("source", "error"), "string"), "people": "int32"}


@dataclass
class Counts:
    """What is in a part, or in several.

    Attributes:
        images: pictures and frames that were looked at.
        people: in them.
        errors: pictures and sources that could not be read.
        bytes: of the files of the pictures; of the pixels of a video's frames.
        seconds: of a worker.
    """

    images: int = 0
    people: int = 0
    errors: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, other: Counts) -> None:
        """Add those of another part."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def part_path(output: Path, table_name: str, number: int) -> Path:
    """The file of a part."""
    return output / table_name / f"part-{number:06d}.parquet"


def tries_path(output: Path, number: int) -> Path:
    """Where it is noted how often a part was begun, a byte each, while it is not done."""
    return output / ".tries" / f"part-{number:06d}"


class PartWriter:
    """The tables of one part, as a context manager; leaving it by an error leaves nothing."""

    def __init__(self, output: Path, number: int, skeleton: Skeleton) -> None:
        """Begin the files, unseen.

        Raises:
            PosezooError: pyarrow is not installed, or the folder cannot be written.
        """
        self._errors_path, self._people_path = part_path(output, ERRORS, number), part_path(output, PEOPLE, number)
        self._tables = {
            ERRORS: _Table(self._errors_path, _ERROR_COLUMNS),
            IMAGES: _Table(part_path(output, IMAGES, number), _IMAGE_COLUMNS),
            PEOPLE: _Table(self._people_path, ("source", *table.columns(skeleton))),
        }
        self.counts = Counts()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            self._discard()

    def add(self, source: str, record: Result) -> None:
        """Add an image and its people."""
        image = _printable(record.image)
        key = {**record.key(), "source": _printable(source), "image": image}
        self._tables[IMAGES].add([[*(key[name] for name in _IMAGE_COLUMNS[:-1]), len(record.poses)]])
        self._tables[PEOPLE].add([[key["source"], image, *row[1:]] for row in table.rows(record)])
        self.counts.images += 1
        self.counts.people += len(record.poses)

    def fail(self, source: str, image: str, error: object) -> None:
        """Note what could not be read."""
        self._tables[ERRORS].add([[_printable(text) for text in (source, image, str(error))]])
        self.counts.errors += 1

    def finish(self) -> None:
        """Put the files in place.

        Raises:
            PosezooError: the disk is full; nothing of the part is there then that counts.
        """
        try:
            for each in self._tables.values():
                each.close({_COUNTS: json.dumps(asdict(self.counts)).encode()})
            self._people_path.unlink(missing_ok=True)  # of an earlier try, else the part would count as done meanwhile
            for name, each in self._tables.items():
                if name == ERRORS and not self.counts.errors:
                    each.discard()
                    self._errors_path.unlink(missing_ok=True)  # of an earlier try
                else:
                    each.finish()
        except OSError as err:
            raise PosezooError(f"cannot write {self._errors_path.parent}: {err.strerror or err}") from None
        finally:
            self._discard()

    def _discard(self) -> None:
        for each in self._tables.values():
            each.discard()


class _Table:
    """One file, written a group of rows at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        pyarrow: Any = require("pyarrow", "batch", "posezoo batch")
        parquet: Any = require("pyarrow.parquet", "batch", "posezoo batch")
        types = [(name, getattr(pyarrow, _TYPES.get(name, "float32"))()) for name in names]
        self._schema = pyarrow.schema(types, metadata={"posezoo": "1"})
        self._make, self._names, self._path = pyarrow.RecordBatch.from_pylist, list(names), path
        self._rows: list[Sequence[Any]] = []
        self._open = True
        self._pending = Pending(path)
        repeated = [name for name in names if name in _TYPES]  # numbers hardly ever are
        with self._telling():
            self._file = parquet.ParquetWriter(
                self._pending.temporary, self._schema, use_dictionary=repeated, compression="zstd"
            )

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows += rows
        if len(self._rows) * len(self._names) >= GROUP:
            self._flush()

    def close(self, metadata: dict[bytes, bytes]) -> None:
        """Write the end of the file, still unseen."""
        self._flush()
        with self._telling():
            self._file.add_key_value_metadata(metadata)
            self._file.close()

    def finish(self) -> None:
        """Put it in its place."""
        self._open = False
        self._pending.finish()

    def discard(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):
                self._file.close()
            self._pending.discard()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            named = [dict(zip(self._names, row, strict=True)) for row in rows]
            with self._telling():
                self._file.write_batch(self._make(named, schema=self._schema), row_group_size=len(named))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise PosezooError(f"cannot write {self._path}: {err.strerror or err}") from None


def _printable(text: str) -> str:
    """A name that is no Unicode is escaped."""
    return text.encode(errors="backslashreplace").decode()


def read_counts(output: Path, numbers: Sequence[int]) -> dict[int, Counts]:
    """Those of `numbers` that are done, and what is in each; a file without its end does not count."""
    with ThreadPoolExecutor(8) as pool:  # which wait for the disk
        found = pool.map(lambda number: _read_counts(part_path(output, PEOPLE, number)), numbers)
        return {number: counts for number, counts in zip(numbers, found, strict=True) if counts is not None}


def _read_counts(path: Path) -> Counts | None:
    pyarrow: Any = require("pyarrow", "batch", "posezoo batch")
    parquet: Any = require("pyarrow.parquet", "batch", "posezoo batch")
    try:
        return Counts(**json.loads(parquet.read_metadata(path).metadata[_COUNTS]))
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError):
        return None


def sweep(output: Path) -> None:
    """Remove what a killed run left unfinished."""
    unfinished = [path for name in (ERRORS, IMAGES, PEOPLE) for path in (output / name).glob(".part-*")]
    for path in (*unfinished, *(output / ".tries").glob("part-*")):
        with suppress(OSError):
            path.unlink()


def first_errors(output: Path, most: int) -> list[str]:
    """What was wrong with the first few pictures and sources that could not be read."""
    parquet: Any = require("pyarrow.parquet", "batch", "posezoo batch")
    found: list[str] = []
    for path in sorted((output / ERRORS).glob("part-*.parquet")):
        found += parquet.read_table(path, columns=["error"])["error"].to_pylist()[: most - len(found)]
        if len(found) >= most:
            break
    return found
