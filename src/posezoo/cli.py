"""The `posezoo` command. Everything heavy is imported inside the commands: `posezoo --help` answers at once."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo import __version__
from posezoo.errors import PosezooError, require, unknown_name
from posezoo.terminal import INTERRUPTED, USER_ERROR, fail, guard, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.predict import Report

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


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("list")
@guard
def list_command(
    family: Annotated[str | None, typer.Option(help="Only this kind of network, such as hrnet.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only those trained on this dataset, such as coco.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this zoo, such as mmpose.")] = None,
    keypoints: Annotated[str | None, typer.Option(help="Only those with these keypoints, such as halpe136.")] = None,
    on: Annotated[str | None, typer.Option(help="All scores claimed on this dataset, such as ochuman.")] = None,
    sort: Annotated[str | None, typer.Option(help="name, params, GFLOPs or a metric such as AP: best first.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo.

    Examples:  posezoo list --family hrnet    posezoo list --on mpii --sort mean
    """
    from posezoo.zoo import get_entry, list_models
    from posezoo.zoo.table import entry_dict, score_table, sort_entries, summary_table

    entries = [get_entry(name) for name in list_models(family, dataset, source)]
    every = [get_entry(name) for name in list_models()]
    if keypoints is not None:
        _check_known("keypoints", keypoints, {entry.skeleton for entry in every})
        entries = [entry for entry in entries if entry.skeleton == keypoints]
    if on is not None:
        _check_known("dataset with claimed scores", on, {score.dataset for entry in every for score in entry.claimed})
        entries = [entry for entry in entries if any(score.dataset == on for score in entry.claimed)]
    if sort is not None:
        entries = sort_entries(entries, sort, on)
    if as_json:
        print_json([entry_dict(entry) for entry in entries])
        return
    if on is None:
        print_table(*summary_table(entries))
        notes = [
            "Claimed: the best main metric in percent, as its source says; `posezoo show NAME` tells the protocol."
        ]
    else:
        columns, rows, notes = score_table(entries, on, sort)
        print_table(columns, rows)
        notes.insert(0, f"Scores on {on} as their sources print them.")
    typer.echo(f"{len(entries)} {'model' if len(entries) == 1 else 'models'}; input is height x width.")
    for note in notes:
        typer.echo(note)


@app.command("show")
@guard
def show_command(
    name: Annotated[str, typer.Argument(help="A model's name, alias, hash tag, config path or checkpoint name.")],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one model.

    Example:  posezoo show pose_hrnet_w32.hrnet_coco_256x192
    """
    from posezoo.zoo import get_entry
    from posezoo.zoo.table import entry_dict, entry_rows

    entry = get_entry(name)
    if as_json:
        print_json(entry_dict(entry))
        return
    print_table(None, entry_rows(entry))


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

    with progress_bar("pictures") as advance:
        report = predict(request, open_estimator, advance)
    used = opened[0] if opened else None
    if as_json:
        print_json(_report_dict(report, output, used))
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


@app.command("fetch")
@guard
def fetch_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, by any name they go by.")],
    mirror: Annotated[
        list[str] | None, typer.Option(help="A folder of files, or an address under which they lie; asked first.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Request nothing; say what is missing and where.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download models' weights, checked, into POSEZOO_HOME (~/.cache/posezoo).

    Examples:  posezoo fetch 2f544338    posezoo fetch res50_coco_256x192 --mirror /mnt/weights
    """
    from posezoo.zoo import get_entry
    from posezoo.zoo.fetch import fetch
    from posezoo.zoo.fetch import progress_bar as download_bar

    fetched, failed = {}, False
    for entry in dict.fromkeys(map(get_entry, names)):
        try:
            with download_bar() as progress:
                path = fetch(entry, offline=offline or None, mirrors=mirror or (), progress=progress)
        except PosezooError as err:
            fail(err)
            failed = True
            continue
        fetched[entry.name] = str(path)
        if not as_json:
            typer.echo(f"{entry.name} -> {path}")
    if as_json:
        print_json(fetched)
    if failed:
        raise typer.Exit(USER_ERROR)


@app.command("convert")
@guard
def convert_command(
    checkpoint: Annotated[Path, typer.Argument(help="A weights file of any zoo.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .safetensors, or .pth with --to.")],
    model: Annotated[str | None, typer.Option("-m", "--model", help="The model that the weights belong to.")] = None,
    to: Annotated[str | None, typer.Option(help="Write a peer's names instead: hrnet, mmpose or mmpose0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint of any zoo into .safetensors with all that belongs to it, or back into a peer's.

    Examples:  posezoo convert res50_coco.pth res50.safetensors    posezoo convert net.safetensors net.pth --to mmpose
    """
    require("torch", "torch", "converting weights")
    from posezoo.zoo.weights.convert import convert

    done = convert(checkpoint, out, model, to)
    if as_json:
        print_json({**asdict(done), "out": str(done.out)})
        return
    what = done.model or f"{' or '.join(done.archs)} with {done.joints} joints"
    typer.echo(
        f"{done.arrays} arrays of {done.layout} -> {done.written} names, {done.bytes / 1e6:.1f} MB -> {done.out}"
    )
    typer.echo(f"Model: {what}")
    if done.candidates:
        typer.echo(
            f"It fits several models; to write which one it is, add -m with one of: {', '.join(done.candidates)}"
        )


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


def _check_known(what: str, value: str, known: set[Any]) -> None:
    if value not in known:
        raise unknown_name(what, value, known)


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


if __name__ == "__main__":
    main()
