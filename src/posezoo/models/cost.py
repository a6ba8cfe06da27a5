"""Counting what a network costs, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from posezoo.models.build import outline
from posezoo.zoo.costs import Cost


def count_cost(arch: str, joints: int, size_wh: Sequence[int]) -> Cost:
    """Parameters and multiply-adds of one crop.

    Args:
        arch: a name that `build` knows.
        joints: how many joints it predicts (0 for a detector).
        size_wh: width and height of its input.
    """
    model = outline(arch, joints).eval()
    crop = torch.empty(1, 3, int(size_wh[1]), int(size_wh[0]), device="meta")
    summary = 0

    def add(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal summary
        positions = 1 if isinstance(layer, nn.Linear) else output[0, 0].numel()
        summary += layer.weight.numel() * positions

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(crop)
    for hook in hooks:
        hook.remove()
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    arrays = sum(not key.endswith("num_batches_tracked") for key in model.state_dict())
    return Cost(params, counter.get_total_flops() // 2, summary, arrays)
