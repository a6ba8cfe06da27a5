"""`posezoo batch`: millions of pictures into Parquet, on every core or GPU of a machine or a cluster."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo.terminal import (
    INTERNAL_ERROR,
    INTERRUPTED,
    USER_ERROR,
    AsBatchSize,
    AsDevice,
    AsPrecision,
    AsRuntime,
    fail,
    guard,
    print_json,
    progress_bar,
)
from posezoo.words import counted

if TYPE_CHECKING:
    from posezoo.batch.run import Report

_MOST_SHOWN = 5  # errors


@guard
def batch_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Pictures, videos, .tar shards, .parquet files; folders, globs, lists."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to, or to go on with.")],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model of the zoo, or a file: .onnx, .xml, .pt2, .safetensors.")
    ] = "embedded",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    detector: Annotated[
        str, typer.Option(help="embedded, whole (each picture is one person), or a file, as in predict.")
    ] = "embedded",
    min_score: Annotated[
        float | None, typer.Option(help="Leave out people whose score is below this; default 0.16, 0 for given boxes.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture: slower, better.")] = False,
    every: Annotated[int, typer.Option(help="Of a video, take the first frame and then every so many.")] = 1,
    column: Annotated[str | None, typer.Option(help="The column of a Parquet file that has the pictures.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, HOST:PORT or ray://HOST:10001; default: this machine.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Pipelines at once; default: one a core, or one a GPU.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads of each worker; default 1.")] = None,
    runtime: AsRuntime = "auto",
    precision: AsPrecision = "auto",
    device: AsDevice = "auto",
    batch_size: AsBatchSize = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Refuse larger pictures; default 100.", envvar="POSEZOO_MAX_MEGAPIXELS")
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Do again what could not be read in an earlier run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Find people and their joints in millions of pictures.

    Writes Parquet: OUTPUT/people (one row a person), OUTPUT/images (one row a picture) and OUTPUT/errors (what could
    not be read; the exit code is then 2). The same command goes on after it was stopped, however that happened.

    Example:  posezoo batch "shards/*.tar" -o keypoints
    """
    from posezoo.batch.plan import Settings
    from posezoo.batch.run import Request, run_batch

    checkpoint = None if weights is None else os.fspath(weights)
    settings = Settings(model, checkpoint, detector, runtime, precision, flip, min_score, max_megapixels, every, column)
    request = Request(sources, output, settings, address, workers, threads, device, batch_size, retry_errors)
    with progress_bar("parts") as advance:
        report = run_batch(request, advance)
    if as_json:
        print_json(_report_dict(report, output))
    else:
        typer.echo(_summary(report, output))
    _tell_errors(report, output)


def _summary(report: Report, output: Path) -> str:
    counts = report.counts
    text = f"{counted(counts.images, 'picture')}, {counted(counts.people, 'person', 'people')}"
    text += f", {counted(counts.errors, 'error')}"
    if report.done_before:
        text += f" ({report.done_before} of {counted(report.parts, 'part')} by an earlier run)"
    if report.now.images:
        crew = counted(report.workers, "worker")
        text += f", {report.images_per_second:.1f} pictures/s ({crew} of {report.about})"
    return f"{text} -> {output}"


def _tell_errors(report: Report, output: Path) -> None:
    """What went wrong, on stderr, and the exit code that it means."""
    for number, why in list(report.failed.items())[:_MOST_SHOWN]:
        fail(f"part {number} could not be done: {why}")
    if report.interrupted:
        fail(f"stopped with {report.done} of {report.parts} parts done; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    if report.failed:
        fail(f"{report.parts - report.done} of {report.parts} parts are not done; the same command tries them again")
        raise typer.Exit(INTERNAL_ERROR)
    if report.counts.errors:
        from posezoo.batch.parts import first_errors

        for why in first_errors(output, _MOST_SHOWN):
            fail(why)
        if report.counts.errors > _MOST_SHOWN:
            fail(f"{report.counts.errors - _MOST_SHOWN} more in {output / 'errors'}")
        raise typer.Exit(USER_ERROR)


def _report_dict(report: Report, output: Path) -> dict[str, Any]:
    now = asdict(report.now)
    worker_seconds, read = now.pop("seconds"), now.pop("bytes")
    return {
        "images": report.counts.images,
        "people": report.counts.people,
        "errors": report.counts.errors,
        "parts": report.parts,
        "parts_done": report.done,
        "parts_done_before": report.done_before,
        "this_run": {
            **now,
            "bytes_read": read,
            "seconds": round(report.seconds, 4),
            "images_per_second": round(report.images_per_second, 3),
            "worker_seconds": round(worker_seconds, 4),
        },
        "workers": report.workers,
        "computed_by": report.about,
        "output": os.fspath(output),
        "interrupted": report.interrupted,
        "failed": [{"part": number, "error": why} for number, why in report.failed.items()],
    }
