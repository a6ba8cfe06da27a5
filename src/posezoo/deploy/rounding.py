"""Weights rounded to few levels so that what a convolution gives, not the weights, stays what it was.

One weight after the other is rounded, and those that are not rounded yet make up for the error: by how much, the
inverse of the inputs' second moments says (Frantar et al. 2023, "GPTQ", arXiv 2210.17323, section 3). The bias makes up
for what is left of the mean (Nagel et al. 2019, "Data-free quantization", arXiv 1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = {7: 64, 8: 127}  # of either sign, by the bits of a weight
_LONGEST = 2304  # weights of one output: longer sums average their errors out, and their moments take long
_COLUMNS = 16384  # places of the input whose moments are taken
_BLOCK = 128
_DAMPING = 0.001  # of the mean of the diagonal: what a few crops say of the moments is not all there is


@dataclass(frozen=True)
class Rounded:
    """The numbers of a convolution.

    Attributes:
        weight: as `torch.nn.Conv2d` has it; whole multiples of the largest of each channel / `LEVELS`.
        bias: (channels,).
        low: of the inputs that were seen; 0 or less.
        high: of the inputs that were seen; 0 or more.
    """

    weight: Tensor
    bias: Tensor
    low: float
    high: float


@torch.no_grad()
def round_weights(
    module: nn.Module,
    planes: Tensor,
    names: Collection[str],
    bits: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Rounded]:
    """Rounded numbers for the convolutions of a network, which itself stays as it is.

    Args:
        module: in eval mode; each of the convolutions has a bias.
        planes: (N, 3, h, w) float32, inputs to fit the numbers to; a few dozen crops do.
        names: of the convolutions.
        bits: of a weight, 7 or 8.
        progress: called after each with how many are done, and of how many.
    """
    found: dict[str, Rounded] = {}

    def fit(name: str, conv: nn.Conv2d, x: Tensor, output: Tensor) -> None:
        if name in found:  # it is used more than once
            return
        weight = _round(conv, x, LEVELS[bits])
        assert conv.bias is not None
        change = output.mean((0, 2, 3)) - conv._conv_forward(x, weight, conv.bias).mean((0, 2, 3))
        low, high = (float(value) for value in x.aminmax())
        found[name] = Rounded(weight, conv.bias.detach() + change, min(low, 0.0), max(high, 0.0))
        if progress is not None:
            progress(len(found), len(names))

    hooks = []
    for name in names:
        conv = module.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        hooks.append(
            conv.register_forward_hook(lambda conv, inputs, output, name=name: fit(name, conv, inputs[0], output))
        )
    try:
        module(planes)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def layer_errors(
    module: nn.Module,
    planes: Tensor,
    rounded: Mapping[str, Rounded],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """How wrong the network's output becomes when one convolution alone computes in 8 bits, worst first.

    Args:
        module: as for `round_weights`.
        planes: (N, 3, h, w) float32; a few crops do.
        rounded: what `round_weights` found.
        progress: called after each with how many are done, and of how many.

    Returns:
        The error by the convolution's name, as `relative_error` has it.
    """
    wanted = module(planes)
    errors = {}
    for number, (name, numbers) in enumerate(rounded.items(), 1):
        conv = module.get_submodule(name)
        hook = conv.register_forward_hook(
            lambda conv, inputs, output, numbers=numbers: _as_quantised(conv, inputs[0], numbers)
        )
        try:
            errors[name] = float((module(planes) - wanted).norm() / wanted.norm())
        finally:
            hook.remove()
        if progress is not None:
            progress(number, len(rounded))
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _as_quantised(conv: nn.Conv2d, x: Tensor, numbers: Rounded) -> Tensor:
    """What the convolution gives with rounded weights and inputs."""
    step = (numbers.high - numbers.low) / 255
    if step:
        zero = round(-numbers.low / step)
        x = ((x / step).round_().add_(zero).clamp_(0, 255).sub_(zero)).mul_(step)
    return conv._conv_forward(x, numbers.weight, numbers.bias)


def _round(conv: nn.Conv2d, x: Tensor, levels: int) -> Tensor:
    """The weights, rounded for the inputs `x`."""
    weight = conv.weight.detach()
    rows = weight.reshape(conv.groups, -1, weight[0].numel())
    steps = rows.abs().amax(2, keepdim=True) / levels
    steps[steps == 0] = 1
    if rows.shape[2] > _LONGEST:
        return ((rows / steps).round() * steps).reshape(weight.shape)
    return _feed_back(rows, steps, levels, _moments(conv, x)).reshape(weight.shape)


def _moments(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The mean of u u' over the inputs u of one output, (groups, K, K) for K weights an output."""
    rows, columns = (int(side) for side in conv.padding)
    x = F.pad(x, (columns, columns, rows, rows))
    per_output = conv.weight[0].numel()
    total, count = x.new_zeros(conv.groups, per_output, per_output), 0
    for number, picture in enumerate(x):
        places = F.unfold(picture[None], conv.kernel_size, conv.dilation, stride=conv.stride)
        step = -(-places.shape[2] * len(x) // _COLUMNS)
        part = places[0, :, number % step :: step].reshape(conv.groups, per_output, -1)
        total.baddbmm_(part, part.transpose(1, 2))
        count += part.shape[2]
    return total / max(count, 1)


def _feed_back(rows: Tensor, steps: Tensor, levels: int, moments: Tensor) -> Tensor:
    """Round (groups, outputs, K) weights to whole `steps`, each error passed on to the weights that come after.

    The largest weight of an output keeps its value: by it the step is found again.
    """
    size = rows.shape[2]
    damping = moments.diagonal(dim1=1, dim2=2).mean(1) * _DAMPING
    damping[damping == 0] = 1  # no input of this group is ever anything but zero
    moments = moments + torch.eye(size) * damping[:, None, None]
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    left, rounded = rows.clone(), torch.empty_like(rows)
    largest = rows.abs() == rows.abs().amax(2, keepdim=True)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = torch.empty_like(left[:, :, start:end])
        for k in range(start, end):
            one = slice(k, k + 1)
            whole = (left[:, :, one] / steps).round().clamp(-levels, levels) * steps
            rounded[:, :, one] = torch.where(largest[:, :, one], rows[:, :, one], whole)
            error = (left[:, :, one] - rounded[:, :, one]) / factor[:, one, one]
            left[:, :, k:end] -= error * factor[:, one, k:end]
            errors[:, :, k - start : k - start + 1] = error
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return rounded
