"""A graph in 8 bits: quantise and dequantise nodes round what is to be computed so, which every runtime understands.

ONNX Runtime and OpenVINO both find the pattern when they load a graph and compute it with their integer kernels.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posezoo.deploy.ranges import Range

if TYPE_CHECKING:
    from posezoo.deploy.rounding import Rounded

WEIGHT, BIAS = ".weight", ".bias"
"""What follows the name of a module of torch in the names of its numbers."""
_DEQUANTISED = (
    "_DequantizeLinear_Output"  # what follows a tensor's name where the quantiser has put another in its place
)


def simplified(proto: Any) -> Any:
    """The graph as ONNX Runtime has it after the rewriting that holds for every machine: paddings inside convolutions.

    That must be before quantisation: afterwards a runtime no longer recognises them.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # nothing but constants is computed; left alone, each core gets a thread
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="posezoo-") as folder:
        file = Path(folder) / "graph.onnx"
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = onnx.load(file)
    used = {node.domain for node in found.graph.node}
    kept = [each for each in found.opset_import if each.domain in used or not each.domain]
    del found.opset_import[:]
    found.opset_import.extend(kept)
    return found


def convolutions(proto: Any) -> dict[str, Any]:
    """The nodes that are convolutions with weights of their own, by the name of the module that they were in torch."""
    nodes = [node for node in proto.graph.node if node.op_type == "Conv" and node.input[1].endswith(WEIGHT)]
    used = Counter(node.input[1] for node in nodes)
    return {node.input[1].removesuffix(WEIGHT): node for node in nodes if used[node.input[1]] == 1}


def last_convolutions(proto: Any) -> list[str]:
    """The convolutions that give the outputs of the graph, by name."""
    outputs = {each.name for each in proto.graph.output}
    return [name for name, node in convolutions(proto).items() if node.output[0] in outputs]


def quantised(
    proto: Any,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    bits: int,
    left_out: Collection[str] = (),
) -> Any:
    """The graph in 8 bits: inputs and outputs of its operations by the tensor, weights by the channel.

    Args:
        proto: an `onnx.ModelProto` of `simplified`; not changed.
        ranges: of its tensors, see `posezoo.deploy.ranges`.
        rounded: the numbers of its convolutions, by name.
        bits: of a weight, 7 or 8.
        left_out: convolutions that stay in floating point, as they were.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    proto = copy.deepcopy(proto)
    nodes = convolutions(proto)
    for name in rounded.keys() - set(left_out):
        store(proto, name + WEIGHT, rounded[name].weight.numpy())
        store(proto, name + BIAS, rounded[name].bias.numpy())
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(proto),  # it quantises what it knows to be float
        per_channel=True,
        reduce_range=bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[nodes[name].name for name in left_out],
        op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry}),
        extra_options={},
    )
    quantizer.quantize_model()
    found = quantizer.model.model
    _keep_float(found, set(left_out) - set(last_convolutions(found)), ranges)
    return found


def _keep_float(proto: Any, left_out: Collection[str], ranges: Mapping[str, Range]) -> None:
    """Make ONNX Runtime leave the convolutions alone that stay in floating point between quantised ones.

    Where one has a dequantised input and a quantised output, it rounds the weights by itself, in one range for all
    channels. A node between the input and the convolution stops it: one that changes nothing, as all values are within
    its range.
    """
    from onnx import helper, numpy_helper

    for name, node in convolutions(proto).items():
        tensor = node.input[0].removesuffix(_DEQUANTISED)
        if name not in left_out or tensor == node.input[0]:
            continue
        low, high = ranges[tensor]
        for end, value in (("low", min(2 * low, -1.0)), ("high", max(2 * high, 1.0))):
            proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{name}.{end}"))
        inputs = [node.input[0], f"{name}.low", f"{name}.high"]
        place = next(number for number, each in enumerate(proto.graph.node) if each.name == node.name)
        proto.graph.node.insert(place, helper.make_node("Clip", inputs, [f"{name}.input"], name=f"{name}.input"))
        node.input[0] = f"{name}.input"


def numbers_of(proto: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the bias of a convolution."""
    from onnx import numpy_helper

    found = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer if each.name.startswith(name)}
    return found[name + WEIGHT], found[name + BIAS]


def store(proto: Any, name: str, array: np.ndarray) -> None:
    """Put an array in the place of the graph's own of this name."""
    from onnx import numpy_helper

    (tensor,) = (each for each in proto.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
