"""The network of a run: what it starts from, and the average of its weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posezoo.errors import PosezooError
from posezoo.models.build import build
from posezoo.models.mobile_fpn import FoldedMobileNetV2, init_backbone
from posezoo.train.recipe import Recipe


def make_model(recipe: Recipe, joints: int) -> nn.Module:
    """The recipe's network with what it starts from.

    Raises:
        PosezooError: weights that cannot be read, or are another network's.
    """
    model = build(recipe.model.arch, joints)
    if recipe.model.backbone is not None:
        path = recipe.data.root / recipe.model.backbone
        try:
            with np.load(path) as arrays:
                init_backbone(_backbone(model), dict(arrays))
        except (OSError, ValueError) as err:
            raise PosezooError(f"cannot read backbone weights {path}: {err}") from None
    if recipe.model.weights is not None:
        from posezoo.zoo.weights import load_weights

        load_weights(model, recipe.model.weights)
    if recipe.model.freeze >= 0:
        _backbone(model).freeze(recipe.model.freeze)
    return model


def _backbone(model: nn.Module) -> FoldedMobileNetV2:
    """The backbone that `model.backbone` and `model.freeze` of a recipe speak of."""
    found = getattr(model, "backbone", None)
    if not isinstance(found, FoldedMobileNetV2):
        raise PosezooError("model.backbone and model.freeze are for networks on a folded MobileNetV2 (mobile_pose_fpn)")
    return found


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
