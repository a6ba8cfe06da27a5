"""GluonCV's parameter names to ours.

GluonCV writes either structural names (`save_parameters`: "resnet.4.0.conv1.weight") or the names of the layers as they
were counted in the process that built them (`collect_params().save`: "resnetv1b_layers1_conv0_weight"). The first kind
follows from the name; the second only from the order of the layers, which is the order of ours.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from posezoo.errors import PosezooError
from posezoo.zoo.weights import alphapose

if TYPE_CHECKING:
    from torch import nn

_NORM = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_KINDS = ("weight", "bias", *_NORM)
_INVERTED = ("expand", "depthwise", "project")
_V3_PARTS = {
    "expand": "expand",
    "conv1": "depthwise",
    "conv2": "project",
    "se.conv1": "se.reduce",
    "se.conv2": "se.expand",
}


def is_structural(keys: Sequence[str]) -> bool:
    """Whether `keys` are structural names of a GluonCV pose network."""
    return any(k.endswith((".gamma", ".beta")) for k in keys)


def is_prefix_names(keys: Sequence[str]) -> bool:
    """Whether `keys` are the counted layer names of an old GluonCV file."""
    return bool(keys) and all("." not in k and k.endswith(tuple(f"_{kind}" for kind in _KINDS)) for k in keys)


def rename(keys: Iterable[str]) -> dict[str, str]:
    """GluonCV's structural names to ours; a name that fits no rule maps to itself.

    Args:
        keys: all the names of one file: which network it is shows only in the whole.
    """
    keys = list(keys)
    paths = {k.rpartition(".")[0] for k in keys}
    if "preact.conv1" in paths:  # alpha_pose: AlphaPose's names but for BatchNorm's arrays
        return {key: alphapose.FASTPOSE.to_ours(_torch_leaf(key)) for key in keys}
    resnet = any(p.startswith(("resnet.4.", "features.4.")) for p in paths)
    deep_stem = "resnet.0.0" in paths
    flat = not resnet and not any(".out." in p or ".expand." in p for p in paths)
    renamed = {}
    for key in keys:
        path, _, leaf = key.rpartition(".")
        part = "bn" if leaf in _NORM else "conv"
        if resnet and path.startswith(("resnet.", "features.")):
            ours = _resnet(path.partition(".")[2], part, deep_stem)
        elif path.startswith("features.0."):
            ours = _mobilenet(path.removeprefix("features.0."), part, flat)
        else:
            ours = _head(path, part)
        renamed[key] = f"{ours}.{_NORM.get(leaf, leaf)}" if ours else key
    return renamed


def _torch_leaf(key: str) -> str:
    """`key` with PyTorch's name for the array at its end."""
    path, _, leaf = key.rpartition(".")
    return f"{path}.{_NORM.get(leaf, leaf)}"


def _resnet(path: str, part: str, deep_stem: bool) -> str | None:
    """A path inside the ResNet: children 0 and 1 are the stem, 4 to 7 the stages."""
    if match := re.fullmatch(r"([4-7])\.(\d+)\.((?:conv|bn)\d|downsample)(\.\d)?", path):
        stage, block, name, index = match.groups()
        # a shortcut may have a pool at its head, so the index alone does not say which layer it is
        return f"backbone.layer{int(stage) - 3}.{block}.{name}" + (f".{part}" if index else "")
    if match := re.fullmatch(r"0(?:\.(\d))?", path):
        return f"backbone.stem.{int(match[1] or 0) // 3}.{part}"  # convolution, BatchNorm, ReLU: three indices a layer
    return f"backbone.stem.{2 if deep_stem else 0}.bn" if path == "1" else None


def _mobilenet(path: str, part: str, flat: bool) -> str | None:
    """A path inside a MobileNet: indices 0 to 2 are the stem, then one index a block, or three a layer where `flat`."""
    number, _, rest = path.partition(".")
    if not re.fullmatch(r"[0-9]{1,3}", number):
        return None
    index = int(number)
    if not rest:
        layer = index // 3
        if layer == 0:
            return f"backbone.stem.{part}"
        if not flat:
            return f"backbone.last.{part}"
        return f"backbone.blocks.{(layer - 1) // 2}.{'depthwise' if layer % 2 else 'project'}.{part}"
    block = f"backbone.blocks.{index - 3}"
    if match := re.fullmatch(r"out\.([0-9])", rest):
        # V2's first block (index 3) does not widen, so its layers count from the depthwise one
        layer = int(match[1]) // 3 + (index == 3)
        return f"{block}.{_INVERTED[layer]}.{part}" if layer < 3 else None
    if match := re.fullmatch(r"(expand|conv[12])\.(?:conv|bn)|se\.conv[12]", rest):
        return f"{block}.{_V3_PARTS[match[1]]}.{part}" if match[1] else f"{block}.{_V3_PARTS[rest]}"
    return None


def _head(path: str, part: str) -> str | None:
    """A path inside a head, of deconvolutions or of pixel shuffles."""
    if match := re.fullmatch(r"deconv_layers\.(\d)", path):
        return f"head.up.{int(match[1]) // 3}.{part}"
    if match := re.fullmatch(r"upsampling\.([123])\.(?:conv|bn)", path):
        return f"head.up.{int(match[1]) - 1}.{part}"
    return {"final_layer": "head.final", "upsampling.0": "head.reduce", "upsampling.4": "head.final"}.get(path)


def rename_by_order(keys: Iterable[str], model: nn.Module) -> dict[str, str]:
    """Counted layer names to ours: the n-th array of a kind is the n-th of that kind in `model`.

    Names without a partner map to themselves.

    Args:
        keys: the names in the order of the file.
        model: one of our networks.

    Raises:
        PosezooError: the layers' numbers do not rise, so the order is not the one the network was built in.
    """
    theirs: dict[str, list[str]] = defaultdict(list)
    last: dict[str, list[int]] = {}
    for key in keys:
        theirs[next(kind for kind in _KINDS if key.endswith(f"_{kind}"))].append(key)
        family, numbers = re.sub(r"\d+", "#", key), [int(n) for n in re.findall(r"\d+", key)]
        if family in last and numbers <= last[family]:
            raise PosezooError(f"cannot match layers by order: '{key}' comes after a later one; pass the file itself")
        last[family] = numbers
    ours = _keys_by_kind(model)
    renamed = {key: key for names in theirs.values() for key in names}
    for kind, names in theirs.items():
        renamed.update(zip(names, ours[kind], strict=False))
    return renamed


def _keys_by_kind(model: nn.Module) -> dict[str, list[str]]:
    """Our state keys in the order of the layers, for each of MXNet's kinds of array."""
    import torch

    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    kind_of = {ours: kind for kind, ours in _NORM.items()}
    found: dict[str, list[str]] = defaultdict(list)
    for key in model.state_dict():
        path, _, leaf = key.rpartition(".")
        found[kind_of.get(leaf, leaf) if path in norms else leaf].append(key)
    return found


class _Structural:
    """The names that `save_parameters` writes."""

    name = "GluonCV"

    def recognise(self, keys: Sequence[str]) -> bool:
        return is_structural(keys)

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        return rename(keys)


class _PrefixNames:
    """The names that `collect_params().save` writes."""

    name = "GluonCV (old)"

    def recognise(self, keys: Sequence[str]) -> bool:
        return is_prefix_names(keys)

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        return rename_by_order(keys, model)


STRUCTURAL, PREFIX_NAMES = _Structural(), _PrefixNames()
