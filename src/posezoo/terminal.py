"""What every command shares: errors in one line, exit codes, tables, JSON, progress bars."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer

from posezoo.errors import PosezooError

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
# where and how a network is computed, the same for every command that has one
AsRuntime = Annotated[str, typer.Option("--runtime", help="auto, onnx, openvino, torch or torch-compile.")]
AsPrecision = Annotated[str, typer.Option("--precision", help="auto (as stored), fp32, bf16, fp16 or int8.")]
AsDevice = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AsThreads = Annotated[int | None, typer.Option("--threads", help="CPU threads; default: one a core.")]
AsBatchSize = Annotated[int | None, typer.Option("--batch-size", help="People a network call; default: by device.")]
_Command = TypeVar("_Command", bound=Callable[..., None])


def fail(message: object) -> None:
    """One line on stderr."""
    typer.echo(f"error: {' '.join(str(message).split())}", err=True)


def guard(command: _Command) -> _Command:
    """Turn what a command raises into one line and an exit code; POSEZOO_DEBUG=1 shows where it came from."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except PosezooError as err:
            _show_traceback()
            fail(err)
            raise typer.Exit(USER_ERROR) from None
        except KeyboardInterrupt:
            fail("stopped by Ctrl-C")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as err:
            _show_traceback()
            kind, text = type(err).__name__, " ".join(str(err).split())
            hint = "please report it with the output of POSEZOO_DEBUG=1"
            typer.echo(f"internal error: {kind}: {text} ({hint})", err=True)
            raise typer.Exit(INTERNAL_ERROR) from None

    return guarded  # type: ignore[return-value]


def _show_traceback() -> None:
    if os.environ.get("POSEZOO_DEBUG") == "1":
        traceback.print_exc()


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback (done, total) that draws a bar on a terminal's stderr; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; nothing in it is ever cut.

    On a terminal too narrow for it, a row's first cell stands alone and the others below it, on as few lines as do.
    """
    cells = list(zip(columns, *rows, strict=True))
    widths = [max(map(len, column)) for column in cells]
    is_number = [all(re.fullmatch(r"[\d.]*M?", cell) for cell in column[1:]) for column in cells]
    gap, lines = _fold(widths, _width())
    printed = []
    for row in (columns, *rows):
        padded = [cell.rjust(w) if num else cell.ljust(w) for cell, w, num in zip(row, widths, is_number, strict=True)]
        text = "\n  ".join(gap.join(padded[column] for column in line).rstrip() for line in lines)
        printed.append(typer.style(text, bold=True) if row is columns else text)
    typer.echo("\n".join(printed))


def print_fields(fields: Sequence[Sequence[str]]) -> None:
    """Names and values; on a terminal a long value goes on below itself, and no address in it is broken."""
    start = max((len(name) for name, _ in fields), default=0) + 2
    width = max(_width() - start, 20)
    for name, value in fields:
        lines = [value]
        if len(value) > width:
            lines = textwrap.wrap(value, int(width), break_long_words=False, break_on_hyphens=False)
        typer.echo(name.ljust(start) + f"\n{' ' * start}".join(lines))


def _width() -> float:
    """How many characters a line of stdout holds: any number where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf


def _fold(widths: Sequence[int], most: float) -> tuple[str, list[list[int]]]:
    """What parts the columns of a table, and which of them stand on each line of a row."""
    if sum(widths) + 2 * len(widths) - 2 <= most:
        return "  ", [list(range(len(widths)))]
    lines, left = [[0]], 0.0
    for column, width in list(enumerate(widths))[1:]:
        if width > left:
            lines.append([])
            left = most - 2  # the indent
        lines[-1].append(column)
        left -= width + 1
    return " ", lines
