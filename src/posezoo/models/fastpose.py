"""FastPose (AlphaPose, arXiv 2211.03375, section 3): an SE-ResNet and upsampling by pixel shuffles.

GluonCV's alpha_pose is the same network. Only the first block of each stage is gated, by fully connected layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from posezoo.models.deform import DeformConv2d
from posezoo.models.heads import top_down
from posezoo.models.layers import ConvNorm
from posezoo.models.mobilenet import SqueezeExcite
from posezoo.models.resnet import Conv, ResNet, Style, conv3x3

# the outputs of the convolutions after each of three shuffles
Widths = Sequence[Sequence[int]]
PLAIN: Widths = ((1024,), (512,), ())
WIDE: Widths = ((1024,), (1024,), ())
DUC: Widths = ((512, 512, 512, 1024), (256, 512), (256,))


class DucHead(nn.Module):
    """Dense upsampling convolutions (arXiv 1702.08502): shuffle and convolve, three times, then a 3x3 convolution.

    A shuffle of 2 turns four channels into one at twice the size (arXiv 1609.05158).
    """

    def __init__(self, inputs: int, joints: int, widths: Widths) -> None:
        super().__init__()
        self.shuffle = nn.PixelShuffle(2)
        self.duc = nn.Sequential()
        for stage in widths:
            inputs //= 4
            layers = []
            for outputs in stage:
                layers.append(ConvNorm(inputs, outputs, 3, act=nn.ReLU(inplace=True)))
                inputs = outputs
            self.duc.append(nn.Sequential(*layers))
        self.final = nn.Conv2d(inputs, joints, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, joints, 8h, 8w)."""
        for stage in self.duc:
            x = stage(self.shuffle(x))
        return self.final(x)


def _unshuffling(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A 3x3 convolution that sees all pixels of what it halves: a stride is an unshuffle before it."""
    if stride == 1:
        return conv3x3(inputs, outputs, 1)
    return nn.Sequential(nn.PixelUnshuffle(stride), conv3x3(stride**2 * inputs, outputs, 1))


def _deformable(groups: int = 1, modulated: bool = False) -> Conv:
    return lambda inputs, outputs, stride: DeformConv2d(
        inputs, outputs, stride=stride, deform_groups=groups, modulated=modulated
    )


def _gate(channels: int) -> nn.Module:
    return SqueezeExcite(channels, channels, nn.Sigmoid(), dense=True)


SE = Style(gate=_gate, gate_all=False)
DCN = replace(SE, convs=(conv3x3, *3 * (_deformable(),)))
DCN_V2 = replace(SE, convs=(conv3x3, *3 * (_deformable(modulated=True),)))
DCN_TWO_GROUPS = replace(SE, convs=(*3 * (conv3x3,), _deformable(groups=2)))
UNSHUFFLE = replace(SE, convs=4 * (_unshuffling,))


def _fastpose(depth: int, style: Style = SE, widths: Widths = PLAIN) -> Callable[[int], nn.Module]:
    return top_down(partial(ResNet, depth, style), partial(DucHead, widths=widths))


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    "fastpose_resnet50": _fastpose(50),
    "fastpose_resnet101": _fastpose(101),
    "fastpose_resnet152": _fastpose(152),
    "fastpose_resnet50_wide": _fastpose(50, widths=WIDE),
    "fastpose_resnet152_wide": _fastpose(152, widths=WIDE),
    "fastpose_resnet50_dcn": _fastpose(50, DCN),
    "fastpose_resnet50_dcn_wide": _fastpose(50, DCN, WIDE),
    "fastpose_resnet50_dcnv2": _fastpose(50, DCN_V2),
    "fastpose_resnet50_dcn_g2": _fastpose(50, DCN_TWO_GROUPS),
    "fastpose_duc_resnet50_unshuffle": _fastpose(50, UNSHUFFLE, DUC),
    "fastpose_duc_resnet152": _fastpose(152, widths=DUC),
    "alpha_pose_resnet101_v1b": _fastpose(101),
}
