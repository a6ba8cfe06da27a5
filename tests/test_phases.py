"""Transposed convolutions as phases: the same numbers, for every kernel that doubles a map."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from posezoo.deploy.phases import split_transposed  # noqa: E402
from posezoo.models.build import build  # noqa: E402

KERNELS = [(4, 1, 0), (3, 1, 1), (2, 0, 0)]  # size, padding, output padding


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("size", "padding", "more"), KERNELS)
def test_phases_compute_the_transposed_convolution(size: int, padding: int, more: int, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.ConvTranspose2d(8, 12, size, 2, padding, more, groups=groups, bias=bias)).eval()
    split = split_transposed(plain)
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in split.modules())
    assert isinstance(plain[0], nn.ConvTranspose2d)  # a copy was changed
    for width in (1, 5, 8):
        images = torch.randn(2, 8, 7, width)
        torch.testing.assert_close(split(images), plain(images), rtol=1e-5, atol=1e-5)


def test_a_whole_network() -> None:
    torch.manual_seed(0)
    model = build("simple_pose_resnet18_v1b", 5).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted, given = model(images), split_transposed(model)(images)
    assert float((wanted - given).abs().max()) < 1e-5 * float(wanted.std())
