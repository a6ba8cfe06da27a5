"""Names of the published stacked hourglasses: pytorch-pose's, Princeton's and MMPose's."""

from __future__ import annotations

from posezoo.zoo.weights.layout import KeyMap, Rule, under

_PARTS = ("up1", "low1", "low3")
# an hourglass holds the next smaller one as its "low2", four times
_PLACES = [(depth, part) for depth in range(4) for part in _PARTS]
_SMALLEST = "low2.low2.low2.low2"


def _ours(depth: int, part: str) -> str:
    return "stages.{i}.hourglass." + depth * "low2." + part


# counts from the smallest size; blocks are numbered at each place
_PYTORCH_POSE: tuple[Rule, ...] = (
    ("conv1", "stem.0.conv"),
    ("bn1", "stem.0.bn"),
    ("layer1.0.downsample.0", "stem.1.skip"),
    ("layer2.0.downsample.0", "stem.3.skip"),
    ("layer1.0", "stem.1"),
    ("layer2.0", "stem.3"),
    ("layer3.0", "stem.4"),
    *((f"hg.{{i}}.hg.{3 - depth}.{_PARTS.index(part)}", _ours(depth, part)) for depth, part in _PLACES),
    ("hg.{i}.hg.0.3", _ours(0, _SMALLEST)),
    ("res.{i}", "stages.{i}.blocks"),
    ("fc.{i}.0", "stages.{i}.feature.conv"),
    ("fc.{i}.1", "stages.{i}.feature.bn"),
    ("score.{i}", "stages.{i}.heatmaps"),
    ("fc_.{i}", "stages.{i}.from_feature"),
    ("score_.{i}", "stages.{i}.from_heatmaps"),
)

_BLOCK: tuple[Rule, ...] = (
    ("conv{n}.conv", "conv{n}"),
    ("bn{n}", "bn{n}"),
    ("skip_layer.conv", "skip"),
)
_PRINCETON: tuple[Rule, ...] = (
    ("pre.0", "stem.0"),
    *under("pre.{i}.", "stem.{i}.", _BLOCK),
    *(
        rule
        for depth, part in [*_PLACES, (0, _SMALLEST)]
        for rule in under("hgs.{i}.0." + depth * "low2." + part + ".", _ours(depth, part) + ".0.", _BLOCK)
    ),
    *under("features.{i}.0.", "stages.{i}.blocks.0.", _BLOCK),
    ("features.{i}.1", "stages.{i}.feature"),
    ("outs.{i}.conv", "stages.{i}.heatmaps"),
    ("merge_features.{i}.conv.conv", "stages.{i}.from_feature"),
    ("merge_preds.{i}.conv.conv", "stages.{i}.from_heatmaps"),
)

_MMPOSE_BACKBONE: tuple[Rule, ...] = (
    ("stem.0", "stem.0"),
    ("stem.1.0", "stem.1"),
    ("hourglass_modules.{i}", "stages.{i}.hourglass"),
    ("out_convs.{i}", "stages.{i}.feature"),
    ("conv1x1s.{i}", "stages.{i}.from_input"),
    ("remap_convs.{i}", "stages.{i}.from_feature"),
    ("inters.{i}", "stages.{i}.block"),
)


def _mmpose(version: str, head: str) -> KeyMap:
    finals = f"{head}.multi_final_layers"
    return KeyMap(
        f"MMPose {version} hourglass",
        ("backbone.hourglass_modules.0.up1.0.conv1.weight", f"{finals}.0.weight"),
        (*under("backbone.", "", _MMPOSE_BACKBONE), (finals + ".{i}", "stages.{i}.heatmaps")),
    )


LAYOUTS: tuple[KeyMap, ...] = (
    KeyMap("pytorch-pose", ("hg.0.hg.0.0.0.conv1.weight", "score.0.weight"), _PYTORCH_POSE),
    KeyMap("Princeton hourglass", ("pre.0.conv.weight", "outs.0.conv.weight"), _PRINCETON),
    _mmpose("0.x", "keypoint_head"),
    _mmpose("1.x", "head"),
)
