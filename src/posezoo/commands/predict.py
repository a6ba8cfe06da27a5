"""`posezoo predict`: pictures in, joints out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo.errors import PosezooError
from posezoo.terminal import (
    INTERRUPTED,
    USER_ERROR,
    AsBatchSize,
    AsDevice,
    AsPrecision,
    AsRuntime,
    AsThreads,
    fail,
    guard,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.predict import Report


@guard
def predict_command(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Pictures, folders or globs.")],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model of the zoo, or a file: .onnx, .xml, .pt2, .safetensors.")
    ] = "embedded",
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
    runtime: AsRuntime = "auto",
    precision: AsPrecision = "auto",
    device: AsDevice = "auto",
    threads: AsThreads = None,
    batch_size: AsBatchSize = None,
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
        settings: dict[str, Any] = {"threads": threads, "batch_size": batch_size, "precision": precision}
        opened.append(Estimator(model, weights, finder, runtime, device, flip, **settings))
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


def _summary(report: Report, output: Path, estimator: Estimator | None) -> str:
    from posezoo.deploy.runtimes import describe

    done, people = len(report.written), report.people
    text = f"{done} {'picture' if done == 1 else 'pictures'}, {people} {'person' if people == 1 else 'people'}"
    if done and estimator is not None:
        network = f"{estimator.spec.name}; {describe(estimator.runtime)}"
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
        runtime = estimator.runtime
        found |= {"model": estimator.spec.name, "runtime": runtime.name, "device": runtime.device}
        found |= {"precision": runtime.precision, "threads": runtime.threads, "batch_size": estimator.batch_size}
    return found
