"""A network as a graph: what an exported file computes, and how torch's graph of it becomes an ONNX one.

Deformable convolutions are exported as the ordinary operations that they are written with. ONNX's own DeformConv (opset
19) is as exact, and in ONNX Runtime 1.2 times as fast, but OpenVINO 2026.4 does not read it.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from posezoo.codecs.combined_torch import decode
from posezoo.crop_torch import normalise
from posezoo.errors import require

if TYPE_CHECKING:
    from posezoo.estimator import NetworkSpec

OPSET = 18
NEARLY_ZERO = 1e-37


class Deployed(nn.Module):
    """A pose network with what a file may do before and after it.

    Args:
        network: (N, 3, h, w) float32 to heatmaps (N, K, h', w').
        spec: whose `input` and `output` say what else is inside.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def planes(self, image: Tensor) -> Tensor:
        """What the network takes, of (N, 3, h, w) float32 that is that already, or of (N, h, w, 3) uint8 RGB crops."""
        spec = self.spec
        if spec.input == "planes":
            return image
        return normalise(image, spec.mean, spec.std, spec.channels, memory_format=torch.contiguous_format)

    def read(self, maps: Tensor) -> Tensor:
        """Heatmaps to joints (N, K, 3): x and y in pixels of the crop, and the score; zeros of a map with a NaN.

        The runtimes pass a NaN over when they look for a maximum, where numpy and torch take it for the largest.
        """
        crop_xy, scores = decode(self.spec.codec, maps, self.spec.input_size_wh)
        joints = torch.cat([crop_xy, scores[..., None]], dim=2)
        broken = torch.isnan(maps).float().flatten(2).amax(2, keepdim=True) > 0
        return torch.where(broken, torch.zeros_like(joints), joints)

    def forward(self, image: Tensor) -> Tensor:
        """What the file gives."""
        maps = self.network(self.planes(image))
        return self.read(maps) if self.spec.output == "joints" else maps


def trace(module: nn.Module, example: Tensor, any_size: bool = False) -> Any:
    """The graph of a module, a `torch.export.ExportedProgram`, for batches of any length.

    Args:
        module: in eval mode.
        example: a batch of two or more.
        any_size: let height and width, the last two dimensions, vary too.
    """
    module = copy.deepcopy(module)
    for each in module.modules():
        if getattr(each, "inplace", False):  # a graph has no use for it
            each.inplace = False  # type: ignore[assignment]
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if any_size:
        axes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with quiet(), torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=(axes,), strict=False)


def to_onnx(program: Any, outputs: Sequence[str]) -> Any:
    """The graph as an ONNX model, an `onnx.ModelProto`; its input is "image".

    Args:
        program: of `trace`.
        outputs: a name for each output.
    """
    optimizer = require("onnxscript.optimizer", "deploy", "export to ONNX")
    _keep_zeros(program.graph)
    # The exporter first takes every operation apart, by tracing the whole graph twice more, which is two thirds of its
    # time. It has translations for nearly all of ours as they are, and `_translations` has those for the rest.
    program.run_decompositions = lambda table=None: program
    try:
        made = _translate(program, outputs, _translations(require("onnxscript", "deploy", "export to ONNX").opset18))
    except torch.onnx.OnnxExporterError:  # of another's network, an operation that is not among them
        del program.run_decompositions
        made = _translate(program, outputs, {})
    # what follows from constants alone is computed now; a runtime recognises what it can fuse only where that is done
    optimizer.inline(made.model)
    optimizer.fold_constants(made.model)
    optimizer.remove_unused_nodes(made.model)
    proto = made.model_proto
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")  # the exporter's notes of its own source lines: a third of a small file
        part.ClearField("doc_string")
    del proto.graph.value_info[:]
    called = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == called:
                size.dim_param = "batch"
    return proto


def _keep_zeros(graph: Any) -> None:
    """Pad with next to nothing before a maximum: ONNX Runtime makes zeros there its own padding, minus infinity."""
    aten = torch.ops.aten
    for node in graph.nodes:
        if node.target is aten.max_pool2d.default and node.args[0].target is aten.pad.default:
            node.args[0].args = (*node.args[0].args[:2], "constant", NEARLY_ZERO)


def _translate(program: Any, outputs: Sequence[str], table: Mapping[Any, Any]) -> Any:
    with quiet():
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(outputs),
            custom_translation_table=dict(table),
            verbose=False,
            optimize=False,  # it would fold norms into weights, which then are no float16 numbers any more
        )


def _translations(op: Any) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch's exporter would take apart first: how each is one ONNX operation, or a few, of the opset `op`."""

    def conv_transpose(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        output_padding: Sequence[int] = (0, 0),
        groups: int = 1,
        dilation: Sequence[int] = (1, 1),
    ) -> Any:
        return op.ConvTranspose(
            x,
            weight,
            bias,
            strides=list(stride),
            pads=[*padding, *padding],
            output_padding=list(output_padding),
            group=groups,
            dilations=list(dilation),
        )

    def batch_norm(
        x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float, cudnn: bool
    ) -> Any:
        return op.BatchNormalization(x, weight, bias, mean, var, epsilon=eps)

    def mean_of_all(x: Any, size: Sequence[int]) -> Any:
        if list(size) != [1, 1]:
            raise NotImplementedError(f"pooling to {size}")
        return op.GlobalAveragePool(x)

    def nan_to_num(x: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Any:
        info = np.finfo(np.float32)
        low, high = (float(given or limit) for given, limit in ((neginf, info.min), (posinf, info.max)))
        return op.Clip(op.Where(op.IsNaN(x), _number(op, nan or 0.0), x), _number(op, low), _number(op, high))

    def cast(x: Any, dtype: int, *rest: Any, **options: Any) -> Any:
        return op.Cast(x, to=dtype)

    def same(x: Any, *rest: Any, **options: Any) -> Any:
        return op.Identity(x)

    aten = torch.ops.aten
    return {
        aten.conv_transpose2d.input: conv_transpose,
        aten.batch_norm.default: batch_norm,
        aten.adaptive_avg_pool2d.default: mean_of_all,
        aten.nan_to_num.default: nan_to_num,
        aten.__and__.Tensor: op.And,
        aten.relu_.default: op.Relu,
        aten.to.dtype: cast,
        aten.to.device: same,
        aten.detach_.default: same,
    }


def _number(op: Any, value: float) -> Any:
    return op.Constant(value_float=value)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say on the way: of packages that they do not find, and of their own future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
