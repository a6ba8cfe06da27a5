"""Names of AlphaPose's networks, as its checkpoints show them. Its HRNet has that code's own."""

from __future__ import annotations

from posezoo.zoo.weights.bodies import DECONV_HEAD, RESNET
from posezoo.zoo.weights.layout import KeyMap, under

_GATED = (
    ("layer{i}.{j}.se.fc.0", "layer{i}.{j}.se.reduce"),
    ("layer{i}.{j}.se.fc.2", "layer{i}.{j}.se.expand"),
    ("layer{i}.{j}.conv2_offset", "layer{i}.{j}.conv2.offset"),
    ("layer{i}.{j}.conv2.1", "layer{i}.{j}.conv2.1"),
    *RESNET,
)

FASTPOSE = KeyMap(
    "AlphaPose FastPose",
    ("preact.conv1.weight", "duc1.conv.weight", "conv_out.weight"),
    (
        *under("preact.", "backbone.", _GATED),
        ("duc{i+1}.conv", "head.duc.{i}.0.conv"),
        ("duc{i+1}.bn", "head.duc.{i}.0.bn"),
        ("conv_out", "head.final"),
    ),
)
# several convolutions after a shuffle: index 0 is the shuffle, then convolution, BatchNorm and ReLU count in threes
FASTPOSE_DUC = KeyMap(
    "AlphaPose FastPose_DUC",
    ("preact.conv1.weight", "duc1.10.weight", "conv_out.weight"),
    (
        *under("preact.", "backbone.", _GATED),
        ("duc{i+1}.{3j+1}", "head.duc.{i}.{j}.conv"),
        ("duc{i+1}.{3j+2}", "head.duc.{i}.{j}.bn"),
        ("conv_out", "head.final"),
    ),
)
SIMPLE_POSE = KeyMap(
    "AlphaPose SimplePose",
    ("preact.conv1.weight", "deconv_layers.0.weight", "final_layer.weight"),
    (*under("preact.", "backbone.", RESNET), *under("", "head.", DECONV_HEAD)),
)

LAYOUTS: tuple[KeyMap, ...] = (FASTPOSE_DUC, FASTPOSE, SIMPLE_POSE)
