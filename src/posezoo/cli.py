"""The `posezoo` command. Everything heavy is imported inside the commands: `posezoo --help` answers at once."""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from posezoo import __version__
from posezoo.errors import PosezooError

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.predict import Report
    from posezoo.zoo import Entry

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130

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
_Command = TypeVar("_Command", bound=Callable[..., None])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 our mistake, 2 the user's, 130 stopped by Ctrl-C."""
    app(arguments, prog_name="posezoo")


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


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("list")
@guard
def list_command(
    family: Annotated[str | None, typer.Option(help="Only this kind of network, such as mobile_pose.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only those trained on this dataset, such as coco.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this zoo, such as gluoncv.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo.

    Example:  posezoo list --family mobile_pose
    """
    from posezoo.zoo import get_entry, list_models

    entries = [get_entry(name) for name in list_models(family, dataset, source)]
    if as_json:
        _print_json([_entry_dict(entry) for entry in entries])
        return
    columns = ["model", "keypoints", "input", "AP claimed", "AP measured"]
    rows = [
        [e.name, e.skeleton or "", "x".join(map(str, e.input_size_wh)), _best_ap(e.claimed), _best_ap(e.measured)]
        for e in entries
    ]
    _print_table(columns, rows)
    typer.echo(f"{len(rows)} models. Input is width x height; AP as claimed by the source and as measured here.")


@app.command("show")
@guard
def show_command(
    name: Annotated[str, typer.Argument(help="A model's name, alias or hash tag.")],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one model.

    Example:  posezoo show embedded
    """
    from posezoo.zoo import get_entry

    entry = get_entry(name)
    if as_json:
        _print_json(_entry_dict(entry))
        return
    _print_table(None, _entry_rows(entry))


@app.command("predict")
@guard
def predict_command(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Pictures, folders or globs.")],
    model: Annotated[str, typer.Option("-m", "--model", help="A model of the zoo, or an .onnx file.")] = "embedded",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    detector: Annotated[
        str, typer.Option(help="embedded, whole (each picture is one person), or a .json file of boxes.")
    ] = "embedded",
    boxes: Annotated[Path | None, typer.Option(help="A .json file of person boxes, instead of a detector.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")] = Path("posezoo-out"),
    format: Annotated[str, typer.Option(help="posezoo (a file a picture) or coco (one results file).")] = "posezoo",
    images: Annotated[bool, typer.Option("--images/--no-images", help="Write annotated pictures too.")] = True,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out people whose score is below this; default 0.18, 0 for given boxes.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture: slower, better.")] = False,
    runtime: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all that are there.")] = None,
    batch_size: Annotated[int, typer.Option(help="People a network call.")] = 32,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Refuse larger pictures; default 100.", envvar="POSEZOO_MAX_MEGAPIXELS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Find people and their joints in pictures.

    Writes a JSON file and an annotated picture for each. Pictures that cannot be read are listed at the end, and the
    exit code is then 2; the others are done all the same.

    Example:  posezoo predict photos/ party.jpg "trip/**/*.jpg" -o results
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a broken file is reported once, by us
    from posezoo.predict import Request, predict

    request = Request(sources, output, format, images, min_score, max_megapixels)
    opened: list[Estimator] = []

    def open_estimator() -> Estimator:
        from posezoo.detect.boxes_file import BoxesFile
        from posezoo.estimator import Estimator

        if boxes is not None and detector != "embedded":
            raise PosezooError("--boxes and --detector exclude each other")
        finder = detector if boxes is None else BoxesFile.read(boxes)
        opened.append(Estimator(model, weights, finder, runtime, device, flip, threads=threads, batch_size=batch_size))
        return opened[0]

    with _progress_bar("pictures") as advance:
        report = predict(request, open_estimator, advance)
    used = opened[0] if opened else None
    if as_json:
        _print_json(_report_dict(report, output, used))
    elif report.total:
        typer.echo(_summary(report, output, used))
    if len(report.failed) > 1 and report.total:
        typer.echo(f"{len(report.failed)} could not be processed:", err=True)
    for failure in report.failed:
        fail(failure["error"])
    if report.interrupted:
        fail(f"stopped by Ctrl-C after {len(report.written)} of {report.total} pictures")
        raise typer.Exit(INTERRUPTED)
    if report.failed:
        raise typer.Exit(USER_ERROR)


@app.command("train")
@guard
def train_command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train, on what, and how.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to replace.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train a network by a recipe.

    Needs the extra: pip install 'posezoo[train]'

    Example:  posezoo train recipes/embedded_pose.toml schedule.epochs=3
    """
    from posezoo.train import run

    run(recipe, tuple(overrides or ()), resume=resume, dry_run=dry_run)


@contextmanager
def _progress_bar(unit: str) -> Iterator[Callable[[int, int], None] | None]:
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


def _summary(report: Report, output: Path, estimator: Estimator | None) -> str:
    done, people = len(report.written), report.people
    text = f"{done} {'picture' if done == 1 else 'pictures'}, {people} {'person' if people == 1 else 'people'}"
    if done and estimator is not None:
        network = f"{estimator.spec.name}, {estimator.runtime.name} on {estimator.runtime.device}"
        text += f", {report.images_per_second:.1f} pictures/s ({network}) -> {report.results or output}"
    return text


def _report_dict(report: Report, output: Path, estimator: Estimator | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "images": len(report.written),
        "people": report.people,
        "seconds": round(report.seconds, 4),
        "images_per_second": round(report.images_per_second, 3),
        "output": str(output),
        "results": report.results,
        "interrupted": report.interrupted,
        "files": report.written,
        "failed": report.failed,
    }
    if estimator is not None:
        found["model"] = estimator.spec.name
        found["runtime"], found["device"] = estimator.runtime.name, estimator.runtime.device
    return found


def _entry_dict(entry: Entry) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(entry)


def _entry_rows(entry: Entry) -> list[list[str]]:
    """Field by field, scores and weights one a line, empty ones left out."""
    rows = []
    for key, value in _entry_dict(entry).items():
        if key in ("claimed", "measured"):
            rows += [[key, _score_line(score)] for score in value]
        elif key == "weights":
            rows += [[key, "  ".join(str(w[k]) for k in ("file", "url", "note") if w[k])] for w in value]
        elif key == "input_size_wh":
            rows.append([key, "x".join(map(str, value))])
        elif isinstance(value, dict):
            rows += [[f"{key} {name}", str(part)] for name, part in value.items()]
        elif value not in (None, "", ()):
            rows.append([key, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)])
    return rows


def _score_line(score: dict[str, Any]) -> str:
    named = {"AP": score["ap"], "AP50": score["ap50"], "AP75": score["ap75"], **score["other"]}
    numbers = "  ".join(f"{name} {value:g}" for name, value in named.items() if value is not None)
    return f"{numbers}  on {score['dataset']}, {'with' if score['flip'] else 'no'} flip: {score['protocol']}"


def _best_ap(scores: Any) -> str:
    values = [score.ap for score in scores if score.ap is not None]
    return f"{max(values):.1f}" if values else ""


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(columns: list[str] | None, rows: list[list[str]]) -> None:
    """A plain table; as wide as it needs where stdout is no terminal, so that no name is ever cut in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns), pad_edge=False)
    for column in columns or ["", ""]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


if __name__ == "__main__":
    main()
