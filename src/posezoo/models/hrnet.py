"""HRNet (arXiv 1902.09212): branches at 1/4, 1/8, 1/16 and 1/32 of the input run side by side and exchange maps.

Names inside stages and transitions are those of the published code, which every zoo kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add

from torch import Tensor, nn
from torch.nn import functional as F

from posezoo.models.heads import DeconvHead, TopDownNet
from posezoo.models.layers import ConvNorm
from posezoo.models.resnet import BasicBlock, Bottleneck

_BLOCKS = 4  # in layer1 and in each branch of each module
_MODULES = (1, 4, 3)  # in the stages of two, three and four branches


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, BatchNorm and, unless its result is to be added to others, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if act else []))


def _halvings(widths: Sequence[int], source: int, target: int) -> nn.Sequential:
    """From branch `source` to the smaller `target`: a convolution of stride 2 for each step, the last one linear."""
    inputs = widths[source]
    steps = [_unit(inputs, inputs, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, _unit(inputs, widths[target], stride=2, act=False))


class Exchange(nn.Module):
    """Blocks in each branch, then every output is the sum of all branches brought to its size.

    Args:
        widths: channels of each branch, largest map first.
        outputs: how many branches, from the first, are wanted afterwards.
    """

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, 1, None) for _ in range(_BLOCKS))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(outputs)
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source < target:
            return _halvings(widths, source, target)
        return _unit(widths[source], widths[target], kernel=1, act=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One (B, width, h, w) per branch to the same for each output."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fuse(target, paths, maps) for target, paths in enumerate(self.fuse_layers)]

    @staticmethod
    def _fuse(target: int, paths: nn.Module, maps: list[Tensor]) -> Tensor:
        parts = [path(x) for path, x in zip(paths.children(), maps, strict=True)]
        size_hw = maps[target].shape[-2:]
        same, smaller = parts[: target + 1], parts[target + 1 :]
        return F.relu(reduce(add, [*same, *(F.interpolate(x, size_hw, mode="nearest") for x in smaller)]), inplace=True)


class HRNet(nn.Module):
    """The network up to its largest map: (B, 3, H, W) to (B, width, H/4, W/4).

    Args:
        width: channels of the largest map, 32 or 48 in the paper; each smaller one has twice the channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(ConvNorm(3, 64, 3, 2, act=relu), ConvNorm(64, 64, 3, 2, act=relu))
        first = Bottleneck(64, 64, 1, ConvNorm(64, 256, 1))
        self.layer1 = nn.Sequential(first, *(Bottleneck(256, 64, 1, None) for _ in range(_BLOCKS - 1)))
        widths = tuple(width * 2**i for i in range(4))
        self.transition1 = self._transition((256,), widths[:2])
        self.transition2 = self._transition(widths[:2], widths[:3])
        self.transition3 = self._transition(widths[:3], widths)
        self.stage2 = self._stage(widths[:2], _MODULES[0], 2)
        self.stage3 = self._stage(widths[:3], _MODULES[1], 3)
        self.stage4 = self._stage(widths, _MODULES[2], 1)
        self.out_channels = width

    @staticmethod
    def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
        """To one branch more, half the size of the last; the others change where their channels do."""
        kept = [
            nn.Identity() if inputs == outputs else _unit(inputs, outputs)
            for inputs, outputs in zip(before, after, strict=False)
        ]
        return nn.ModuleList([*kept, nn.Sequential(_unit(before[-1], after[-1], stride=2))])

    @staticmethod
    def _stage(widths: Sequence[int], modules: int, outputs: int) -> nn.Sequential:
        """All branches are kept between its modules, and `outputs` of them after the last."""
        return nn.Sequential(*(Exchange(widths, len(widths)) for _ in range(modules - 1)), Exchange(widths, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out_channels, H/4, W/4)."""
        maps = [self.layer1(self.stem(x))]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            maps = stage([step(y) for step, y in zip(transition, [*maps, maps[-1]], strict=True)])
        return maps[0]


def _pose_hrnet(width: int, joints: int) -> nn.Module:
    """HRNet and a 1x1 convolution: its map is as large as the heatmaps already."""
    return TopDownNet(HRNet(width), DeconvHead(width, joints, width, steps=0))


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    "pose_hrnet_w32": partial(_pose_hrnet, 32),
    "pose_hrnet_w48": partial(_pose_hrnet, 48),
}
