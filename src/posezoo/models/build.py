"""`build`: the name of an architecture to a fresh network; `outline`: to its shapes. `ARCHS` has a line for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from posezoo.errors import unknown_name
from posezoo.models import darknet, fastpose, hourglass, hrnet, mobilenet, resnet
from posezoo.models.heads import Backbone, DeconvHead, ShuffleHead, top_down
from posezoo.models.mobile_fpn import MobilePoseFPN, PersonDetector
from posezoo.models.resnet import ResNet


def _gate(channels: int) -> nn.Module:
    return mobilenet.SqueezeExcite(channels, channels // 16, nn.Sigmoid())


GATED = resnet.Style(gate=_gate)  # MMPose's SE-ResNet


def _simple_pose(make_backbone: Callable[[], Backbone], deconvolutions: int = 3) -> Callable[[int], nn.Module]:
    """Simple Baselines (arXiv 1804.06208): a ResNet, or another backbone, and deconvolutions."""
    return top_down(make_backbone, partial(DeconvHead, steps=deconvolutions))


def _mobile_pose(make_backbone: Callable[[], Backbone]) -> Callable[[int], nn.Module]:
    """GluonCV's mobile pose: any backbone and pixel shuffles."""
    return top_down(make_backbone, ShuffleHead)


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    **{
        f"simple_pose_resnet{depth}_{name}": _simple_pose(partial(ResNet, depth, style))
        for name, style, depths in (
            ("v1b", resnet.B, (18, 50, 101, 152)),
            ("v1d", resnet.D, (18, 50, 101, 152)),
            ("caffe", resnet.CAFFE, (50, 101, 152)),
        )
        for depth in depths
    },
    **{f"simple_pose_seresnet{depth}": _simple_pose(partial(ResNet, depth, GATED)) for depth in (50, 101, 152)},
    "simple_pose_resnet50_v1b_2deconv": _simple_pose(partial(ResNet, 50), deconvolutions=2),
    "simple_pose_mobilenetv2": _simple_pose(mobilenet.mobilenet_v2),
    "mobile_pose_resnet18_v1b": _mobile_pose(partial(ResNet, 18)),
    "mobile_pose_resnet50_v1b": _mobile_pose(partial(ResNet, 50)),
    "mobile_pose_mobilenet1.0": _mobile_pose(mobilenet.mobilenet_v1),
    "mobile_pose_mobilenetv2_1.0": _mobile_pose(mobilenet.mobilenet_v2),
    "mobile_pose_mobilenetv3_small": _mobile_pose(lambda: mobilenet.mobilenet_v3(mobilenet.V3_SMALL)),
    "mobile_pose_mobilenetv3_large": _mobile_pose(lambda: mobilenet.mobilenet_v3(mobilenet.V3_LARGE)),
    "mobile_pose_fpn_1.0": lambda joints: MobilePoseFPN(joints, 1.0),
    "mobile_pose_fpn_1.75": lambda joints: MobilePoseFPN(joints, 1.75),
    "person_detector_1.0": lambda joints: PersonDetector(1.0),
    **fastpose.ARCHS,
    **hrnet.ARCHS,
    **hourglass.ARCHS,
    **darknet.ARCHS,
}


def build(arch: str, joints: int, filled: bool = True) -> nn.Module:
    """A network with fresh weights, in training mode.

    Args:
        arch: a key of `ARCHS`, such as "simple_pose_resnet50_v1b".
        joints: how many joints it predicts (0 for a detector).
        filled: False for one whose weights are loaded next: they are what the memory held, which takes a tenth of the
            time that drawing them does.

    Returns:
        A module whose forward takes (B, 3, H, W) float32, already normalised, and gives heatmaps (B, joints, H/4, W/4).

    Raises:
        PosezooError: no such architecture.
    """
    if arch not in ARCHS:
        raise unknown_name("architecture", arch, ARCHS)
    with nullcontext() if filled else _Unfilled():
        return ARCHS[arch](joints)


_FILLS = ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "fill_", "zero_")


class _Unfilled(TorchFunctionMode):
    """Leaves weights unfilled."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@cache
def outline(arch: str, joints: int) -> nn.Module:
    """A network on the meta device, of shapes alone: it takes no memory, and is built once and then shared.

    Args:
        arch: as for `build`.
        joints: as for `build`.
    """
    with torch.device("meta"):
        return build(arch, joints, filled=False)  # there is nothing to fill, and pretending to is slow
