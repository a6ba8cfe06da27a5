"""Operations that only move values about, as those do which put the phases of a transposed convolution in their places.

In 8 bits they cost next to nothing where the tensors that they take and make share one range, and dear where each has
its own: every value is then scaled again. An activation that follows them is best done before, in the convolution that
makes the values: that is cheaper, and the range has no negative half to spend levels on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from posezoo.deploy.ranges import Range

_MOVES = {"Concat", "DepthToSpace", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_OF_EACH = {"Relu", "Clip"}  # of each value by itself, so that moving it first or last is the same


def few_moves(proto: Any) -> Any:
    """A copy that computes the same, in which phases are joined in one step and every activation is before the moves.

    Args:
        proto: an `onnx.ModelProto`; not changed.
    """
    proto = copy.deepcopy(proto)
    graph = proto.graph
    outputs = {each.name for each in graph.output}
    kept = outputs | {each.name for each in graph.initializer}
    nodes = _used(_phases_joined([copy.deepcopy(node) for node in graph.node]), outputs)
    while (found := _late_activation(nodes, kept)) is not None:
        move, activation = found
        place, made = nodes.index(move), []
        for number, name in enumerate(_moved(move)):
            early = copy.deepcopy(activation)
            early.name = f"{activation.name}.{number}"
            early.input[0], early.output[0] = name, f"{name}.{activation.op_type}"
            move.input[list(move.input).index(name)] = early.output[0]
            made.append(early)
        move.output[0] = activation.output[0]
        nodes.remove(activation)
        nodes[place:place] = made
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # of tensors some of which are no longer there
    return proto


def _phases_joined(nodes: list[Any]) -> list[Any]:
    """The same nodes, where phases are put behind one another, not between one another, before they are shuffled.

    `posezoo.deploy.phases` stacks them behind each channel, as a pixel shuffle of torch wants them, and the tensor that
    is stacked has five dimensions, of which a runtime makes slow copies. ONNX has a shuffle for the other order too.
    """
    made = {node.output[0]: node for node in nodes}
    for shuffle in nodes:
        if shuffle.op_type != "DepthToSpace" or shuffle.input[0] not in made:
            continue
        reshape = made[shuffle.input[0]]
        join = made.get(reshape.input[0])
        if reshape.op_type != "Reshape" or join is None or join.op_type != "Concat":
            continue
        parts = [made.get(name) for name in join.input]
        axis = next(each for each in join.attribute if each.name == "axis")
        if axis.i != 2 or not all(part is not None and part.op_type == "Unsqueeze" for part in parts):
            continue
        axis.i = 1
        join.input[:] = [part.input[0] for part in parts if part is not None]
        shuffle.input[0] = join.output[0]
        next(each for each in shuffle.attribute if each.name == "mode").s = b"DCR"
    return nodes


def _used(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """Without the nodes of which nothing is taken."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _late_activation(nodes: Sequence[Any], kept: set[str]) -> tuple[Any, Any] | None:
    """A move and the activation that is all that takes what it made."""
    takers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    for node in nodes:
        followers = takers.get(node.output[0], [])
        if node.op_type not in _MOVES or not kept.isdisjoint((node.output[0], *_moved(node))):
            continue
        if len(followers) == 1 and followers[0].op_type in _OF_EACH:
            return node, followers[0]
    return None


def _moved(node: Any) -> list[str]:
    """The tensors whose values it moves: others say how."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


def shared_ranges(proto: Any, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, with one for all tensors that are moved into each other.

    Args:
        proto: an `onnx.ModelProto`.
        ranges: of its tensors.
    """
    group: dict[str, set[str]] = {}
    for node in proto.graph.node:
        if node.op_type in _MOVES:
            together = set().union(*(group.get(name, {name}) for name in (*_moved(node), node.output[0])))
            group.update(dict.fromkeys(together, together))
    found = dict(ranges)
    for name, together in group.items():
        known = [ranges[each] for each in together if each in ranges]
        if name in ranges:
            found[name] = min(low for low, _ in known), max(high for _, high in known)
    return found
