"""Exports: the same numbers, any batch, half the file, run alone, and nothing left behind by a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from posezoo.deploy.export import export_onnx, halve  # noqa: E402
from posezoo.deploy.runtimes import open_onnx  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.mobile_fpn import Conv, PersonDetector, Pyramid, Separable  # noqa: E402

SMALL = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU6(), torch.nn.Conv2d(8, 5, 1))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Heatmaps of a quarter of the size, by rounded weights and norms that do something."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 64, 4, 4), Separable(64, 128), torch.nn.Conv2d(128, 32, 3, padding=1)]
    model = torch.nn.Sequential(*layers, Separable(32, 5))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    model.load_state_dict(halve(model.state_dict()))
    return model.eval()


def test_half_precision_file_computes_the_same(tmp_path: Path, network: torch.nn.Module) -> None:
    half = tmp_path / "half.onnx"
    assert export_onnx(network, half, (64, 64), ["heatmaps"], {"name": "x"}, half=True) < 2e-4
    assert half.stat().st_size < 0.6 * sum(4 * value.numel() for value in network.state_dict().values())
    session = open_onnx(half)
    assert session.metadata() == {"name": "x"}
    x = np.random.default_rng(0).standard_normal((5, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session(x)[0], wanted, atol=2e-4 * wanted.std())
    assert session(x[:0])[0].shape == (0, 5, 16, 16)


def with_signal(detector: PersonDetector) -> PersonDetector:
    """As made, the signal dies out on the way and every cell says the same."""
    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return detector.eval()


def one_stride() -> PersonDetector:
    """The detector with a single map, of stride 8: each operation takes the exporter its time."""
    detector = PersonDetector(width=8)
    detector.strides = (8,)
    detector.backbone = Halvings()
    detector.pyramid, detector.tower = Pyramid((8,), (8,)), torch.nn.Identity()
    return detector


class Halvings(torch.nn.Module):
    """Maps at strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 4, 4), Conv(8, 8, 3, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.first(x)
        return [x, self.second(x)]


@pytest.mark.parametrize(
    ("make", "strides"),
    [
        pytest.param(one_stride, (8,), marks=pytest.mark.slow),
        pytest.param(lambda: PersonDetector(width=16), (8, 16, 32), marks=pytest.mark.slow),
    ],
    ids=["one stride", "whole"],
)
def test_a_detector_exports_for_any_size(make: Any, strides: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_signal(make())
    export_onnx(model, tmp_path / "d.onnx", (96, 96), ["scores", "boxes_xyxy"], {}, any_size=True)
    scores, boxes = open_onnx(tmp_path / "d.onnx")(np.zeros((2, 3, 64, 160), np.float32))
    cells = sum((64 // stride) * (160 // stride) for stride in strides)
    assert scores.shape == (2, cells) and boxes.shape == (2, cells, 4)


class Other(torch.nn.Module):
    """Gives something else when it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 if torch.compiler.is_compiling() else x


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match="differs from torch"):
        export_onnx(torch.nn.Sequential(SMALL, Other()), tmp_path / "x.onnx", (64, 64), ["heatmaps"], {})
    assert list(tmp_path.iterdir()) == []


def test_metadata_is_json(tmp_path: Path) -> None:
    export_onnx(SMALL, tmp_path / "x.onnx", (64, 64), ["heatmaps"], {"mean": (0.5, 0.5, 0.5), "skeleton": "coco17"})
    stored = {p.key: p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(stored["posezoo"]) == {"mean": [0.5, 0.5, 0.5], "skeleton": "coco17"}


def test_an_operation_without_a_translation_of_ours_is_taken_apart(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(2))
    assert export_onnx(model, tmp_path / "x.onnx", (64, 64), ["maps"], {}) < 2e-4
    assert open_onnx(tmp_path / "x.onnx")(np.zeros((5, 3, 64, 64), np.float32))[0].shape == (5, 4, 2, 2)


def test_zeros_before_a_maximum_stay_zeros(tmp_path: Path) -> None:
    """ONNX Runtime takes them for its own padding, which is below every number."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ZeroPad2d(1), torch.nn.MaxPool2d(3, 1))
    torch.nn.init.constant_(model[0].bias, -50.0)
    assert export_onnx(model, tmp_path / "x.onnx", (64, 64), ["maps"], {}) < 2e-4
    corner = open_onnx(tmp_path / "x.onnx")(np.zeros((1, 3, 64, 64), np.float32))[0][0, :, 0, 0]
    np.testing.assert_allclose(corner, 0, atol=1e-30)
