"""`posezoo export`: a network as one file for another runtime."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posezoo.terminal import AsJson, guard, print_json

if TYPE_CHECKING:
    from posezoo.deploy.export import Exported


@guard
def export_command(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of the zoo, or a .safetensors file of convert or train.")
    ],
    to: Annotated[
        str | None,
        typer.Option(help="onnx (.onnx), openvino (.xml and .bin) or torch-export (.pt2); default: by -o's suffix."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; default: the model's name.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    uint8: Annotated[bool, typer.Option("--uint8", help="Normalise inside: it takes uint8 RGB crops.")] = False,
    decode: Annotated[bool, typer.Option("--decode", help="Decode inside: it gives joints, not heatmaps.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision: half the file.")] = False,
    random: Annotated[bool, typer.Option("--random", help="Random weights, to measure speed alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a model to one file that runs alone.

    It is checked against torch. Its batches may have any length, and its norms are folded.
    Needs the extras: pip install 'posezoo[torch,deploy]'

    Example:  posezoo export embedded --to openvino --uint8 --decode -o pose.xml
    """
    from posezoo.deploy.export import default_path, export, format_of

    form = to or (output and format_of(output)) or "onnx"
    path = default_path(model, form) if output is None else output
    done = export(model, path, form, weights=weights, uint8=uint8, decode=decode, half=half, random=random)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    beside = f" and {done.path.with_suffix('.bin').name}" if form == "openvino" else ""
    typer.echo(f"{done.name} -> {done.path}{beside}, {done.bytes / 1e6:.1f} MB, {done.seconds:.0f} s")
    if random:
        typer.echo("Its weights are RANDOM: it finds nothing, and serves to measure speed.")
    typer.echo(f"Checked against torch on random crops: {_agreement(done)}")
    typer.echo(f"Run it:  {_how_to_run(done)}")


def _agreement(done: Exported) -> str:
    """What the check found, in a few words."""
    if done.unit == "px":
        text = f"joints within {done.error:.1e} px" if done.error else "the same joints"
    else:
        text = f"within {done.error:.1e} {done.unit} of the output"
    if done.unsure:
        text += f", but for {done.unsure} of {done.joints} that rounding alone moves"
    if done.rounding:
        text += f"; torch's own rounding is {done.rounding:.1e} here"
    return text


def _how_to_run(done: Exported) -> str:
    option = "-m" if done.task == "pose" else "--detector"
    return f"posezoo predict photo.jpg {option} {shlex.quote(os.fspath(done.path))}"
