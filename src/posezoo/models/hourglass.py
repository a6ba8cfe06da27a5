"""Stacked hourglasses (arXiv 1603.06937): pytorch-pose's and Princeton's, which are one network, and MMPose's, another.

Every network here gives the last stack's heatmaps; `stacks` gives those of all, which are trained together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from posezoo.models.layers import ConvNorm, initialise
from posezoo.models.resnet import BasicBlock

_DEPTH = 4  # halvings in the published hourglass
_CHANNELS_52 = (256, 256, 384, 384, 384, 512)  # MMPose's: at the full size and after each of five halvings


class Hourglass(nn.Module):
    """Blocks at the full size beside a path through half the size, and their sum; `low2` may be such a module again.

    Args:
        up1: at the full size.
        low1: after `down`, or halves the size itself.
        low2: at half the size.
        low3: last before the size is doubled.
        down: what halves the size before `low1`.
    """

    def __init__(
        self, up1: nn.Module, low1: nn.Module, low2: nn.Module, low3: nn.Module, down: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.up1, self.low1, self.low2, self.low3 = up1, low1, low2, low3
        self.down = down or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        up = self.up1(x)
        low = self.low3(self.low2(self.low1(self.down(x))))
        # twice the size; one less where an odd size was halved
        return up + F.interpolate(low, size=up.shape[-2:], mode="nearest")


class StackedHourglass(nn.Module):
    """Hourglasses one after the other, each with heatmaps of its own.

    Args:
        stem: (B, 3, H, W) to (B, C, H/4, W/4).
        stages: each from (B, C, H/4, W/4) to heatmaps and to the next one's input.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[PreActivationStage | Stage52]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        initialise(self)
        for stage in stages:
            # heatmaps are near zero almost everywhere, so the network starts there
            nn.init.normal_(stage.heatmaps.weight, std=0.001)

    def stacks(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to every stack's heatmaps (B, joints, H/4, W/4), the best ones last."""
        x = self.stem(x)
        found = []
        for stage in self.stages:
            heatmaps, x = stage(x)
            found.append(heatmaps)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the last stack's heatmaps (B, joints, H/4, W/4)."""
        return self.stacks(x)[-1]


class PreActivation(nn.Module):
    """A bottleneck whose BatchNorms and ReLUs come before its biased convolutions (arXiv 1603.05027).

    Args:
        inputs: channels in.
        outputs: channels out.
        spare: own a shortcut's convolution even where nothing needs it and nothing uses it, as Princeton's files do.
    """

    def __init__(self, inputs: int, outputs: int, spare: bool = False) -> None:
        super().__init__()
        width = outputs // 2
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.relu = nn.ReLU(inplace=True)
        self.changes = inputs != outputs
        if self.changes or spare:
            # training in several processes waits for a gradient of whatever wants one
            self.skip = nn.Conv2d(inputs, outputs, 1).requires_grad_(self.changes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        return out + (self.skip(x) if self.changes else x)


def _biased(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """`ConvNorm` with ReLU, but for the bias that the convolutions of the published code have."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), act=nn.ReLU(inplace=True)))


class PreActivationStage(nn.Module):
    """One hourglass of the paper with its heatmaps, and the way back to the next one's input.

    Args:
        joints: how many heatmaps.
        blocks: how many bottlenecks at each place.
        last: no other stage follows.
        spare: see `PreActivation`.
        width: channels.
    """

    def __init__(self, joints: int, blocks: int, last: bool, spare: bool, width: int = 256) -> None:
        super().__init__()

        def place() -> nn.Sequential:
            return nn.Sequential(*(PreActivation(width, width, spare) for _ in range(blocks)))

        low: nn.Module = place()
        for _ in range(_DEPTH):
            low = Hourglass(place(), place(), low, place(), nn.MaxPool2d(2))
        self.hourglass = low
        self.blocks = place()
        self.feature = _biased(width, width, 1)
        self.heatmaps = nn.Conv2d(width, joints, 1)
        self.last = last
        if not last:
            self.from_feature = nn.Conv2d(width, width, 1)
            self.from_heatmaps = nn.Conv2d(joints, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, h, w) to heatmaps (B, joints, h, w) and the next stage's input (B, width, h, w)."""
        feature = self.feature(self.blocks(self.hourglass(x)))
        heatmaps = self.heatmaps(feature)
        return heatmaps, x if self.last else x + self.from_feature(feature) + self.from_heatmaps(heatmaps)


def _pre_activation(stacks: int, blocks: int, middle: int, spare: bool, joints: int) -> nn.Module:
    """The paper's network; `middle` is the width of its second block, the only size in which the two codes differ."""
    stem = nn.Sequential(
        _biased(3, 64, 7, 2),
        PreActivation(64, 128),
        nn.MaxPool2d(2),
        PreActivation(128, middle, spare),
        PreActivation(middle, 256, spare),
    )
    return StackedHourglass(stem, [PreActivationStage(joints, blocks, i == stacks - 1, spare) for i in range(stacks)])


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """1x1 convolution and BatchNorm where a block changes size or channels."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _basic(inputs: int, outputs: int, stride: int = 1) -> BasicBlock:
    return BasicBlock(inputs, outputs, stride, _shortcut(inputs, outputs, stride))


def _hourglass_52(channels: Sequence[int]) -> nn.Module:
    """MMPose's: two blocks at each place and four at the smallest size; blocks of stride 2 halve the size."""
    outer, inner, *_ = channels
    if len(channels) > 2:
        low2 = _hourglass_52(channels[1:])
    else:
        low2 = nn.Sequential(*(_basic(inner, inner) for _ in range(4)))
    return Hourglass(
        nn.Sequential(_basic(outer, outer), _basic(outer, outer)),
        nn.Sequential(_basic(outer, inner, 2), _basic(inner, inner)),
        low2,
        nn.Sequential(_basic(inner, inner), _basic(inner, outer)),
    )


class Stage52(nn.Module):
    """One hourglass of MMPose's network with its heatmaps, and the way back to the next one's input.

    Args:
        joints: how many heatmaps.
        first: own `block`, used or not: MMPose's files hold it even where no other stage follows.
        last: no other stage follows.
    """

    def __init__(self, joints: int, first: bool, last: bool) -> None:
        super().__init__()
        width = _CHANNELS_52[0]
        self.hourglass = _hourglass_52(_CHANNELS_52)
        self.feature = ConvNorm(width, width, 3, act=nn.ReLU(inplace=True))
        self.heatmaps = nn.Conv2d(width, joints, 1)
        self.last = last
        if not last:
            self.from_input = ConvNorm(width, width, 1)
            self.from_feature = ConvNorm(width, width, 1)
        if first or not last:
            self.block = _basic(width, width).requires_grad_(not last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 256, h, w) to heatmaps (B, joints, h, w) and the next stage's input (B, 256, h, w)."""
        feature = self.feature(self.hourglass(x))
        if not self.last:
            x = self.block(F.relu(self.from_input(x) + self.from_feature(feature)))
        return self.heatmaps(feature), x


def _mmpose(stacks: int, joints: int) -> nn.Module:
    """MMPose's HourglassNet and its 1x1 heads."""
    stem = nn.Sequential(ConvNorm(3, 128, 7, 2, act=nn.ReLU(inplace=True)), _basic(128, _CHANNELS_52[0], 2))
    return StackedHourglass(stem, [Stage52(joints, i == 0, i == stacks - 1) for i in range(stacks)])


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    **{f"hourglass_s{n}": partial(_pre_activation, n, 1, 256, False) for n in (1, 2, 8)},
    "hourglass_s2_b4": partial(_pre_activation, 2, 4, 256, False),
    **{f"hourglass_princeton_s{n}": partial(_pre_activation, n, 1, 128, True) for n in (1, 2, 8)},
    "hourglass52": partial(_mmpose, 1),
    "hourglass52_s2": partial(_mmpose, 2),
}
