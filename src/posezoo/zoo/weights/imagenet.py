"""Names of networks that were trained to classify, from whose bodies pose networks begin.

A body has in such a file the names that it has in a pose network of the same zoo, only that PyTorch's own files have no
prefix before them. What the networks have beyond their bodies is known by name too, and left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from posezoo.zoo.weights import gluoncv, mmpose
from posezoo.zoo.weights.layout import KeyMap, Layout, Rule, under

if TYPE_CHECKING:
    from torch import nn

BODY = "backbone."
# classifiers; heads of pose networks; and from HRNet's last exchange the maps that only classifiers go on with
_BEYOND = re.compile(
    r"(fc|classifier|output|head|neck|incre_modules|downsamp_modules|keypoint_head|deconv_layers|final_layer|"
    r"backbone\.stage4\.2\.fuse_layers\.[1-9])\..*"
    r"|(\w+_)?(dense\d+|fc|output|output_pred)_\w+"  # as GluonCV counted layers
)


def is_beyond(key: str) -> bool:
    """Whether an array is no part of a body; `key` is its name once renamed to ours, where it has one."""
    return _BEYOND.fullmatch(key) is not None


def _bodies(prefix: str) -> list[tuple[str, tuple[Rule, ...]]]:
    """An array that only files of this body have, and the body's rules, for every body that MMPose has names for."""
    found = []
    for layout in (each for each in mmpose.LAYOUTS if each.name == "MMPose 1.x"):
        own = next(key for key in layout.signature if key.startswith(BODY)).removeprefix(BODY)
        inner = [(theirs.removeprefix(BODY), ours) for theirs, ours in layout.rules if theirs.startswith(BODY)]
        found.append((prefix + own, under(prefix, "", inner)))
    return found


# blocks count from 1; the first one does not widen, so its layers count from the depthwise one
_MOBILENET_V2: tuple[Rule, ...] = (
    ("features.0.0", "stem.conv"),
    ("features.0.1", "stem.bn"),
    ("features.18.0", "last.conv"),
    ("features.18.1", "last.bn"),
    ("features.1.conv.0.0", "blocks.0.depthwise.conv"),
    ("features.1.conv.0.1", "blocks.0.depthwise.bn"),
    ("features.1.conv.1", "blocks.0.project.conv"),
    ("features.1.conv.2", "blocks.0.project.bn"),
    ("features.{i+1}.conv.0.0", "blocks.{i}.expand.conv"),
    ("features.{i+1}.conv.0.1", "blocks.{i}.expand.bn"),
    ("features.{i+1}.conv.1.0", "blocks.{i}.depthwise.conv"),
    ("features.{i+1}.conv.1.1", "blocks.{i}.depthwise.bn"),
    ("features.{i+1}.conv.2", "blocks.{i}.project.conv"),
    ("features.{i+1}.conv.3", "blocks.{i}.project.bn"),
)


class _GluonClassifier:
    """GluonCV's structural names, which its pose networks have under other parents."""

    name = "GluonCV"

    def recognise(self, keys: Sequence[str]) -> bool:
        resnet = {"layer1.0.conv1.weight", "bn1.gamma"} <= set(keys)
        return resnet or ("features.1.gamma" in keys and any(key.startswith("output.") for key in keys))

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        poses = {key: self._in_a_pose_network(key, set(keys)) for key in keys}
        renamed = gluoncv.rename(poses.values())
        return {key: renamed[pose] for key, pose in poses.items()}

    @staticmethod
    def _in_a_pose_network(key: str, keys: set[str]) -> str:
        first, _, rest = key.partition(".")
        if first in ("conv1", "bn1"):
            return f"resnet.{int(first == 'bn1')}.{rest}"
        if re.fullmatch(r"layer[1-4]", first):
            return f"resnet.{int(first[-1]) + 3}.{rest}"
        if first != "features":
            return key
        number, _, leaf = rest.partition(".")
        # MobileNetV3 has one more convolution behind its pool, the only one without BatchNorm
        if leaf == "weight" and number.isdecimal() and f"features.{int(number) + 1}.gamma" not in keys:
            return f"output.{rest}"
        return f"features.0.{rest}"


# in this order, the most special first
LAYOUTS: tuple[Layout, ...] = (
    _GluonClassifier(),
    *(KeyMap("OpenMMLab", (own,), rules) for own, rules in _bodies(BODY)),
    KeyMap("torchvision", ("features.0.0.weight", "features.18.0.weight"), under("", BODY, _MOBILENET_V2)),
    *(KeyMap("PyTorch", (own,), rules) for own, rules in _bodies("")),
)
