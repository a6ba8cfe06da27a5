"""Results as Parquet: one row a person, with the columns of `posezoo.formats.table`, typed; needs pyarrow.

Rows are written in groups, so that no more than one is in memory. Images without people have no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError, require
from posezoo.formats import table
from posezoo.formats.result import Result, ResultWriter, Settings, check_skeleton
from posezoo.formats.writers import Pending
from posezoo.skeletons import Skeleton

GROUP = 200_000  # cells in memory, some 20 MB, before they are written
BATCH = 1024  # people that are read at a time
TYPES = {
    **{name: "int64" for name in ("frame", "track_id")},
    **{name: "int32" for name in ("width", "height", "person")},
    **{name: "string" for name in ("image", "skeleton")},
    "time": "float64",
}
"""Of the columns that are not float32."""


def _pyarrow(module: str = "") -> Any:
    return require(f"pyarrow{module}", "parquet", "the Parquet format")


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of one file.

    Raises:
        PosezooError: pyarrow is not installed, or two columns would get one name.
    """
    return ParquetFile(output, skeleton)


class ParquetFile(ResultWriter):
    """One file, a group of rows at a time."""

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        """Begin the file, unseen."""
        pyarrow = _pyarrow()
        self._skeleton, self._path = skeleton, path
        names = table.columns(skeleton)
        fields = [(name, getattr(pyarrow, TYPES.get(name, "float32"))()) for name in names]
        self._schema = pyarrow.schema(fields, metadata={"posezoo": "1"})
        self._batch_of = pyarrow.RecordBatch.from_pylist
        self._rows: list[dict[str, Any]] = []
        self._names = names
        self._pending = Pending(path)
        self._done: list[Path] | None = None
        self._file: Any = None
        with self._writing():
            # names repeat from row to row, numbers hardly ever do
            repeated = [name for name in names if name in TYPES]
            open_file = _pyarrow(".parquet").ParquetWriter
            self._file = open_file(self._pending.temporary, self._schema, use_dictionary=repeated, compression="zstd")

    def add(self, record: Result) -> None:
        """Add the rows of a result."""
        check_skeleton(record, self._skeleton)
        # a name that is no Unicode is escaped
        found = [dict(zip(self._names, row, strict=True)) for row in table.rows(record)]
        image = record.image.encode(errors="backslashreplace").decode()
        self._rows += [{**row, "image": image} for row in found]
        if len(self._rows) * len(self._names) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            with self._writing():
                self._file.write_batch(self._batch_of(rows, schema=self._schema), row_group_size=len(rows))

    def close(self) -> list[Path]:
        """Write the last group and the index, and put the file in its place."""
        if self._done is None:
            self._flush()
            with self._writing():
                self._file.close()
            self._done = self._pending.finish()
        return self._done

    def discard(self) -> None:
        """Leave nothing."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._pending.discard()
        self._done = []

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            self.discard()  # what is there is of no use without its end
            raise PosezooError(f"cannot write {self._path}: {err.strerror or err}") from None


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The people of each image in the files."""
    return table.read_tables(map(_table, files), skeleton)


def _table(path: Path) -> table.Table:
    pyarrow, parquet = _pyarrow(), _pyarrow(".parquet")
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as err:
        raise PosezooError(f"cannot read {path} as Parquet: {' '.join(str(err).split())}") from None
    return str(path), names, _rows(file, path)


def _rows(file: Any, path: Path) -> Iterator[table.Row]:
    try:
        for batch in file.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()
    except (OSError, UnicodeDecodeError, _pyarrow().ArrowException) as err:
        raise PosezooError(f"cannot read {path} as Parquet: {' '.join(str(err).split())}") from None
    finally:
        file.close()
