"""`posezoo list`, `show`, `fetch` and `convert`: what there is, and how to have it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from posezoo.errors import PosezooError, require
from posezoo.terminal import USER_ERROR, AsJson, fail, guard, print_fields, print_json, print_table
from posezoo.words import counted


@guard
def list_command(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Only those with this in a name that they go by.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only this kind of network, such as hrnet.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only those trained on this dataset, such as coco.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this zoo, such as mmpose.")] = None,
    keypoints: Annotated[str | None, typer.Option(help="Only those with these keypoints, such as halpe136.")] = None,
    on: Annotated[str | None, typer.Option(help="All scores claimed on this dataset, such as ochuman.")] = None,
    task: Annotated[
        str | None, typer.Option(help="pose, or detection: what --detector takes; default: pose, if any fits.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="name, params, GFLOPs or a metric such as AP: best first.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo.

    With --task detection its detectors.

    Example:  posezoo list hrnet --on mpii --sort mean
    """
    from posezoo.zoo.listed import select
    from posezoo.zoo.table import entry_dict, score_table, sort_entries, summary_table

    found = select(text, family=family, dataset=dataset, source=source, keypoints=keypoints, on=on, task=task)
    entries = list(found.entries)
    if sort is not None:
        entries = sort_entries(entries, sort, on)
    if as_json:
        print_json([entry_dict(entry) for entry in entries])
        return
    what = "model" if found.task == "pose" else "detector"
    count = f"{counted(len(entries), what)}; input is height x width."
    if on is None:
        print_table(*summary_table(entries))
        typer.echo(f"{count}\nClaimed: the best of its source's scores, in percent; posezoo show NAME has all.")
    else:
        columns, rows, protocols = score_table(entries, on, sort)
        print_table(columns, rows)
        typer.echo(f"{count}\nScores on {on} as their sources claim them, in percent; posezoo show NAME as printed:")
        print_fields(protocols)
    if found.task != "pose":
        typer.echo("Detectors find people and no joints: posezoo predict --detector NAME.")
    if found.others:
        names = ", ".join(entry.name for entry in found.others)
        typer.echo(f"Also detectors (--task detection): {names}.")


@guard
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model's name, alias, hash tag, config path or checkpoint name.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one model.

    Example:  posezoo show pose_hrnet_w32.hrnet_coco_256x192
    """
    from posezoo.zoo import find_entry, get_entry
    from posezoo.zoo.table import entry_dict, entry_fields

    entry = find_entry(name) or get_entry(name)  # whatever lies here under that name
    if as_json:
        print_json(entry_dict(entry))
        return
    print_fields(entry_fields(entry))


@guard
def fetch_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, by any name they go by.")],
    mirror: Annotated[
        list[str] | None, typer.Option(help="A folder of files, or an address under which they lie; asked first.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Request nothing; say what is missing and where.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download models' weights, whole and checked.

    They go to POSEZOO_HOME (~/.cache/posezoo).

    Example:  posezoo fetch res50_coco_256x192 --mirror /mnt/weights
    """
    from posezoo.zoo import find_entry, get_entry
    from posezoo.zoo.fetch import fetch
    from posezoo.zoo.fetch import progress_bar as download_bar

    fetched, failed = {}, False
    for entry in dict.fromkeys(find_entry(name) or get_entry(name) for name in names):
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


@guard
def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A weights file of any zoo.", readable=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .safetensors, or .pth with --to.")],
    model: Annotated[str | None, typer.Option("-m", "--model", help="The model that the weights belong to.")] = None,
    to: Annotated[str | None, typer.Option(help="Write a peer's names instead: hrnet, mmpose or mmpose0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint of any zoo into .safetensors, or back.

    All that belongs to the weights is written with them. Back: by the names of HRNet or MMPose (--to).

    Example:  posezoo convert res50_coco.pth res50.safetensors
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
