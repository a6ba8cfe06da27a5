"""Results as CSV: one row a person, with the columns of `posezoo.formats.table`; commas, UTF-8, a header.

Images without people have no row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError
from posezoo.formats import table
from posezoo.formats.result import Result, ResultWriter, Settings
from posezoo.formats.writers import TextFile
from posezoo.skeletons import Skeleton

TEXTS = ("image", "skeleton")


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of one file.

    Raises:
        PosezooError: two columns would get one name.
    """
    header = _line(table.columns(skeleton))

    def lines(record: Result) -> list[str]:
        return [_line(row) for row in table.rows(record)]

    return TextFile(output, skeleton, lines, begin=header, empty=header)


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # so that a name with either in it is quoted
    # a file name that is no Unicode is escaped
    return text.getvalue().removesuffix("\r\n").encode(errors="backslashreplace").decode() + "\n"


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The people of each image in the files."""
    return table.read_tables(map(_table, files), skeleton, first_row=2)


def _table(path: Path) -> table.Table:
    lines = _lines(path)
    names = next(lines, [])
    if len(names) == 1 and ";" in names[0]:
        raise PosezooError(f"{path} has its columns separated by semicolons, expected commas")
    return str(path), names, (_row(path, row, names, cells) for row, cells in enumerate(lines, 2))


def _lines(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, strict=True)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    except (UnicodeDecodeError, csv.Error) as err:
        raise PosezooError(f"{path} is not CSV: {err}") from None


def _row(path: Path, row: int, names: Sequence[str], cells: Sequence[str]) -> table.Row:
    if len(cells) != len(names):
        raise PosezooError(f"{path}, row {row} has {len(cells)} cells, expected {len(names)}: is it cut off?")
    return {name: cell if name in TEXTS else _cell(cell) for name, cell in zip(names, cells, strict=True)}


def _cell(text: str) -> int | float | str | None:
    if not text:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)  # a long id is more than a float holds
    except ValueError:
        return text
