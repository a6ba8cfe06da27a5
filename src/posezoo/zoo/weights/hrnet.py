"""Names of HRNet's code and of Simple Baselines, on which it is built: no prefix. AlphaPose's HRNet has them too."""

from __future__ import annotations

from posezoo.zoo.weights.bodies import DECONV_HEAD, HRNET, RESNET
from posezoo.zoo.weights.layout import KeyMap, under

LAYOUTS: tuple[KeyMap, ...] = (
    KeyMap(
        "HRNet",
        ("conv2.weight", "transition1.0.0.weight", "final_layer.weight"),
        (*under("", "backbone.", HRNET), ("final_layer", "head.final")),
    ),
    KeyMap(
        "Simple Baselines",
        ("conv1.weight", "deconv_layers.0.weight", "final_layer.weight"),
        (*under("", "backbone.", RESNET), *under("", "head.", DECONV_HEAD)),
    ),
)
