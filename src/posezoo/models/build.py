"""`build`: the name of an architecture to a fresh network. A new architecture is a line in `ARCHS`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from posezoo.errors import unknown_name
from posezoo.models import mobilenet
from posezoo.models.heads import DeconvHead, ShuffleHead, TopDownNet
from posezoo.models.mobile_fpn import MobilePoseFPN, PersonDetector
from posezoo.models.resnet import ResNet


def _simple_pose(depth: int, variant: str) -> Callable[[int], nn.Module]:
    """Simple Baselines (arXiv 1804.06208): a ResNet and deconvolutions."""

    def network(joints: int) -> nn.Module:
        backbone = ResNet(depth, variant)
        return TopDownNet(backbone, DeconvHead(backbone.out_channels, joints))

    return network


def _mobile_pose(make_backbone: Callable[[], ResNet | mobilenet.MobileNet]) -> Callable[[int], nn.Module]:
    """GluonCV's mobile pose: any backbone and pixel shuffles."""

    def network(joints: int) -> nn.Module:
        backbone = make_backbone()
        return TopDownNet(backbone, ShuffleHead(backbone.out_channels, joints))

    return network


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    "simple_pose_resnet18_v1b": _simple_pose(18, "b"),
    "simple_pose_resnet50_v1b": _simple_pose(50, "b"),
    "simple_pose_resnet50_v1d": _simple_pose(50, "d"),
    "simple_pose_resnet101_v1b": _simple_pose(101, "b"),
    "simple_pose_resnet101_v1d": _simple_pose(101, "d"),
    "simple_pose_resnet152_v1b": _simple_pose(152, "b"),
    "simple_pose_resnet152_v1d": _simple_pose(152, "d"),
    "mobile_pose_resnet18_v1b": _mobile_pose(lambda: ResNet(18, "b")),
    "mobile_pose_resnet50_v1b": _mobile_pose(lambda: ResNet(50, "b")),
    "mobile_pose_mobilenet1.0": _mobile_pose(mobilenet.mobilenet_v1),
    "mobile_pose_mobilenetv2_1.0": _mobile_pose(mobilenet.mobilenet_v2),
    "mobile_pose_mobilenetv3_small": _mobile_pose(lambda: mobilenet.mobilenet_v3(mobilenet.V3_SMALL)),
    "mobile_pose_mobilenetv3_large": _mobile_pose(lambda: mobilenet.mobilenet_v3(mobilenet.V3_LARGE)),
    "mobile_pose_fpn_1.0": lambda joints: MobilePoseFPN(joints, 1.0),
    "mobile_pose_fpn_1.75": lambda joints: MobilePoseFPN(joints, 1.75),
    "person_detector_1.0": lambda joints: PersonDetector(1.0),
}


def build(arch: str, joints: int) -> nn.Module:
    """A network with fresh weights, in training mode.

    Args:
        arch: a key of `ARCHS`, such as "simple_pose_resnet50_v1b".
        joints: how many joints it predicts (0 for a detector).

    Returns:
        A module whose forward takes (B, 3, H, W) float32, already normalised, and gives heatmaps (B, joints, H/4, W/4).

    Raises:
        PosezooError: no such architecture.
    """
    if arch not in ARCHS:
        raise unknown_name("architecture", arch, ARCHS)
    return ARCHS[arch](joints)
