"""Deformable convolution: the published arithmetic, any size, torchvision's kernel where there is one, ONNX."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.models import deform  # noqa: E402
from posezoo.models.deform import DeformConv2d, deform_conv2d  # noqa: E402


@pytest.fixture(autouse=True)
def forget_torchvision() -> Iterator[None]:
    """Each test finds out anew whether torchvision imports."""
    deform._fastest.cache_clear()
    yield
    deform._fastest.cache_clear()


def moving(*args: Any, **options: Any) -> DeformConv2d:
    """A layer that reads about one pixel off."""
    torch.manual_seed(0)
    layer = DeformConv2d(*args, **options)
    torch.nn.init.normal_(layer.offset.weight, std=0.3)
    torch.nn.init.normal_(layer.offset.bias)
    return layer


@pytest.mark.parametrize("number", range(6))
def test_equals_the_kernels_own_loop(number: int, parity: Path) -> None:
    case = json.loads((parity / "ops" / "alphapose_deform_conv.json").read_text())["cases"][number]
    x, offset, mask, weight, wanted = (
        case[name] and torch.tensor(case[name]["data"], dtype=torch.float64).reshape(case[name]["shape"])
        for name in ("input", "offset", "mask", "weight", "output")
    )
    stride, padding, dilation = ((case[name],) * 2 for name in ("stride", "padding", "dilation"))
    out = deform_conv2d(x, offset, weight, None, stride, padding, dilation, mask)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    single = [None if a is None else a.float() for a in (x, offset, weight, mask)]
    out = deform_conv2d(*single[:3], None, stride, padding, dilation, single[3])
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1), (5, 2, 3)])
def test_is_an_ordinary_convolution_until_it_moves(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 5, kernel, stride, dilation, deform_groups=2)
    half = DeformConv2d(4, 5, kernel, stride, dilation, modulated=True)
    half.weight = layer.weight
    x = torch.randn(2, 4, 9, 7)
    wanted = torch.nn.functional.conv2d(x, layer.weight, None, stride, dilation * (kernel // 2), dilation)
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(half(x), wanted / 2)


def test_an_offset_reads_elsewhere_and_zero_outside() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    offset = torch.tensor([1.0, -0.5]).reshape(1, 2, 1, 1).expand(1, 2, 3, 4)  # one down, half to the left
    bias = torch.tensor([100.0])
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1), bias)
    wanted = [[2, 4.5, 5.5, 6.5], [4, 8.5, 9.5, 10.5], [0, 0, 0, 0]]
    torch.testing.assert_close(out, torch.tensor(wanted)[None, None] + 100)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (3, 2)])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_size_and_batch(size: tuple[int, int], batch: int) -> None:
    layer = moving(4, 6, stride=2, deform_groups=2, modulated=True)
    x = torch.randn(batch, 4, *size)
    out = layer(x)
    assert out.shape == (batch, 6, (size[0] + 1) // 2, (size[1] + 1) // 2)
    alone = [layer(one[None]) for one in x]
    torch.testing.assert_close(out, torch.cat([out[:0], *alone]))


def test_half_precision_reads_at_the_right_place() -> None:
    x = torch.randn(1, 1, 3, 301).half()
    out = deform_conv2d(x, torch.zeros(1, 2, 3, 301).half(), torch.ones(1, 1, 1, 1).half())
    torch.testing.assert_close(out, x, rtol=1e-3, atol=1e-3)


def test_gradients() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3)
    offset, mask = torch.rand(1, 18, 3, 3) * 0.8 + 0.1, torch.rand(1, 9, 3, 3)  # between pixels, where it is smooth
    inputs = [a.double().requires_grad_() for a in (x, offset, weight, mask)]

    def run(x: Any, offset: Any, weight: Any, mask: Any) -> Any:
        return deform_conv2d(x, offset, weight, padding=(1, 1), mask=mask)

    assert torch.autograd.gradcheck(run, inputs)


def with_torchvision(monkeypatch: pytest.MonkeyPatch, ops: ModuleType | None) -> None:
    parent = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", parent)
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)  # None: the import fails


def test_takes_torchvisions_kernel_but_not_into_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def kernel(*args: Any) -> Any:
        calls.append(len(args))
        return deform_conv2d(*args)

    ops = ModuleType("torchvision.ops")
    ops.deform_conv2d = kernel  # type: ignore[attr-defined]
    with_torchvision(monkeypatch, ops)
    layer, x = moving(3, 4).eval(), torch.randn(2, 3, 5, 5)
    layer(x)
    assert calls == [8]
    layer.to("meta")(x.to("meta"))
    program = torch.export.export(moving(3, 4).eval(), (x,))
    assert "grid_sampler" in str(program.graph)
    assert calls == [8]


def test_no_torchvision_or_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_torchvision(monkeypatch, None)
    assert deform._fastest() is deform_conv2d
    deform._fastest.cache_clear()
    with_torchvision(monkeypatch, ModuleType("torchvision.ops"))  # too old to have it
    assert deform._fastest() is deform_conv2d
    deform._fastest.cache_clear()

    def built_for_another_torch(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(deform.importlib, "import_module", built_for_another_torch)
    assert deform._fastest() is deform_conv2d


@pytest.mark.slow
def test_onnx_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from posezoo.deploy.export import export_onnx

    model = moving(3, 4, stride=2, deform_groups=3, modulated=True).eval()
    export_onnx(model, tmp_path / "x.onnx", (24, 32), ["heatmaps"], {})  # compares with torch itself


@pytest.mark.slow
def test_onnx_of_any_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from posezoo.deploy.export import export_onnx
    from posezoo.deploy.runtimes import open_onnx

    model = torch.nn.Sequential(moving(3, 8), moving(8, 4, stride=2, deform_groups=2)).eval()
    export_onnx(model, tmp_path / "x.onnx", (64, 32), ["heatmaps"], {}, any_size=True)
    x = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        wanted = model(x).numpy()
    np.testing.assert_allclose(open_onnx(tmp_path / "x.onnx")(x.numpy())[0], wanted, atol=1e-4)
