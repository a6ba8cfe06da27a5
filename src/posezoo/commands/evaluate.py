"""`posezoo evaluate` and `posezoo data`: how good, on what, and what training sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from posezoo.errors import PosezooError
from posezoo.terminal import (
    USER_ERROR,
    AsBatchSize,
    AsDevice,
    AsJson,
    AsPrecision,
    AsRuntime,
    AsThreads,
    guard,
    print_json,
    print_table,
    progress_bar,
)

data_app = typer.Typer(
    name="data",
    help="Look at datasets on disk.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@guard
def evaluate_command(
    dataset: Annotated[str, typer.Option(help="Whose metric: coco, mpii, crowdpose ...")],
    annotations: Annotated[Path, typer.Option(help="Its annotation file (PoseTrack18: the folder of them).")],
    model: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A model of the zoo, or a file: .onnx, .xml, .pt2, .safetensors."),
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="Judge this file as it is, instead of a model.")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="The folder of the pictures; may be repeated.")] = None,
    boxes: Annotated[str | None, typer.Option(help="gt, or a file of detected people.")] = None,
    protocol: Annotated[str | None, typer.Option(help="hrnet, mmpose, gluoncv, ...; default: the model's zoo.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change the protocol, such as flip=false; of --predictions: the metric, such as people=true.",
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The folder of the report; default: evaluation; of --predictions: none is written."
        ),
    ] = None,
    runtime: AsRuntime = "auto",
    precision: AsPrecision = "auto",
    device: AsDevice = "auto",
    threads: AsThreads = None,
    batch_size: AsBatchSize = None,
    max_missing: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of pictures that may be absent or odd; default 0.01."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Go on with no earlier run, and replace another one's report.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model, or predictions, by a dataset's metric.

    Needs no torch for an exported model or for a file of predictions.

    Example:  posezoo evaluate embedded --dataset coco --images val2017 --annotations person_keypoints_val2017.json
    """
    if predictions is not None and model is None:
        _refuse_given(
            {"--images": images, "--boxes": boxes, "--protocol": protocol, "--weights": weights, "--threads": threads},
            {"--runtime": runtime, "--precision": precision, "--device": device, "--batch-size": batch_size},
            {"--max-missing": max_missing},
        )
        _judge_file(predictions, dataset, annotations, _options(change or ()), output, fresh, as_json)
        return
    if model is None or predictions is not None:
        raise PosezooError("name a model, or give --predictions FILE: one of the two")
    if not images:
        raise PosezooError("a model needs --images DIR, the folder of the dataset's pictures")
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.evaluate.protocol import get_protocol, protocol_of
    from posezoo.evaluate.run import MAX_MISSING, run_evaluation
    from posezoo.zoo import get_entry

    output = output or Path("evaluation")
    name = protocol or ("plain" if is_network_file(model) else protocol_of(get_entry(model).source))
    chosen = get_protocol(name, dataset).with_overrides([*(change or ()), *([f"boxes={boxes}"] if boxes else [])])
    with progress_bar("pictures") as advance:
        report = run_evaluation(
            model,
            dataset,
            images,
            annotations,
            chosen,
            output,
            batch_size,
            device,
            runtime,
            resume=not fresh,
            progress=advance,
            weights=weights,
            threads=threads,
            precision=precision,
            max_missing=MAX_MISSING if max_missing is None else max_missing,
        )
    if report is None:  # another process of this run tells the result
        return
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo(report.text())
        typer.echo(f"-> {output}")


def _refuse_given(*options: Mapping[str, object]) -> None:
    """See that a file of predictions is not asked to be what only a model can be."""
    asked = [name for each in options for name, given in each.items() if given not in (None, [], "auto")]
    if asked:
        raise PosezooError(f"--predictions judges a file as it is: leave out {', '.join(asked)}, which is for a model")


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """What `key=value` texts ask of a metric."""
    from posezoo import toml

    found = {}
    for text in texts:
        key, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not value:
            raise PosezooError(f"'{text}' is not key=value")
        found[key] = toml.value(value)
    return found


def _judge_file(
    predictions: Path,
    dataset: str,
    annotations: Path,
    options: Mapping[str, Any],
    output: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    from posezoo.evaluate.report import finite, is_figure, printed
    from posezoo.evaluate.report_files import judge_file

    report = judge_file(predictions, dataset, annotations, options, output, resume=not fresh)
    found = report.metrics
    if as_json:
        print_json(finite(found))
        return
    shown = {name: f"{found[name]:.6g}" if is_figure(found[name]) else "-" for name in printed(found, dataset)}
    print_table(["metric", dataset], list(map(list, shown.items())))
    typer.echo(f"{predictions} as it is, by the metric of {dataset}, on {annotations}")
    if output is not None:
        typer.echo(f"-> {output}")


@data_app.command("check")
@guard
def check_command(
    dataset: Annotated[str, typer.Argument(help="coco, ochuman, crowdpose, aic, mhp, mpii, mpii_trb, ...")],
    root: Annotated[Path, typer.Option(help="Its folder.")],
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="A file that lies elsewhere than usual.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of its pictures.")] = None,
    sheet: Annotated[Path, typer.Option(help="Where to draw some of the people.")] = Path("samples.png"),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the sheet.")] = True,
    as_json: AsJson = False,
) -> None:
    """Say what of a dataset is there, missing or odd.

    Some of its people are drawn too.

    Example:  posezoo data check crowdpose --root data/crowdpose
    """
    from posezoo.data.check import check_dataset

    report = check_dataset(
        dataset, root, split=split, annotations=annotations, images=images, draw=sheet if draw else None
    )
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo("\n".join(report.lines()))
    if any(each.missing.count for each in report.splits):
        raise typer.Exit(USER_ERROR)


@data_app.command("list")
@guard
def list_command(as_json: AsJson = False) -> None:
    """List the datasets that can be read and judged.

    Example:  posezoo data list
    """
    from posezoo.data.catalog import get_dataset, list_datasets

    entries = [get_dataset(name) for name in list_datasets()]
    if as_json:
        print_json([{"name": d.name, "title": d.title, "keypoints": d.skeleton, "licence": d.licence} for d in entries])
        return
    rows = [[d.name, d.title, d.skeleton, d.licence] for d in entries]
    print_table(["dataset", "title", "keypoints", "licence"], rows)


@data_app.command("preview")
@guard
def preview_command(
    source: Annotated[str, typer.Argument(metavar="RECIPE|DATASET", help="What is to be trained, or a dataset.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to replace.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder of the data; of a recipe: instead of its own.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write.")] = Path("preview.png"),
    split: Annotated[str | None, typer.Option(help="Of a dataset: only this split.")] = None,
    people: Annotated[int, typer.Option(min=1, help="How many samples.")] = 12,
    seed: Annotated[int | None, typer.Option(help="Of the samples; default: a recipe's own.")] = None,
) -> None:
    """Draw what training would show a network.

    A sheet of augmented crops, with their joints and targets.

    Example:  posezoo data preview mmpose_res50_coco_256x192 --root datasets -o preview.png
    """
    from posezoo.data.catalog import list_datasets
    from posezoo.train.preview import preview, preview_dataset

    if source in list_datasets():
        written = preview_dataset(source, root or Path(), output, split, people, seed or 0)
    else:
        from posezoo.train.recipe import load_recipe

        given = [*(overrides or ()), *([f"data.root={root}"] if root else [])]
        written = preview(load_recipe(source, given), output, people, seed)
    typer.echo(f"-> {written}")
