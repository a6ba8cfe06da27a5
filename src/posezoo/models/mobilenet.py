"""MobileNet backbones: V1 (arXiv 1704.04861), V2 (arXiv 1801.04381), V3 small and large (arXiv 1905.02244)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from posezoo.models.layers import ConvNorm

Act = Callable[[], nn.Module]

# output channels and stride of each depthwise-separable block
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

# expansion, output channels, blocks, stride of the first (V2, table 2)
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# kernel, expanded channels, output channels, squeeze-excite, hard swish, stride (V3, tables 1 and 2)
V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, but never less than 90 % of `channels` (V2 and V3's own rounding)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channels' means (arXiv 1709.01507).

    Args:
        channels: channels in and out.
        hidden: width between.
        gate: what brings the result into (0, 1).
        dense: fully connected layers in the place of 1x1 convolutions: the same numbers, in arrays of another shape.
    """

    def __init__(self, channels: int, hidden: int, gate: nn.Module, dense: bool = False) -> None:
        super().__init__()
        layer: Callable[[int, int], nn.Module] = nn.Linear if dense else partial(nn.Conv2d, kernel_size=1)
        pool = nn.AdaptiveAvgPool2d(1)
        self.pool = nn.Sequential(pool, nn.Flatten()) if dense else pool
        self.reduce = layer(channels, hidden)
        self.relu = nn.ReLU(inplace=True)
        self.expand = layer(hidden, channels)
        self.gate = nn.Sequential(gate, nn.Unflatten(1, (channels, 1, 1))) if dense else gate

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class Separable(nn.Module):
    """V1's block: depthwise 3x3, then 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride, inputs, nn.ReLU(inplace=True))
        self.project = ConvNorm(inputs, outputs, 1, act=nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.project(self.depthwise(x))


class InvertedResidual(nn.Module):
    """V2 and V3's block: widen by 1x1, depthwise, optional squeeze-excite, narrow by a linear 1x1; added to its input.

    The widening is left out where it would not widen, and the sum where input and output differ in shape.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, kernel: int, stride: int, act: Act, excite: bool = False
    ) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, width, 1, act=act()) if width != inputs else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel, stride, width, act())
        self.se = SqueezeExcite(width, round_channels(width / 4), nn.Hardsigmoid()) if excite else nn.Identity()
        self.project = ConvNorm(width, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out = self.project(self.se(self.depthwise(self.expand(x))))
        return x + out if self.adds else out


class MobileNet(nn.Module):
    """Stem, blocks and, but for V1, a last 1x1 convolution: (B, 3, H, W) to (B, out_channels, H/32, W/32)."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], last: nn.Module | None, out_channels: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.last = last or nn.Identity()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out_channels, H/32, W/32)."""
        return self.last(self.blocks(self.stem(x)))


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def _relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def _hard_swish() -> nn.Module:
    return nn.Hardswish(inplace=True)


def mobilenet_v1() -> MobileNet:
    """MobileNet 1.0."""
    channels, blocks = 32, []
    for outputs, stride in V1:
        blocks.append(Separable(channels, outputs, stride))
        channels = outputs
    return MobileNet(ConvNorm(3, 32, 3, 2, act=_relu()), blocks, None, channels)


def mobilenet_v2(multiplier: float = 1.0) -> MobileNet:
    """MobileNetV2; `multiplier` scales the channels, the last layer's only upwards."""
    channels = first = round_channels(32 * multiplier)
    blocks = []
    for expansion, base, count, first_stride in V2:
        outputs = round_channels(base * multiplier)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            blocks.append(InvertedResidual(channels, expansion * channels, outputs, 3, stride, _relu6))
            channels = outputs
    width = round_channels(1280 * max(1.0, multiplier))
    return MobileNet(ConvNorm(3, first, 3, 2, act=_relu6()), blocks, ConvNorm(channels, width, 1, act=_relu6()), width)


def mobilenet_v3(rows: tuple[tuple[int, int, int, bool, bool, int], ...]) -> MobileNet:
    """MobileNetV3 from `V3_SMALL` or `V3_LARGE`; the last layer is as wide as the last block inside."""
    channels, width = 16, 16
    blocks = []
    for kernel, width, outputs, excite, swish, stride in rows:
        act = _hard_swish if swish else _relu
        blocks.append(InvertedResidual(channels, width, outputs, kernel, stride, act, excite))
        channels = outputs
    last = ConvNorm(channels, width, 1, act=_hard_swish())
    return MobileNet(ConvNorm(3, 16, 3, 2, act=_hard_swish()), blocks, last, width)
