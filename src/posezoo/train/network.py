"""The network of a run: what it starts from, and the average of its weights."""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posezoo.errors import PosezooError
from posezoo.models.build import build, outline
from posezoo.models.mobile_fpn import FoldedMobileNetV2, init_backbone
from posezoo.skeletons import get_skeleton
from posezoo.train.fit import find_backbone, start_entry
from posezoo.train.recipe import Recipe
from posezoo.zoo.entry import Entry
from posezoo.zoo.store import find_weights
from posezoo.zoo.weights import load_weights, read_weights
from posezoo.zoo.weights.partial import load_backbone, load_fitting

_MOST_NAMED = 4  # layers that a note names one by one
_COLOURS = ("channels", "mean", "std")  # what a network is used to, of entries and of recipes


def make_model(recipe: Recipe, joints: int, fill: bool = True, tell: Callable[[str], object] = print) -> nn.Module:
    """The recipe's network with what it starts from.

    Args:
        recipe: its `model` says what the network is and starts from.
        joints: how many it predicts; 0 for a detector.
        fill: whether to load what it starts from; no need to where a checkpoint of the run follows.
        tell: takes each line on what was loaded and on what was left as it was drawn.

    Raises:
        PosezooError: weights that cannot be had or read, or are another network's.
    """
    model = build(recipe.model.arch, joints)
    if fill:
        for note in _fill(model, recipe, joints):
            tell(note)
    if recipe.model.freeze >= 0:
        backbone = getattr(model, "backbone", None)
        if not isinstance(backbone, FoldedMobileNetV2):
            raise PosezooError("model.freeze is for networks on a folded MobileNetV2 (mobile_pose_fpn)")
        backbone.freeze(recipe.model.freeze)
    return model


def _fill(model: nn.Module, recipe: Recipe, joints: int) -> Iterator[str]:
    """Load what the recipe says; yields what is worth knowing of it."""
    given = recipe.model
    if given.backbone is not None and (given.weights is None or given.transfer):
        yield _fill_backbone(model, recipe)
    if given.weights is None:
        return
    entry = start_entry(given.weights)
    path = Path(given.weights) if entry is None else find_weights(entry, entry.weights)
    where = str(path) if entry is None else f"{entry.name} ({path})"
    if given.transfer:
        like = None if entry is None else outline(entry.arch, _joints(entry))
        taken = load_fitting(model, path, given.arch, joints, like)
        arrays = f"{taken.taken} of {taken.taken + len(taken.fresh)} arrays"
        yield f"begins with {arrays} from {where}; fresh: {_named(taken.fresh)}"
    else:
        load_weights(model, path)
        yield f"begins from {where}"
    if entry is not None:
        yield from _differences(entry, recipe)


def _fill_backbone(model: nn.Module, recipe: Recipe) -> str:
    path = find_backbone(recipe)
    if path is None:
        places = dict.fromkeys((str(recipe.data.root / str(recipe.model.backbone)), str(recipe.model.backbone)))
        raise PosezooError(f"model.backbone: no file {' or '.join(places)}")
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, FoldedMobileNetV2):
        init_backbone(backbone, _folded_arrays(path))
        return f"begins with the backbone of {path}"
    taken = load_backbone(model, path, recipe.model.arch)
    note = f"begins with the backbone of {path} ({taken.layout} names, {taken.taken} arrays)"
    if taken.fresh:
        note += f"; fresh, for a plain ResNet has none: {_named(taken.fresh)}"
    return note + (f"; not taken: {_named(taken.unused)}" if taken.unused else "")


def _folded_arrays(path: Path) -> Mapping[str, NDArray[np.generic]]:
    if path.suffix != ".npz":
        return {key: array.numpy() for key, array in read_weights(path).items()}
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as err:
        raise PosezooError(f"cannot read backbone weights {path}: {err}") from None


def _joints(entry: Entry) -> int:
    return len(get_skeleton(entry.skeleton)) if entry.skeleton else 0


def _differences(entry: Entry, recipe: Recipe) -> Iterator[str]:
    """In what the start was used to something else, where that does not show in its shapes."""
    if recipe.task != "pose":
        return  # a detector's colours are not the recipe's to say
    if not recipe.model.transfer and entry.skeleton != recipe.data.skeleton:
        yield f"its last layer predicts {entry.skeleton} to begin with: joints take over by number, not by name"
    used, here = ({key: _text(getattr(of, key)) for key in _COLOURS} for of in (entry, recipe.input))
    other = [f"{key} {used[key]}, not {here[key]}" for key in _COLOURS if used[key] != here[key]]
    if other:
        yield f"it was trained on other inputs: {'; '.join(other)}"


def _text(value: str | tuple[float, ...]) -> str:
    return value if isinstance(value, str) else " ".join(f"{number:g}" for number in value)


def _named(keys: Sequence[str]) -> str:
    """The layers of these arrays; where they are many, those that differ in a number are one."""
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    if len(layers) > _MOST_NAMED:
        layers = list(dict.fromkeys(re.sub(r"\d+", "*", layer) for layer in layers))
    more = f" and {len(layers) - _MOST_NAMED} more" if len(layers) > _MOST_NAMED else ""
    return ", ".join(layers[:_MOST_NAMED]) + more


def norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers whose statistics depend on who else is in the batch."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


class Ema:
    """The running average of a network's weights and statistics; its decay warms up, so that the start is forgotten."""

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        now = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1 - now)
        for mean, value in pairs:
            if not mean.is_floating_point():  # counters of BatchNorm
                mean.copy_(value)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
