"""The `posezoo` command. Everything heavy is imported inside the commands: `posezoo --help` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from posezoo import __version__
from posezoo.commands import (
    batch,
    benchmark,
    convert_results,
    demo,
    doctor,
    evaluate,
    export,
    predict,
    quantize,
    serve,
    train,
    zoo,
)
from posezoo.commands.panels import PanelCommand

app = typer.Typer(
    name="posezoo",
    help="Every classic top-down human pose model: find people and their joints in pictures, offline.\n\n"
    "Try:  posezoo predict photo.jpg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 our mistake, 2 the user's, 130 stopped by Ctrl-C."""
    app(arguments, prog_name="posezoo")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"posezoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("predict", cls=PanelCommand)(predict.predict_command)
app.command("demo", cls=PanelCommand)(demo.demo_command)
app.command("list")(zoo.list_command)
app.command("show")(zoo.show_command)
app.command("fetch")(zoo.fetch_command)
app.command("convert")(zoo.convert_command)
app.command("evaluate")(evaluate.evaluate_command)
app.add_typer(evaluate.data_app)
app.command("batch")(batch.batch_command)
app.command("train")(train.train_command)
app.command("export")(export.export_command)
app.command("quantize")(quantize.quantize_command)
app.command("benchmark")(benchmark.benchmark_command)
app.command("serve")(serve.serve_command)
app.command("doctor")(doctor.doctor_command)
app.command("convert-results")(convert_results.convert_results_command)

if __name__ == "__main__":
    main()
