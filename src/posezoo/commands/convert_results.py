"""`posezoo convert-results`: results of posezoo and others from one format to another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from posezoo.terminal import AsJson, guard, print_json
from posezoo.words import counted

SHOWN = 6  # joints that are named before "and 20 more"


@guard
def convert_results_command(
    path: Annotated[Path, typer.Argument(metavar="IN", help="A results file, or a folder of them.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="posezoo, jsonl, coco, alphapose, openpose, openpose25 (BODY_25), cmu, csv or parquet."
        ),
    ],
    source: Annotated[str | None, typer.Option("--from", help="That of IN, also mmpose; default: found out.")] = None,
    skeleton: Annotated[
        str | None, typer.Option(help="The keypoints in files that do not name them; default coco17.")
    ] = None,
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="A file for each image or frame, not one list (coco, alphapose).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write results in another format, joint by joint name.

    Says what the other format has no place for, and which of its points were made of two joints.

    Example:  posezoo convert-results alphapose-results.json out --to openpose
    """
    from posezoo.formats.convert import convert_results
    from posezoo.formats.find import brief

    done = convert_results(path, output, to, source, skeleton, per_frame)
    if as_json:
        print_json({**asdict(done), "output": str(done.output)})
        return
    images = counted(done.images, "image")
    people = counted(done.people, "person", "people")
    typer.echo(f"{images}, {people} ({done.skeleton}), {done.source} -> {done.target}: {done.output}")
    if done.made:
        typer.echo(f"Made, halfway between left and right: {', '.join(done.made)}")
    if done.unplaced:
        more = len(done.unplaced) - SHOWN
        names = ", ".join(done.unplaced[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        typer.echo(f"Joints that {done.target} has no place for: {names}")
    if done.left_out:
        typer.echo(f"Not read: {brief(done.left_out)}")
    if done.lost:
        typer.echo(f"Also left out: {', '.join(done.lost)}")
