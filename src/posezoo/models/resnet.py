"""ResNet backbones (arXiv 1512.03385) in the b and d variants of "Bag of Tricks" (arXiv 1812.01187).

In both the stride sits on the 3x3 convolution of a bottleneck. The d variant has a stem of three 3x3 convolutions, and
its shortcuts average-pool before a 1x1 convolution of stride 1.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from posezoo.models.layers import ConvNorm

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _shortcut(inputs: int, outputs: int, stride: int, pool: bool) -> nn.Module:
    """Brings a block's input to its output's size: 1x1 convolution and BatchNorm, after a pool in the d variant."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if pool:
        layers["pool"] = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    layers["conv"] = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    layers["bn"] = nn.BatchNorm2d(outputs)
    return nn.Sequential(layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _stage(
    block: type[BasicBlock | Bottleneck], inputs: int, width: int, count: int, stride: int, pool: bool
) -> nn.Sequential:
    """`count` blocks, of which the first changes size and channels where it must."""
    outputs = width * block.expansion
    change = stride != 1 or inputs != outputs
    first = block(inputs, width, stride, _shortcut(inputs, outputs, stride, pool) if change else None)
    return nn.Sequential(first, *(block(outputs, width, 1, None) for _ in range(count - 1)))


class ResNet(nn.Module):
    """The convolutional part of a ResNet: (B, 3, H, W) to (B, out_channels, H/32, W/32).

    Args:
        depth: 18, 50, 101 or 152.
        variant: "b" or "d", see the module's head.
    """

    def __init__(self, depth: int, variant: str = "b") -> None:
        super().__init__()
        widths = [(3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)] if variant == "d" else [(3, 64, 7, 2)]
        self.stem = nn.Sequential(*(ConvNorm(*w, act=nn.ReLU(inplace=True)) for w in widths))
        self.pool = nn.MaxPool2d(3, 2, 1)
        block: type[BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        factor, counts, pool = block.expansion, BLOCKS[depth], variant == "d"
        self.layer1 = _stage(block, 64, 64, counts[0], 1, pool)
        self.layer2 = _stage(block, 64 * factor, 128, counts[1], 2, pool)
        self.layer3 = _stage(block, 128 * factor, 256, counts[2], 2, pool)
        self.layer4 = _stage(block, 256 * factor, 512, counts[3], 2, pool)
        self.out_channels = 512 * factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out_channels, H/32, W/32)."""
        x = self.pool(self.stem(x))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
