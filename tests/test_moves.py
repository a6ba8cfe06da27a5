"""Activations before what only moves values, phases joined in one step, and one range for what is moved together."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from posezoo.deploy.graph import to_onnx, trace  # noqa: E402
from posezoo.deploy.moves import few_moves, shared_ranges  # noqa: E402
from posezoo.deploy.phases import split_transposed  # noqa: E402
from posezoo.deploy.qdq import simplified  # noqa: E402
from posezoo.deploy.ranges import tensors  # noqa: E402


def graph_of(*layers: nn.Module) -> object:
    torch.manual_seed(0)
    module = split_transposed(nn.Sequential(*layers)).eval()
    return simplified(to_onnx(trace(module, torch.zeros(2, 3, 6, 5)), ["heatmaps"]))


def output_of(proto: object, planes: np.ndarray) -> np.ndarray:
    return dict(tensors(proto)(planes))["heatmaps"]


@pytest.mark.parametrize(("size", "padding", "more"), [(4, 1, 0), (3, 1, 0)])
def test_the_same_numbers_with_fewer_moves(size: int, padding: int, more: int) -> None:
    up = nn.ConvTranspose2d(3, 8, size, 2, padding, more)
    before = graph_of(up, nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    after = few_moves(before)
    kinds = Counter(node.op_type for node in after.graph.node)
    assert kinds["Unsqueeze"] == kinds["Reshape"] == 0
    if (size, more) != (3, 0):  # of which the last row is cut off: that is between the shuffle and the activation
        assert kinds["Relu"] == 4  # one a phase, right after its convolution
        made_by = {node.output[0]: node.op_type for node in after.graph.node}
        assert {made_by[node.input[0]] for node in after.graph.node if node.op_type == "Relu"} == {"Conv"}
    planes = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(output_of(after, planes), output_of(before, planes), rtol=1e-5, atol=1e-6)
    assert Counter(node.op_type for node in before.graph.node)["Unsqueeze"] == 4  # a copy was changed


def test_a_pixel_shuffle_of_a_convolution_stays() -> None:
    before = graph_of(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2), nn.ReLU6(), nn.Conv2d(4, 2, 1))
    after = few_moves(before)
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.index("Clip") < kinds.index("DepthToSpace")
    planes = np.random.default_rng(0).normal(size=(1, 3, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(output_of(after, planes), output_of(before, planes), rtol=1e-5, atol=1e-6)


def test_what_something_else_takes_too_is_not_moved() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shuffled = nn.functional.pixel_shuffle(self.conv(x), 2)
            return torch.relu(shuffled) - shuffled

    before = graph_of(Both())
    after = few_moves(before)
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]


def test_tensors_that_are_moved_into_each_other_share_a_range() -> None:
    proto = few_moves(graph_of(nn.ConvTranspose2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    ranges = {
        name: (0.0, float(number)) for number, (name, _) in enumerate(tensors(proto)(np.zeros((1, 3, 6, 5), "f")))
    }
    shared = shared_ranges(proto, ranges)
    join = next(node for node in proto.graph.node if node.op_type == "Concat")
    shuffle = next(node for node in proto.graph.node if node.op_type == "DepthToSpace")
    together = [*join.input, join.output[0], shuffle.output[0]]
    assert {shared[name] for name in together} == {(0.0, max(ranges[name][1] for name in together))}
    assert {name: shared[name] for name in ranges.keys() - set(together)} == {
        name: ranges[name] for name in ranges.keys() - set(together)
    }
