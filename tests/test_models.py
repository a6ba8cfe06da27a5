"""The networks: each computes what its zoo's own code computed, and keeps the contract of every network."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import ARCHS, build, outline  # noqa: E402
from posezoo.models.mobilenet import round_channels  # noqa: E402
from posezoo.zoo.weights import gluoncv  # noqa: E402

QUICK = [
    "simple_pose_resnet18_v1b",
    "mobile_pose_resnet18_v1b",
    "mobile_pose_mobilenet1.0",
    "mobile_pose_mobilenetv2_1.0",
    "mobile_pose_mobilenetv3_small",
    "mobile_pose_mobilenetv3_large",
]
SLOW = [
    "simple_pose_resnet50_v1b",
    "simple_pose_resnet50_v1d",
    "mobile_pose_resnet50_v1b",
    *(f"simple_pose_resnet{depth}_{variant}" for depth in (101, 152) for variant in ("v1b", "v1d")),
]


@pytest.mark.parametrize("arch", [*QUICK, *(pytest.param(arch, marks=pytest.mark.slow) for arch in SLOW)])
def test_equals_gluoncv(arch: str, parity: Path) -> None:
    from check import check

    path = parity / "gluoncv" / f"{arch}.json.gz"
    fixture = json.loads(gzip.decompress(path.read_bytes()))
    model = build(arch, fixture["num_joints"], filled=False)
    renamed = gluoncv.rename(key for key, _, _ in fixture["state_dict"])
    error, _, _ = check(str(path), model, renamed.__getitem__)
    assert error < 1e-4
    assert sum(p.numel() for p in model.parameters()) == fixture["n_trainable"]


@pytest.mark.parametrize("part", ["backbone.stem.0.bn.running_mean", "head.up.2.bn.bias", "head.final.bias"])
def test_the_fixture_sees_every_part(part: str, parity: Path) -> None:
    """A network that is a little wrong does not pass the test above."""
    from check import check

    path = parity / "gluoncv" / "simple_pose_resnet18_v1b.json.gz"
    fixture = json.loads(gzip.decompress(path.read_bytes()))
    model = build("simple_pose_resnet18_v1b", fixture["num_joints"], filled=False)
    renamed = gluoncv.rename(key for key, _, _ in fixture["state_dict"])

    def without_part(x: torch.Tensor) -> torch.Tensor:
        model.state_dict()[part].zero_()
        return model(x)

    error, _, _ = check(str(path), model, renamed.__getitem__, without_part)
    assert error > 1e-3


def quicker(arch: str) -> Any:
    """The deeper ones of a family are slow, and have no code of their own."""
    return pytest.param(arch, marks=pytest.mark.slow) if re.search("resnet1(01|52)", arch) else arch


@pytest.mark.parametrize("arch", [quicker(a) for a in ARCHS if "_pose_" in a and "2deconv" not in a])
@pytest.mark.parametrize(("height", "width", "joints"), [(256, 192, 17), (64, 96, 18)])
def test_heatmaps_are_a_quarter_of_the_input(arch: str, height: int, width: int, joints: int) -> None:
    with torch.no_grad():
        heatmaps = outline(arch, joints).eval()(torch.zeros(2, 3, height, width, device="meta"))
    assert heatmaps.shape == (2, joints, height // 4, width // 4)


@pytest.mark.parametrize("arch", ["simple_pose_resnet18_v1b", "mobile_pose_mobilenetv3_small"])
def test_every_parameter_learns(arch: str) -> None:
    torch.manual_seed(0)
    model = build(arch, 3)
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before a BatchNorm would be silent; there is none
    assert silent == []


def test_fresh_heatmaps_are_near_zero() -> None:
    torch.manual_seed(0)
    out = build("simple_pose_resnet18_v1b", 17).eval()(torch.randn(1, 3, 64, 64))
    assert np.isfinite(out.detach().numpy()).all()
    assert out.abs().max() < 0.1


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(PosezooError, match=r"unknown architecture 'simple_pose_resnet50'.*simple_pose_resnet50_v1"):
        build("simple_pose_resnet50", 17)


@pytest.mark.parametrize(("channels", "rounded"), [(18, 24), (30, 32), (36, 40), (4, 8), (240, 240), (22.4, 24)])
def test_round_channels(channels: float, rounded: int) -> None:
    assert round_channels(channels) == rounded
