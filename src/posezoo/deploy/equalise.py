"""Channels brought to one range, without any change of what the network computes.

All channels of a tensor share the 256 levels of its range, and one of a small range has few of them. Between
convolutions a channel may be any multiple of itself: the weights that make it are divided by a number, and those that
take it are multiplied (Nagel et al. 2019, "Data-free quantization", arXiv 1906.04721, section 4.1). That passes through
whatever is linear or ReLU in between: sums of several branches, pooling, resizing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from posezoo.deploy.qdq import BIAS, WEIGHT, numbers_of, store
from posezoo.deploy.ranges import tensors

_PASSES = {"Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"}  # a positive factor on
_SMALLEST = 1e-4  # of the largest range: what is less is hardly ever there
_SHARE = 0.5  # of the way to equal ranges, in powers: the rest stays with the weights, which have few levels too


@dataclass
class Stream:
    """Tensors of the same channels, of which one cannot be scaled without the others.

    Attributes:
        tensors: their names.
        makers: the names of the convolutions that make them.
        takers: those of the convolutions that take them.
    """

    tensors: set[str] = field(default_factory=set)
    makers: set[str] = field(default_factory=set)
    takers: set[str] = field(default_factory=set)


@torch.no_grad()
def equalised(
    proto: Any, module: nn.Module, nodes: Mapping[str, Any], planes: NDArray[np.float32], threads: int | None = None
) -> tuple[Any, nn.Module]:
    """Copies of a graph and of the module that it is of, which compute the same with other numbers.

    Args:
        proto: an `onnx.ModelProto`.
        module: in torch, with a bias in each of the convolutions.
        nodes: the convolutions whose numbers may be changed, by the name that each has in the module.
        planes: (N, 3, h, w) float32, crops to see the ranges on.
        threads: of the CPU; None: `posezoo.deploy.runtimes.default_threads`.
    """
    largest: dict[str, NDArray] = {}
    run = tensors(proto, threads)
    for crop in planes:
        for name, value in run(crop[None]):
            if value.ndim == 4:
                largest[name] = np.maximum(largest.get(name, 0), np.abs(value).max((0, 2, 3)))
    numbers = {name: numbers_of(proto, name) for name in nodes}
    for stream in streams(proto, nodes):
        factors = _factors(np.max([largest[name] for name in stream.tensors], axis=0))
        for name in stream.makers:
            weight, bias = numbers[name]
            numbers[name] = weight / factors[:, None, None, None], bias / factors
        for name in stream.takers:
            weight, bias = numbers[name]
            depthwise = np.repeat(factors, len(weight) // len(factors) or 1)
            by_channel = factors[None] if _groups(nodes[name]) == 1 else depthwise[:, None]
            numbers[name] = weight * by_channel[:, :, None, None], bias
    proto, module = copy.deepcopy(proto), copy.deepcopy(module)
    for name, pair in numbers.items():
        for part, array in zip((WEIGHT, BIAS), pair, strict=True):
            store(proto, name + part, array)
            module.get_parameter(name + part).copy_(torch.tensor(array))
    return proto, module


def streams(proto: Any, nodes: Mapping[str, Any]) -> list[Stream]:
    """What can be scaled by the channel: all that makes it or takes it is a convolution, ordinary or depthwise.

    Args:
        proto: an `onnx.ModelProto`.
        nodes: the convolutions whose numbers may be changed, by name.
    """
    constants = {each.name for each in proto.graph.initializer}
    constants.update(name for node in proto.graph.node if node.op_type == "Constant" for name in node.output)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    names = {node.output[0]: name for name, node in nodes.items()}
    fixed = [each.name for each in (*proto.graph.input, *proto.graph.output)]
    for node in proto.graph.node:
        given = [name for name in node.input if name and name not in constants]
        if node.op_type in _PASSES and (node.op_type != "Add" or len(given) == 2):
            for name in given:
                parent[root(name)] = root(node.output[0])
        elif node.output[0] not in names:
            fixed += [*given, *node.output]
        elif _groups(node) > 1 and numbers_of(proto, names[node.output[0]])[0].shape[1] > 1:
            fixed += given
    found: dict[str, Stream] = {}
    for name, node in nodes.items():
        found.setdefault(root(node.output[0]), Stream()).makers.add(name)
        found.setdefault(root(node.input[0]), Stream()).takers.add(name)
    for tensor in list(parent):
        found.setdefault(root(tensor), Stream()).tensors.add(tensor)
    unchangeable = {root(name) for name in fixed}
    return [each for start, each in found.items() if start not in unchangeable and each.makers and each.takers]


def _groups(node: Any) -> int:
    return next((each.i for each in node.attribute if each.name == "group"), 1)


def _factors(largest: NDArray) -> NDArray[np.float32]:
    """What to divide each channel by, of the largest magnitude that was seen in each."""
    share = np.where(largest > 0, np.maximum(largest / (float(largest.max()) or 1.0), _SMALLEST), 1.0)
    return (share**_SHARE).astype(np.float32)
