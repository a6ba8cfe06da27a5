"""HRNet: the same numbers as the published code's, and the way back to its names."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from posezoo.models.build import build  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402
from posezoo.zoo.weights.layout import KeyMap  # noqa: E402
from zoo_fixtures import TOLERANCE, arrays_of, difference, input_of, keys_of, layout_of, read_fixture  # noqa: E402

FIXTURES = {
    "hrnet/coco_pose_hrnet_w32_256x192": "pose_hrnet_w32",
    "hrnet/coco_pose_hrnet_w32_384x288": "pose_hrnet_w32",
    "hrnet/coco_pose_hrnet_w48_256x192": "pose_hrnet_w48",
    "hrnet/mpii_pose_hrnet_w32_256x256": "pose_hrnet_w32",
    "hrnet/mpii_pose_hrnet_w48_256x256": "pose_hrnet_w48",
    "alphapose/coco_hrnet_256x192_w32_lr1e-3": "pose_hrnet_w32",
}
QUICK = "hrnet/coco_pose_hrnet_w32_256x192"


@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FIXTURES]
)
def test_equals_the_published_code(name: str, parity: Path) -> None:
    fixture = read_fixture(parity / f"{name}.json.gz")
    model = load_weights(build(FIXTURES[name], fixture["num_joints"], filled=False), arrays_of(fixture)).eval()
    assert sum(p.numel() for p in model.parameters()) == fixture["n_params"]
    with torch.no_grad():
        assert difference(fixture, [model(input_of(fixture))]) < TOLERANCE


@pytest.mark.slow
def test_the_fixture_sees_the_smallest_branch(parity: Path) -> None:
    """A network that is a little wrong does not pass the test above."""
    fixture = read_fixture(parity / "hrnet/coco_pose_hrnet_w32_256x192.json.gz")
    arrays = arrays_of(fixture)
    arrays["stage4.2.fuse_layers.0.3.1.bias"].zero_()
    model = load_weights(build("pose_hrnet_w32", fixture["num_joints"], filled=False), arrays).eval()
    with torch.no_grad():
        assert difference(fixture, [model(input_of(fixture))]) > 10 * TOLERANCE


@pytest.mark.parametrize("name", FIXTURES)
def test_names_lead_there_and_back(name: str, parity: Path) -> None:
    fixture = read_fixture(parity / f"{name}.json.gz")
    layout = layout_of(fixture)
    assert isinstance(layout, KeyMap)
    assert layout.name == "HRNet"
    ours = [layout.to_ours(key) for key in keys_of(fixture)]
    assert all(key.startswith(("backbone.", "head.")) for key in ours)
    assert [layout.to_theirs(key) for key in ours] == keys_of(fixture)
    assert layout.speaks_of(ours)


@pytest.fixture(scope="module")
def fresh() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("pose_hrnet_w32", 3)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 72)])
def test_heatmaps_are_a_quarter_of_the_input(fresh: torch.nn.Module, height: int, width: int) -> None:
    """Also where the smaller maps are no whole halves: 96x72 has 18 columns, then 9, 5 and 3."""
    with torch.no_grad():
        assert fresh.eval()(torch.zeros(2, 3, height, width)).shape == (2, 3, height // 4, width // 4)


def test_every_parameter_learns(fresh: torch.nn.Module) -> None:
    torch.manual_seed(0)
    fresh.train()(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.slow
@pytest.mark.timeout(300)  # the exporter takes half a minute for so many layers
def test_exports_to_onnx(fresh: torch.nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from posezoo.deploy.export import export_onnx

    model = fresh.eval()
    torch.nn.init.normal_(model.head.final.weight)  # as made, heatmaps are all but flat
    assert export_onnx(model, tmp_path / "x.onnx", (64, 64), ["heatmaps"], {}) < TOLERANCE
