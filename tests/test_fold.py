"""BatchNorm folded into convolutions: the same numbers, and only where nothing else sees what is between."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from posezoo.deploy.export import fold_batchnorm  # noqa: E402
from posezoo.models.build import outline  # noqa: E402
from posezoo.models.deform import DeformConv2d  # noqa: E402


def used(module: nn.Module) -> nn.Module:
    """In eval mode, with norms that do something."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor in (each.weight, each.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (each.bias, each.running_mean):
                nn.init.normal_(tensor)
        if isinstance(each, DeformConv2d):
            nn.init.normal_(each.offset.weight, std=0.1)
    return module.eval()


def norms(module: nn.Module) -> list[str]:
    return [name for name, each in module.named_modules() if isinstance(each, nn.BatchNorm2d)]


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(6, 8, 3, padding=1),
    "grouped": lambda: nn.Conv2d(6, 9, 3, groups=3, bias=False),
    "depthwise": lambda: nn.Conv2d(6, 12, 3, stride=2, groups=6),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False),
    "transposed, as many out as in": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1),
    "transposed, grouped": lambda: nn.ConvTranspose2d(6, 9, 3, 2, 1, 1, groups=3),
    "transposed, grouped, as many out as in": lambda: nn.ConvTranspose2d(6, 6, 2, 2, groups=2, bias=False),
    "deformable": lambda: DeformConv2d(6, 8, stride=2, deform_groups=2, modulated=True),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_folded_module_computes_the_same(kind: str) -> None:
    conv = CONVOLUTIONS[kind]()
    module = used(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)))
    folded = fold_batchnorm(module)
    assert not norms(folded) and len(norms(module)) == 1  # a copy
    x = torch.randn(2, 6, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_norm_without_weights_of_its_own_is_folded_too() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)).eval()
    nn.init.normal_(module[1].running_mean)
    x = torch.randn(1, 3, 8, 8)
    folded = fold_batchnorm(module)
    assert not norms(folded)
    torch.testing.assert_close(folded(x), module(x))


class Seen(nn.Module):
    """What is between is used a second time, in the given way."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv, self.bn, self.how = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), how

    def forward(self, x: Any) -> Any:
        return self.how(self, self.conv(x), x)


KEPT = {
    "added": lambda m, y, x: m.bn(y) + y,
    "given out": lambda m, y, x: (m.bn(y), y),
    "changed in place": lambda m, y, x: m.bn(y.relu_()),
    "a norm for two": lambda m, y, x: m.bn(y) + m.bn(x),
    "a convolution for two": lambda m, y, x: m.bn(y) + m.conv(y),
    "a norm before": lambda m, y, x: m.conv(m.bn(x)),
}
FOLDED = {
    "its shape is asked for": lambda m, y, x: m.bn(y) + torch.zeros(y.shape[1:], device=y.device),
    "together, twice": lambda m, y, x: m.bn(y) + m.bn(m.conv(x * 2)),
}


@pytest.mark.parametrize("how", [*KEPT, *FOLDED])
def test_only_where_nothing_else_sees_what_is_between(how: str) -> None:
    module = used(Seen({**KEPT, **FOLDED}[how]))
    folded = fold_batchnorm(module)
    assert norms(folded) == (["bn"] if how in KEPT else [])
    x = torch.randn(2, 3, 5, 5)
    for ours, theirs in zip(module(x), folded(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arch", ["simple_pose_resnet18_v1d", "mobile_pose_fpn_1.0", "person_detector_1.0", "fastpose_resnet50_dcn_g2"]
)
def test_no_norm_is_left(arch: str) -> None:
    assert norms(outline(arch, 17)) and not norms(fold_batchnorm(outline(arch, 17)))


def test_norms_that_come_first_are_left() -> None:
    left = norms(fold_batchnorm(outline("hourglass_s1", 16)))
    assert left and all(name.endswith(".bn1") for name in left)
