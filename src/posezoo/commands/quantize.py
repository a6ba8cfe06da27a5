"""`posezoo quantize`: a network in 8 bits, and what that costs and gains."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo.cpu import cpu_name
from posezoo.errors import PosezooError
from posezoo.terminal import AsJson, AsThreads, guard, print_json, print_table, progress_bar
from posezoo.words import counted

if TYPE_CHECKING:
    from posezoo.deploy.calibrate import Crops, Labelled
    from posezoo.deploy.compare import Latency
    from posezoo.deploy.quantize import Quantized


@guard
def quantize_command(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of the zoo, or a .safetensors file of convert or train.")
    ],
    calibration: Annotated[
        Path, typer.Option(help="A folder of pictures of people, an annotation file, or a dataset's own folder.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .xml (openvino) or .onnx.")],
    dataset: Annotated[str | None, typer.Option(help="Whose annotations: coco (the default), mpii ...")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="The pictures of an annotation file.")] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Labelled people to measure the drop on; default: those calibrated with.")
    ] = None,
    batches: Annotated[int, typer.Option(help="To calibrate with.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Crops of people a batch.")] = 32,
    mode: Annotated[str, typer.Option(help="percentile, naive or entropy: how ranges are found.")] = "percentile",
    runtime: Annotated[str | None, typer.Option(help="openvino or onnx; default: by -o's suffix.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points: leave the worst layers in floating point until no more are lost. Needs labels."),
    ] = None,
    weight_bits: Annotated[str, typer.Option(help="7bit, 8bit, or auto: 7 where 8 would saturate.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights, to measure speed alone.")] = False,
    threads: AsThreads = None,
    as_json: AsJson = False,
) -> None:
    """Quantise a model to 8 bits, and measure what is lost.

    Static, per channel. The file runs alone, wherever a model's name is asked for. With a labelled set both are judged
    by its own metric, before and after. Needs the extras: pip install 'posezoo[torch,deploy]'

    Example:  posezoo quantize embedded --calibration photos/ -o pose8.xml
    """
    from posezoo.deploy.calibrate import Labelled, crops_of_people, crops_of_pictures, labelled_set, tasks_of
    from posezoo.deploy.compare import Judged, latency
    from posezoo.deploy.quantize import SUFFIXES, check_request, prepare, quantize
    from posezoo.deploy.runtimes import settle_threads

    chosen = runtime or next((name for name, suffix in SUFFIXES.items() if suffix == output.suffix.lower()), "openvino")
    check_request(output, chosen, mode, weight_bits, max_drop, random)
    threads = settle_threads(threads)
    labelled = labelled_set(calibration, dataset, images or (), annotations)
    judged = labelled
    if annotations is not None:
        judged = Labelled(dataset or "coco", annotations, tuple(images or [calibration]))
        tasks_of(judged)  # what is wrong with it is said now; people to calibrate with are read before the work anyway
    if max_drop is not None and judged is None:
        raise PosezooError("--max-drop needs labelled people: give --annotations FILE and --images DIR")
    network = prepare(model, weights, random, threads)
    most = (batches + 1) * batch_size
    with progress_bar("crops") as advance:
        crops = (
            crops_of_pictures(network.spec, calibration, most, progress=advance, threads=threads)
            if labelled is None
            else crops_of_people(network.spec, labelled, most, advance)
        )
    whole, held_back = crops.split(batches, batch_size)
    with progress_bar("steps") as advance:
        judge = None if judged is None or random else Judged(judged, threads=threads)
        done = quantize(
            network,
            whole,
            output,
            runtime=chosen,
            mode=mode,
            check=held_back,
            weight_bits=weight_bits,
            max_drop=max_drop,
            judge=judge,
            facts={"source": crops.source},
            progress=_reporter(advance),
            threads=threads,
        )
    speed = latency(network, output, threads)
    figures = [] if judge is None else [judge.figures[0], judge.figures[-1]]
    if as_json:
        print_json(_as_dict(done, speed, figures, crops, judged))
    else:
        _print(done, speed, figures, crops, judged)


def _reporter(advance: Callable[[int, int], None] | None) -> Callable[[str, int, int], None] | None:
    return None if advance is None else lambda what, done, total: advance(done, total)


def _as_dict(
    done: Quantized, speed: Latency, figures: list[tuple[str, float]], crops: Crops, judged: Labelled | None
) -> dict[str, Any]:
    timed = {**asdict(speed), "ratio": speed.ratio, "processor": cpu_name()}
    found = {**asdict(done), "path": str(done.path), "latency": timed}
    found |= {"calibration": crops.source, "nobody_found_in": crops.nobody, "unreadable": crops.unreadable}
    if figures and judged is not None:
        (metric, fp32), (_, int8) = figures
        found["accuracy"] = {
            "dataset": judged.dataset,
            "annotations": str(judged.annotations),
            "metric": metric,
            "fp32": fp32,
            "int8": int8,
            "drop": fp32 - int8,
        }
    return found


def _print(
    done: Quantized, speed: Latency, figures: list[tuple[str, float]], crops: Crops, judged: Labelled | None
) -> None:
    beside = f" and {done.path.with_suffix('.bin').name}" if done.runtime == "openvino" else ""
    typer.echo(f"{done.name} -> {done.path}{beside}, {done.bytes / 1e6:.1f} MB, {done.seconds:.0f} s")
    if done.random:
        typer.echo("Its weights are RANDOM: it finds nothing, and serves to measure speed.")
    looked = f"; nobody in {crops.nobody} pictures" if crops.nobody else ""
    looked += f"; {len(crops.unreadable)} pictures could not be read" if crops.unreadable else ""
    typer.echo(f"Calibrated on {done.calibrated_on} people of {crops.source} ({done.mode}){looked}")
    kept = done.convolutions - len(done.left_out)
    typer.echo(f"{kept} of {done.convolutions} convolutions in 8 bits, weights in {done.bits}")
    if done.bits == 8:
        typer.echo("For processors with VNNI or ARM: elsewhere 8 bits saturate. For all: --weight-bits 7bit")
    if not done.random:
        on = f"{done.checked_on} people {'held back' if done.held_back else 'of the calibration'}"
        typer.echo(f"Heatmaps differ by {done.error:.1f} % on {on}")
    row = [done.name, f"{speed.fp32_ms:.2f}", f"{speed.int8_ms:.2f}", f"{speed.ratio:.2f}"]
    columns = ["model", "fp32 latency (ms)", "s8 latency (ms)", "times"]
    if figures:
        (metric, fp32), (_, int8) = figures
        columns += [f"fp32 {metric}", f"s8 {metric}", "drop"]
        row += [f"{fp32:.1f}", f"{int8:.1f}", f"{fp32 - int8:.2f}"]
    print_table(columns, [row])
    threads = counted(speed.threads, "thread")
    told = f"One person a call, {done.runtime} on {speed.device}, {threads}"
    if figures and judged is not None:
        told += f"; accuracy on {judged.annotations} in annotated boxes, no flip, no suppression"
    typer.echo(told)
    typer.echo(f"Run it:  posezoo predict photo.jpg -m {shlex.quote(str(done.path))}")
