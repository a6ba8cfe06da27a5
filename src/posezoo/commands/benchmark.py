"""`posezoo benchmark`: how fast, alone and in the pipeline, and how good for that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posezoo.errors import PosezooError
from posezoo.terminal import INTERRUPTED, USER_ERROR, AsJson, fail, guard, print_json, print_table, progress_bar
from posezoo.words import counted

if TYPE_CHECKING:
    from posezoo.bench.rows import Row


@guard
def benchmark_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Models of the zoo, or exported files.")
    ] = None,
    dummy: Annotated[bool, typer.Option("--dummy", help="The network alone, on made-up data: the default.")] = False,
    images: Annotated[str | None, typer.Option(help="The whole pipeline instead, on the pictures here.")] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="auto, onnx, openvino, torch, torch-compile; may be repeated.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="auto, fp32, bf16, fp16, int8; may be repeated.")] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Crops a network call; may be repeated; default: what suits the device.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all that are there.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    flip: Annotated[bool, typer.Option("--flip", help="With the mirrored crops, as for --flip of predict.")] = False,
    rounds: Annotated[int, typer.Option(help="Turns of each contestant.")] = 10,
    warmup: Annotated[int, typer.Option(help="Calls beforehand that are not counted.")] = 2,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights; also where a model's own are not there for dummy data.")
    ] = False,
    stages: Annotated[bool, typer.Option("--stages", help="Print each step of the pipeline, too.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows with machine and versions.")] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw speed against accuracy: .html, or a picture (.png, .svg).")
    ] = None,
    source: Annotated[
        list[Path] | None, typer.Option("--from", help="Draw what --csv wrote before; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast models are.

    The contestants take turns, so that what else the machine does slows all of them. Dummy data takes random weights
    for a model whose own were not fetched.

    Example:  posezoo benchmark simple_pose_resnet50_v1b --runtime torch --runtime openvino --batch-size 1
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    if source is not None:
        if names or chart is None or csv is not None or images is not None:
            raise PosezooError("--from draws results that are there: give --chart FILE, and nothing to measure")
        _draw(chart, [], source)
        return
    if dummy and images is not None:
        raise PosezooError("--dummy and --images exclude each other")
    if stages and images is None:
        raise PosezooError("--stages is for the whole pipeline: give --images DIR")
    from posezoo.bench.run import Request, run

    request = Request(
        names=list(dict.fromkeys(names or ())),
        runtimes=list(dict.fromkeys(runtime or ("auto",))),
        precisions=list(dict.fromkeys(precision or ("auto",))),
        batch_sizes=batch_size or (),
        threads=threads,
        device=device,
        flip=flip,
        images=images,
        weights=weights,
        random=random,
        rounds=rounds,
        warmup=warmup,
    )
    _check_outputs(csv, chart)
    with progress_bar("turns") as advance:
        report = run(request, advance)
    if as_json:
        print_json([row.to_dict() for row in report.rows])
    elif report.rows:
        _print(report.rows, stages)
    if csv is not None and report.rows:
        from posezoo.bench.rows import write_csv

        write_csv(csv, report.rows)
    if chart is not None and report.rows:
        _draw(chart, report.rows, [])
    for failure in report.failed:
        fail(failure)
    if report.interrupted:
        fail(f"stopped by Ctrl-C after {len(report.rows)} of {report.total} measurements")
        raise typer.Exit(INTERRUPTED)
    if report.failed:
        raise typer.Exit(USER_ERROR)


def _check_outputs(csv: Path | None, chart: Path | None) -> None:
    """Find out now rather than after minutes of measuring whether the files can be written."""
    from posezoo.files import check_writable

    if chart is not None:
        from posezoo.bench.chart import check

        check(chart)
    for path in (csv, chart):
        if path is not None:
            check_writable(path)


def _print(rows: list[Row], stages: bool) -> None:
    from posezoo.bench.table import stage_table, summary

    shared, table, legend = summary(rows)
    typer.echo(shared)
    print_table(*table)
    typer.echo(legend)
    for row in rows if stages else ():
        typer.echo(f"\n{row.model}, {row.runtime}, {row.precision}, batches of {row.batch_size}; an image:")
        print_table(*stage_table(row))


def _draw(chart: Path, rows: list[Row], files: list[Path]) -> None:
    from posezoo.bench.chart import draw
    from posezoo.bench.points import points_of
    from posezoo.bench.rows import read_csv, with_facts

    measured = [line for file in files for line in read_csv(file)] if files else with_facts(rows)
    points, left_out = points_of(measured)
    draw(chart, points)
    typer.echo(f"{counted(len(points), 'point')} -> {chart}", err=True)
    for reason in left_out:
        typer.echo(reason, err=True)
