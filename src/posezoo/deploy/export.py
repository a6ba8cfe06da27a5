"""A torch network to one ONNX file that carries what it needs to be run alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.deploy.runtimes import METADATA_KEY, open_onnx
from posezoo.errors import PosezooError, require
from posezoo.files import atomic_path

OPSET = 18


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
    """Write `model` as ONNX and check that ONNX Runtime computes the same.

    Args:
        model: a torch module whose forward takes (N, 3, h, w) float32.
        path: the .onnx file.
        size_wh: input width and height to trace with.
        outputs: a name for each output.
        metadata: what `Estimator` needs to run the file alone; stored as JSON under "posezoo".
        any_size: let the input's height and width vary too, not only the batch.
        half: store the weights of convolutions as float16 and widen them when the file is loaded: half the file, and
            the arithmetic stays float32.
        tolerance: largest accepted difference on random inputs, as a share of the outputs' standard deviation.

    Returns:
        The largest difference found.

    Raises:
        PosezooError: an extra is missing, the file cannot be written, or the results differ; nothing is left behind.
    """
    torch = require("torch", "torch", "export to ONNX")
    onnx = require("onnx", "deploy", "export to ONNX")
    optimizer = require("onnxscript.optimizer", "deploy", "export to ONNX")
    width, height = size_wh
    model = model.eval().to(memory_format=torch.contiguous_format)
    example = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    axes = {0: torch.export.Dim.DYNAMIC}
    if any_size:
        axes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=(axes,),
            verbose=False,
            optimize=False,  # it would fold norms into weights, which then are no float16 numbers any more
        )
    # what follows from constants alone is computed now; a runtime recognises what it can fuse only where that is done
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")  # the exporter's notes of its own source lines: a third of a small file
        part.ClearField("doc_string")
    del proto.graph.value_info[:]
    if half:
        _store_half(onnx, proto.graph)
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata))
    with atomic_path(path) as temporary:
        onnx.save(proto, temporary)
        error = _difference(torch, model, temporary, size_wh, any_size)
        if error > tolerance:
            raise PosezooError(
                f"the export of {path} differs from torch by {error:.1e} of the output, over {tolerance}"
            )
    return error


def _store_half(onnx: Any, graph: Any) -> None:
    """Replace each large float32 weight by a float16 one and a cast, which a runtime folds away when it loads."""
    casts = []
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < 2:  # biases and norms stay as they are
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _difference(torch: Any, model: Any, file: Path, size_wh: tuple[int, int], any_size: bool) -> float:
    """The largest difference between torch and ONNX Runtime over a few inputs, in standard deviations of the output."""
    session = open_onnx(file, "cpu", 1)
    width, height = size_wh
    sizes = [(1, height, width), (3, height, width)] + ([(1, height + 32, width - 32)] if any_size else [])
    worst = 0.0
    for seed, (batch, h, w) in enumerate(sizes):
        x = torch.randn(batch, 3, h, w, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)
        with torch.no_grad():
            wanted = model(x)
        wanted = [wanted] if torch.is_tensor(wanted) else list(wanted)
        for ours, theirs in zip(wanted, session(x.numpy()), strict=True):
            spread = float(ours.std()) or 1.0
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()) / spread)
    return worst


def halve(state: Mapping[str, Any]) -> dict[str, Any]:
    """A torch state with the weights of convolutions as float16; biases and norms stay float32."""
    import torch

    return {
        key: value.half() if value.dtype == torch.float32 and value.ndim > 1 else value for key, value in state.items()
    }
