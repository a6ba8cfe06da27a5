"""The names that PyTorch's zoos share for the inside of a network; each zoo puts its own prefixes before them."""

from __future__ import annotations

from posezoo.zoo.weights.layout import Rule

# to the end of the key, so that nothing more special is taken for it
_BLOCKS: tuple[Rule, ...] = (
    ("layer{i}.{j}.conv{k}.weight", "layer{i}.{j}.conv{k}.weight"),
    ("layer{i}.{j}.bn{k}", "layer{i}.{j}.bn{k}"),
)

RESNET: tuple[Rule, ...] = (
    ("conv1", "stem.0.conv"),
    ("bn1", "stem.0.bn"),
    ("layer{i}.{j}.downsample.0", "layer{i}.{j}.downsample.conv"),
    ("layer{i}.{j}.downsample.1", "layer{i}.{j}.downsample.bn"),
    *_BLOCKS,
)

# three convolutions in the stem, and a pool at the head of every shortcut but the first stage's
RESNET_D: tuple[Rule, ...] = (
    ("stem", "stem"),
    ("layer1.{j}.downsample.0", "layer1.{j}.downsample.conv"),
    ("layer1.{j}.downsample.1", "layer1.{j}.downsample.bn"),
    ("layer{i}.{j}.downsample.1", "layer{i}.{j}.downsample.conv"),
    ("layer{i}.{j}.downsample.2", "layer{i}.{j}.downsample.bn"),
    *_BLOCKS,
)

HRNET: tuple[Rule, ...] = (
    ("conv2", "stem.1.conv"),
    ("bn2", "stem.1.bn"),
    *RESNET,
    ("transition{i}", "transition{i}"),
    ("stage{i}", "stage{i}"),
)

# ours counts the blocks through, theirs anew in every layer; falling, for a block is of the last layer not above it
MOBILENET_V2: tuple[Rule, ...] = (
    ("conv1", "stem"),
    ("conv2", "last"),
    *(
        (f"layer{layer}.{{j}}.conv.{index}", f"blocks.{{j+{first}}}.{part}")
        for layer, first in ((7, 16), (6, 13), (5, 10), (4, 6), (3, 3), (2, 1))
        for index, part in enumerate(("expand", "depthwise", "project"))
    ),
    ("layer1.0.conv.0", "blocks.0.depthwise"),
    ("layer1.0.conv.1", "blocks.0.project"),
)

DECONV_HEAD: tuple[Rule, ...] = (
    ("deconv_layers.{3i}", "up.{i}.conv"),
    ("deconv_layers.{3i+1}", "up.{i}.bn"),
    ("final_layer", "final"),
)
