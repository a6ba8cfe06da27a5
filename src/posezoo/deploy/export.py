"""A network to one file that carries what it needs to be run alone: ONNX, OpenVINO's .xml and .bin, or torch's .pt2."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posezoo.deploy.metadata import FORMAT, metadata_of
from posezoo.deploy.runtimes import Runtime, is_network_file, torch_module
from posezoo.errors import PosezooError, require, unknown_name
from posezoo.files import check_writable

if TYPE_CHECKING:
    from torch import nn

    from posezoo.deploy.agree import Agreement
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
"""What a network can be exported to, and the suffix of the file."""
_MODULES = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript"), "torch-export": ()}


@dataclass(frozen=True)
class Exported:
    """What `export` did.

    Attributes:
        path: the file; of OpenVINO the .xml, whose .bin lies beside it.
        to: one of `FORMATS`.
        name: what was exported.
        error: the largest difference from torch that the check found, in `unit`.
        unit: "standard deviations" of the output, or "px" where the file decodes.
        unsure: joints that the check left out, because rounding alone moves them.
        joints: how many it looked at.
        rounding: torch's own error, in standard deviations of the output, where that let them differ so far, else 0.
        seconds: how long it took.
        bytes: the size of the file, or of both.
        random: whether the weights are random.
        task: "pose" or "detection".
    """

    path: Path
    to: str
    name: str
    error: float
    unit: str
    unsure: int
    joints: int
    rounding: float
    seconds: float
    bytes: int
    random: bool
    task: str


def export(
    name_or_file: str | os.PathLike[str],
    path: str | os.PathLike[str],
    to: str = "onnx",
    *,
    weights: str | os.PathLike[str] | None = None,
    uint8: bool = False,
    decode: bool = False,
    half: bool = False,
    random: bool = False,
) -> Exported:
    """Write a network as one file for another runtime, for batches of any length, its norms folded, and check it.

    What `posezoo.Estimator` needs to run the file alone is inside. A detector takes pictures of any size.

    Args:
        name_or_file: a model of the zoo, or a .safetensors file of `posezoo convert` or `posezoo train`.
        path: the file to write, with the suffix of its format; written as a whole, and only if it passes the check.
        to: one of `FORMATS`.
        weights: a checkpoint instead of the model's own weights.
        uint8: the file takes (N, h, w, 3) uint8 RGB crops and normalises them itself.
        decode: the file gives joints (N, K, 3): x and y in pixels of the crop, and the score.
        half: store the weights in half precision, which halves the file; the arithmetic stays single.
        random: weights drawn at random, for measuring speed alone.

    Raises:
        PosezooError: an unknown model or format, no weights, a missing extra, a file that cannot be written or has
            another format's suffix, or a graph that differs from torch.
    """
    path, started = Path(path), time.perf_counter()
    _check_request(path, to, half)
    from posezoo.estimator import NetworkSpec

    loaded = _load(name_or_file, weights, random)
    task = "pose" if loaded.values.get("skeleton") else "detection"
    if task == "pose":
        spec = NetworkSpec.of(loaded.values)
        spec = replace(spec, input="crops" if uint8 else "planes", output="joints" if decode else "maps")
        found = _export_pose(loaded, spec, path, to, half)
    elif uint8 or decode:
        raise PosezooError(f"{loaded.name} is a detector: --uint8 and --decode are for pose networks")
    else:
        found = _export_detector(loaded, path, to, half)
    return Exported(
        path=path,
        to=to,
        name=loaded.name,
        error=found.error,
        unit=found.unit,
        unsure=found.unsure,
        joints=found.joints,
        rounding=found.rounding,
        seconds=time.perf_counter() - started,
        bytes=sum(each.stat().st_size for each in (path, path.with_suffix(".bin"))[: 2 if to == "openvino" else 1]),
        random=random,
        task=task,
    )


def format_of(path: str | os.PathLike[str]) -> str | None:
    """The format that a file's suffix is of, or None."""
    return next((to for to, suffix in FORMATS.items() if suffix == Path(path).suffix.lower()), None)


def default_path(name_or_file: str, to: str) -> Path:
    """The file to export a model to where none is named: the model's own name, in the current folder.

    Raises:
        PosezooError: an unknown model or format.
    """
    if to not in FORMATS:
        raise unknown_name("format to export to", to, FORMATS)
    if is_network_file(name_or_file):
        return Path(f"{Path(name_or_file).stem}{FORMATS[to]}")
    from posezoo.zoo import get_entry

    return Path(f"{get_entry(name_or_file).name}{FORMATS[to]}")


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """A copy in eval mode, in which every BatchNorm that follows a convolution is part of it.

    Also after transposed, grouped and deformable convolutions, and wherever in the network the two stand: one run on
    shapes alone tells what follows what. A BatchNorm whose input something else sees too stays as it is.

    Args:
        module: takes a picture (N, channels, h, w) of 64 x 64 pixels; not changed.
    """
    from posezoo.deploy.fold import folded

    return folded(module)


@dataclass(frozen=True)
class _Loaded:
    """A network to export.

    Attributes:
        name: for messages, and for the file.
        module: with its weights.
        values: what belongs to them, by the names of an entry's fields.
        entry: of the zoo, that they are from; None where that is not known.
        weights: what the file should say of them: "random", or a file's name; None for the entry's own.
    """

    name: str
    module: Any
    values: Mapping[str, Any]
    entry: Entry | None
    weights: str | None


def _check_request(path: Path, to: str, half: bool) -> None:
    """Raise where a file is not to be written, before any work is done."""
    if to not in FORMATS:
        raise unknown_name("format to export to", to, FORMATS)
    if path.suffix.lower() != FORMATS[to]:
        raise PosezooError(f"{path} must end in {FORMATS[to]}, as {to} files do")
    check_writable(path)
    if half and to == "torch-export":
        raise PosezooError("a .pt2 file computes in the numbers that it stores: --half is for onnx and openvino")
    require("torch", "torch,deploy" if _MODULES[to] else "torch", f"export to {to}")
    for module in _MODULES[to]:
        require(module, "deploy", f"export to {to}")


def _load(name_or_file: str | os.PathLike[str], weights: str | os.PathLike[str] | None, random: bool) -> _Loaded:
    """The module with its weights, and what belongs to them."""
    from posezoo.zoo import get_entry
    from posezoo.zoo.owner import entry_of, facts_with

    name = os.fspath(name_or_file)
    if random and weights is not None:
        raise PosezooError("weights are either random or from a file: give one of --random and --weights")
    for file in (name, "" if weights is None else os.fspath(weights)):
        if is_network_file(file) and Path(file).suffix.lower() != ".safetensors":
            raise PosezooError(f"{file} is a graph already: export the model or the weights that it was made of")
    if not is_network_file(name):
        entry = entry_of(name, weights)
        module = _random_module(entry) if random else _trained_module(entry, weights)
        values = facts_with(entry, weights)
        drawn = "random" if random else None if weights is None else Path(weights).name
        return _Loaded(entry.name, module, values, entry, drawn)
    if random or weights is not None:
        raise PosezooError(f"{name} has its weights inside: name a model to export it with others")
    if not os.path.isfile(name):
        raise PosezooError(f"no such file: {name}")
    module, values = torch_module(name)
    values = {"name": Path(name).stem, **values}
    owner = get_entry(values["entry"]) if values.get("entry") else None
    return _Loaded(values["name"], module, values, owner, Path(name).name)


def _random_module(entry: Entry) -> Any:
    import torch

    from posezoo.zoo import get_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_model(entry.name)


def _trained_module(entry: Entry, weights: str | os.PathLike[str] | None) -> Any:
    from posezoo.zoo.store import find_weights

    if weights is None:
        try:
            find_weights(entry, entry.weights)
        except PosezooError as err:
            raise PosezooError(
                f"{err}; or export other weights (--weights FILE), or random ones to measure speed alone (--random)"
            ) from None
    return torch_module(entry, weights)[0]


def _export_pose(loaded: _Loaded, spec: NetworkSpec, path: Path, to: str, half: bool) -> Agreement:
    """Write a pose network, with what `spec` wants inside."""
    import torch

    from posezoo.crop import normalise
    from posezoo.deploy import agree, graph
    from posezoo.deploy.write import write_graph

    crops = agree.random_crops(2, spec.input_size_wh)
    example = crops if spec.input == "crops" else normalise(crops, spec.mean, spec.std, spec.channels)
    program = graph.trace(graph.Deployed(fold_batchnorm(loaded.module), spec), torch.from_numpy(example))
    metadata = metadata_of(spec, loaded.entry, "fp32", arch=loaded.values["arch"], weights=loaded.weights)
    output = "joints" if spec.output == "joints" else "heatmaps"
    reference, limits = graph.Deployed(loaded.module, spec), agree.HALF if half else agree.SINGLE
    return write_graph(
        program, [output], path, to, metadata, half, lambda runtime: agree.check_network(reference, runtime, limits)
    )


def _export_detector(loaded: _Loaded, path: Path, to: str, half: bool) -> Agreement:
    """Write a detector, for pictures of any size."""
    import torch

    from posezoo.deploy import agree, graph
    from posezoo.deploy.write import write_graph

    width, height = loaded.values["input_size_wh"]
    example = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    program = graph.trace(fold_batchnorm(loaded.module), example, any_size=True)
    outputs = ["scores", "boxes_xyxy"] if len(program.graph_signature.user_outputs) == 2 else ["boxes"]
    metadata = detector_metadata(loaded.values, loaded.entry) | ({"weights": loaded.weights} if loaded.weights else {})
    sizes = [(width, height), (width - 32, height + 32)]
    limits = agree.HALF if half else agree.SINGLE

    def check(runtime: Runtime) -> Agreement:
        return agree.check_outputs(loaded.module, runtime, sizes, limits.outputs)

    return write_graph(program, outputs, path, to, metadata, half, check)


def detector_metadata(values: Mapping[str, Any], entry: Entry | None = None) -> dict[str, Any]:
    """What to write into a detector's file, as JSON can hold it; see `posezoo.deploy.metadata`.

    Args:
        values: at least name, channels, mean, std and detector, as an entry has them.
        entry: of the zoo, that the weights are from.
    """
    from posezoo import __version__

    found = {
        "format": FORMAT,
        "name": values["name"],
        "entry": entry.name if entry else None,
        "channels": values["channels"],
        "mean": list(values["mean"]),
        "std": list(values["std"]),
        "detector": dict(values.get("detector") or {}),
        "precision": "fp32",
        "licence": dict(entry.licence) if entry else None,
        "made_by": f"posezoo {__version__}",
    }
    return {key: value for key, value in found.items() if value is not None}


def export_onnx(
    model: Any,
    path: str | Path,
    size_wh: tuple[int, int],
    outputs: Sequence[str],
    metadata: Mapping[str, Any],
    any_size: bool = False,
    half: bool = False,
    tolerance: float = 2e-4,
) -> float:
    """Write any module as ONNX as it is, its norms not folded, and check that ONNX Runtime computes the same.

    Args:
        model: a torch module whose forward takes (N, 3, h, w) float32.
        path: the .onnx file.
        size_wh: input width and height to trace with.
        outputs: a name for each output.
        metadata: what `Estimator` needs to run the file alone; stored as JSON under "posezoo".
        any_size: let the input's height and width vary too, not only the batch.
        half: store the weights of convolutions as float16 and widen them when the file is loaded: half the file, and
            the arithmetic stays float32. Weights that are float16 numbers lose nothing, see `halve`.
        tolerance: largest accepted difference on random inputs, as a share of the outputs' standard deviation.

    Returns:
        The largest difference found.

    Raises:
        PosezooError: an extra is missing, the file cannot be written, or the results differ; nothing is left behind.
    """
    path = Path(path)
    _check_request(path, "onnx", half)
    import torch

    from posezoo.deploy import agree, graph
    from posezoo.deploy.write import write_graph

    model = model.eval()
    width, height = size_wh
    example = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    program = graph.trace(model, example, any_size)
    sizes = [size_wh, (width - 32, height + 32)] if any_size else [size_wh]

    def check(runtime: Runtime) -> Agreement:
        return agree.check_outputs(model, runtime, sizes, tolerance)

    return write_graph(program, outputs, path, "onnx", metadata, half, check).error


def halve(state: Mapping[str, Any]) -> dict[str, Any]:
    """A torch state with the weights of convolutions as float16; biases and norms stay float32."""
    import torch

    return {
        key: value.half() if value.dtype == torch.float32 and value.ndim > 1 else value for key, value in state.items()
    }
