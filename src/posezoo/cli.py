"""The `posezoo` command. A command's module is read when it is asked for, and what is heavy inside the command."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from posezoo import __version__
from posezoo.commands.panels import PanelCommand

MODULES = {
    "predict": "predict",
    "demo": "demo",
    "list": "zoo",
    "show": "zoo",
    "fetch": "zoo",
    "convert": "zoo",
    "evaluate": "evaluate",
    "data": "evaluate",
    "batch": "batch",
    "train": "train",
    "export": "export",
    "quantize": "quantize",
    "benchmark": "benchmark",
    "serve": "serve",
    "doctor": "doctor",
    "convert-results": "convert_results",
}
_UsageError: Any = typer.BadParameter.__mro__[1]  # click's, wherever typer has it
SETTINGS: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None}


@cache
def _command(name: str) -> Any:
    module = import_module(f"posezoo.commands.{MODULES[name]}")
    if name == "data":
        return typer.main.get_command(module.data_app)
    alone = typer.Typer(**SETTINGS)
    alone.command(name, cls=PanelCommand)(getattr(module, f"{name.replace('-', '_')}_command"))
    return typer.main.get_command(alone)


class _Commands(Mapping[str, Any]):
    """The commands by name, each built when it is looked up: all of them together take a tenth of a second."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # nobody adds to them


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"posezoo {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _app() -> Any:
    app = typer.Typer(
        name="posezoo",
        help="Every classic top-down human pose model: find people and their joints in pictures, offline.\n\n"
        "Try:  posezoo predict photo.jpg",
        cls=_Group,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        **SETTINGS,
    )
    app.callback()(_options)
    return typer.main.get_command(app)


app = _app()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 our mistake, 2 the user's, 130 stopped by Ctrl-C."""
    try:
        code = app(arguments, prog_name="posezoo", standalone_mode=False)
    except _UsageError as err:
        if type(err).__name__ == "NoArgsIsHelpError":
            err.show()
        else:
            where = err.ctx.command_path if err.ctx else "posezoo"
            typer.echo(f"error: {err.format_message().rstrip('.')}; see {where} --help", err=True)
        code = err.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
