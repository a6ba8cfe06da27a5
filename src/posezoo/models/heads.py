"""Heads: from a backbone's map of 1/32 of the input's size to one heatmap per joint at 1/4."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from posezoo.models.deform import DeformConv2d
from posezoo.models.layers import ConvNorm, initialise
from posezoo.models.mobilenet import MobileNet
from posezoo.models.resnet import ResNet

Backbone = ResNet | MobileNet


class Upsample(nn.Module):
    """4x4 deconvolution of stride 2, BatchNorm, ReLU: twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        return self.act(self.bn(self.conv(x)))


class DeconvHead(nn.Module):
    """Deconvolutions and a 1x1 convolution: Simple Baselines (arXiv 1804.06208, section 2).

    Args:
        inputs: channels in.
        joints: heatmaps out.
        width: channels between.
        steps: how many deconvolutions; each doubles the size.
    """

    def __init__(self, inputs: int, joints: int, width: int = 256, steps: int = 3) -> None:
        super().__init__()
        self.up = nn.Sequential(*(Upsample(width if step else inputs, width) for step in range(steps)))
        self.final = nn.Conv2d(width, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, joints, 8h, 8w) in three steps."""
        return self.final(self.up(x))


class ShuffleHead(nn.Module):
    """A 1x1 convolution to 256, three of 3x3 each followed by a pixel shuffle (arXiv 1609.05158), and a 1x1.

    A shuffle of 2 turns four channels into one at twice the size, so this head is far cheaper than deconvolutions.
    """

    def __init__(self, inputs: int, joints: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, 256, 1, bias=False)
        self.up = nn.Sequential(*(ConvNorm(c, 2 * c, 3, act=nn.ReLU(inplace=True)) for c in (256, 128, 64)))
        self.shuffle = nn.PixelShuffle(2)
        self.final = nn.Conv2d(32, joints, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, joints, 8h, 8w)."""
        x = self.reduce(x)
        for stage in self.up:
            x = self.shuffle(stage(x))
        return self.final(x)


class TopDownNet(nn.Module):
    """A backbone and a head: (B, 3, H, W) float32 to heatmaps (B, joints, H/4, W/4); H and W are multiples of 32.

    With a head of two deconvolutions the heatmaps are of H/8 and W/8.

    Args:
        backbone: the image to features.
        head: features to heatmaps; its last layer is a convolution named `final`.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        initialise(self)
        for module in self.modules():
            if isinstance(module, DeformConv2d):  # learns where to read from where an ordinary convolution does
                module.reset_offset()
        # heatmaps are near zero almost everywhere, so the network starts there
        nn.init.normal_(head.get_parameter("final.weight"), std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, joints, H/4, W/4)."""
        return self.head(self.backbone(x))


def top_down(
    make_backbone: Callable[[], Backbone], make_head: Callable[[int, int], nn.Module]
) -> Callable[[int], nn.Module]:
    """What builds, for a number of joints, the network of this backbone and head.

    Args:
        make_backbone: makes the backbone.
        make_head: makes the head from the backbone's channels and the number of joints.
    """

    def network(joints: int) -> nn.Module:
        backbone = make_backbone()
        return TopDownNet(backbone, make_head(backbone.out_channels, joints))

    return network
