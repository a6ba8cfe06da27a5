"""What every command shares: errors in one line, exit codes, tables, JSON, progress bars."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer

from posezoo.errors import PosezooError

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
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


def print_table(columns: list[str] | None, rows: list[list[str]]) -> None:
    """A plain table; as wide as it needs where stdout is no terminal, so that no name is ever cut in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns), pad_edge=False)
    for index, column in enumerate(columns or ["", ""]):
        is_number = columns is not None and all(re.fullmatch(r"[\d.]*M?", row[index]) for row in rows)
        table.add_column(column, overflow="fold", justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
