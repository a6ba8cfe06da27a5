"""Stacked hourglasses: every stack equals the published code's, and their names lead there and back."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models import hourglass  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.models.hourglass import StackedHourglass  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402
from posezoo.zoo.weights.layout import KeyMap  # noqa: E402
from zoo_fixtures import TOLERANCE, arrays_of, difference, input_of, keys_of, layout_of, read_fixture  # noqa: E402

FIXTURES = {
    "hourglass/pytorch_pose_hg_s1_b1": ("hourglass_s1", "pytorch-pose"),
    "hourglass/pytorch_pose_hg_s2_b1": ("hourglass_s2", "pytorch-pose"),
    "hourglass/pytorch_pose_hg_s2_b4": ("hourglass_s2_b4", "pytorch-pose"),
    "hourglass/pytorch_pose_hg_s8_b1": ("hourglass_s8", "pytorch-pose"),
    "hourglass/princeton_hg_s2": ("hourglass_princeton_s2", "Princeton hourglass"),
    "hourglass/princeton_hg_s8": ("hourglass_princeton_s8", "Princeton hourglass"),
    "mmpose/hourglass52_coco_256x256": ("hourglass52", "MMPose 0.x hourglass"),
    "mmpose/hourglass52_mpii_256x256": ("hourglass52", "MMPose 0.x hourglass"),
    "mmpose/hourglass52_2stack_mpii_256x256": ("hourglass52_s2", "MMPose 0.x hourglass"),
    "mmpose/v1_td-hm_hourglass52_8xb32-210e_coco-256x256": ("hourglass52", "MMPose 1.x hourglass"),
}
QUICK = ("hourglass/pytorch_pose_hg_s2_b1", "hourglass/princeton_hg_s2")
# one of each kind, and the layers that its files hold for nothing
SMALL = {
    "hourglass_s2": set(),
    "hourglass_princeton_s1": {"skip"},
    "hourglass52": {"conv1", "bn1", "conv2", "bn2"},
}
LIGHT = {*SMALL} - {"hourglass52"}


def slow(arch: str) -> Any:
    return pytest.param(arch, marks=pytest.mark.slow)


def network(arch: str, joints: int = 3) -> StackedHourglass:
    torch.manual_seed(0)
    model = build(arch, joints)
    assert isinstance(model, StackedHourglass)
    return model


@cache
def fresh(arch: str) -> StackedHourglass:
    """One for all tests, which leave its weights as they are."""
    return network(arch)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FIXTURES]
)
def test_every_stack_equals_the_published_code(name: str, parity: Path) -> None:
    fixture = read_fixture(parity / f"{name}.json.gz")
    model = network(FIXTURES[name][0], fixture["num_joints"])
    load_weights(model, arrays_of(fixture)).eval()
    assert sum(p.numel() for p in model.parameters()) == fixture["n_params"]
    with torch.no_grad():
        stacks = model.stacks(input_of(fixture))
    if "stacks" in fixture["outputs"][0]["name"]:  # Princeton's come as one array
        stacks = [torch.stack(stacks, 1)]
    assert difference(fixture, stacks) < TOLERANCE


@pytest.mark.parametrize("name", FIXTURES)
def test_names_lead_there_and_back(name: str, parity: Path) -> None:
    fixture = read_fixture(parity / f"{name}.json.gz")
    layout = layout_of(fixture)
    assert isinstance(layout, KeyMap)
    assert layout.name == FIXTURES[name][1]
    ours = [layout.to_ours(key) for key in keys_of(fixture)]
    assert all(key.startswith(("stem.", "stages.")) for key in ours)
    assert [layout.to_theirs(key) for key in ours] == keys_of(fixture)
    assert layout.speaks_of(ours)


@pytest.mark.parametrize("arch", [arch if arch in LIGHT else slow(arch) for arch in hourglass.ARCHS])
# 96 gives 24, 12, 6, 3, 1 columns and 100 gives 25, 12, 6, 3, 1, where the published code stops with an error
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (72, 100)])
def test_heatmaps_are_a_quarter_of_the_input(arch: str, height: int, width: int) -> None:
    model = fresh(arch).eval()
    with torch.no_grad():
        stacks = model.stacks(torch.zeros(1, 3, height, width))
    assert len(stacks) == len(model.stages)
    assert {y.shape for y in stacks} == {(1, 3, height // 4, width // 4)}


@pytest.mark.parametrize("arch", [arch if arch in LIGHT else slow(arch) for arch in SMALL])
def test_training_reaches_every_parameter_that_wants_it(arch: str) -> None:
    """What the files hold and no result depends on is frozen, or training in several processes would wait for it."""
    model = fresh(arch).train()
    torch.stack(model.stacks(torch.randn(2, 3, 64, 64))).square().mean().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    unused = {name.split(".")[-2] for name, p in model.named_parameters() if not p.requires_grad}
    assert unused == SMALL[arch]


def test_forward_gives_the_last_stack() -> None:
    model = fresh("hourglass_s2").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, last = model.stacks(x)
        assert torch.equal(model(x), last)
    assert not torch.equal(first, last)


@pytest.mark.slow
def test_the_other_network_is_named(parity: Path) -> None:
    arrays = arrays_of(read_fixture(parity / "hourglass/pytorch_pose_hg_s1_b1.json.gz"))
    with pytest.raises(PosezooError, match="it fits hourglass_s1 with 16 joints"):
        load_weights(fresh("hourglass_princeton_s1"), arrays)


def test_two_stacks_of_four_blocks_at_192_columns() -> None:
    """The network of the seed's row: 24.7 M parameters; 192 columns give 48, 24, 12, 6 and 3."""
    model = network("hourglass_s2_b4", 17).eval()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(24.7, abs=0.1)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 256, 192)).shape == (1, 17, 64, 48)


@pytest.mark.slow
@pytest.mark.parametrize("arch", SMALL)
def test_exports_to_onnx(arch: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from posezoo.deploy.export import export_onnx

    model = network(arch).eval()
    for stage in model.stages:
        torch.nn.init.normal_(stage.heatmaps.weight)
    assert export_onnx(model, tmp_path / "x.onnx", (64, 64), ["heatmaps"], {}) < TOLERANCE
    stored = sum(onnx.numpy_helper.to_array(array).size for array in onnx.load(tmp_path / "x.onnx").graph.initializer)
    used = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert stored < 1.02 * used  # norms' statistics, and nothing that no result depends on
