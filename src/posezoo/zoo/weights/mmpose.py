"""Names of MMPose 0.x ("keypoint_head") and 1.x ("head")."""

from __future__ import annotations

from posezoo.zoo.weights.bodies import DECONV_HEAD, HRNET, MOBILENET_V2, RESNET, RESNET_D
from posezoo.zoo.weights.layout import KeyMap, Rule, under

_GATED: tuple[Rule, ...] = (
    ("layer{i}.{j}.se_layer.conv1.conv", "layer{i}.{j}.se.reduce"),
    ("layer{i}.{j}.se_layer.conv2.conv", "layer{i}.{j}.se.expand"),
    *RESNET,
)
# an array that only this backbone has, whether its head begins with deconvolutions, its rules; the most special first
_BACKBONES: tuple[tuple[str, bool, tuple[Rule, ...]], ...] = (
    ("stem.2.conv.weight", True, RESNET_D),
    ("conv2.conv.weight", True, MOBILENET_V2),
    ("transition1.0.0.weight", False, HRNET),
    ("conv1.weight", True, _GATED),
)

LAYOUTS: tuple[KeyMap, ...] = tuple(
    KeyMap(
        name,
        (f"backbone.{array}", f"{head}.final_layer.weight", *([f"{head}.deconv_layers.0.weight"] if deconv else [])),
        (*under("backbone.", "backbone.", rules), *under(f"{head}.", "head.", DECONV_HEAD)),
    )
    for name, head in (("MMPose 0.x", "keypoint_head"), ("MMPose 1.x", "head"))
    for array, deconv, rules in _BACKBONES
)
