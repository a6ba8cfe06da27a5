"""Transposed convolutions as ordinary ones, which every runtime computes fast in INT8 too.

The outputs of a transposed convolution of stride s whose row and column leave the same remainders by s, a phase, see
the same weights: they are an ordinary convolution of the input by every s-th weight (Shi et al. 2016, "Is the
deconvolution layer the same as a convolutional layer?", arXiv 1609.07009). A pixel shuffle puts the s * s phases in
their places. No multiplication is added, and none is left out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posezoo.errors import PosezooError


def split_transposed(module: nn.Module) -> nn.Module:
    """A copy in which every transposed convolution with a stride is a `PhaseConv`: the same result to 1e-5.

    Fold a BatchNorm that follows one first: afterwards a pixel shuffle stands between the two.
    """
    if isinstance(module, nn.ConvTranspose2d):
        return PhaseConv(module) if max(module.stride) > 1 else copy.deepcopy(module)
    module = copy.deepcopy(module)
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.ConvTranspose2d) and max(child.stride) > 1:
            module.set_submodule(name, PhaseConv(child))
    return module


@dataclass(frozen=True)
class _Phase:
    """What the outputs `y = stride * n + remainder` of one dimension are made of.

    Output y is the sum of `x[i] * w[y + padding - stride * i]`. With `y + padding = stride * m + first` that is the sum
    over j of `x[m - j] * w[first + stride * j]`, and m runs from `(remainder + padding) // stride` on.

    Attributes:
        first: the first of its weights; the others follow in steps of the stride.
        before: zeros that the input needs before its first value.
        after: zeros that it needs after its last.
    """

    first: int
    before: int
    after: int

    @classmethod
    def of(cls, remainder: int, kernel: int, stride: int, padding: int, extra: int) -> _Phase:
        """Where `extra` is the transposed convolution's output padding."""
        start, first = divmod(remainder + padding, stride)
        taps = max(1, -(-(kernel - first) // stride))
        last = -(-(kernel - 2 * padding + extra) // stride) - 1  # of the output, from the input's last
        return cls(first, taps - 1 - start, last + start)


class PhaseConv(nn.Module):
    """What a transposed convolution computes, as stride * stride convolutions and a pixel shuffle.

    Args:
        transposed: of any kernel, padding and groups; the same stride both ways, and no dilation.

    Raises:
        PosezooError: it has a dilation, or strides that differ.
    """

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        super().__init__()
        stride = transposed.stride[0]
        if transposed.stride != (stride, stride) or transposed.dilation != (1, 1):
            raise PosezooError(f"a transposed convolution of this kind cannot be split into phases: {transposed}")
        padding = [int(side) for side in transposed.padding]
        sides = list(zip(transposed.kernel_size, padding, transposed.output_padding, strict=True))
        rows, columns = ([_Phase.of(r, k, stride, p, extra) for r in range(stride)] for k, p, extra in sides)
        self.stride = stride
        self.grow = [kernel - stride - 2 * pad + extra for kernel, pad, extra in sides]
        self.cuts = any(side % stride for side in self.grow)
        pairs = [(row, column) for row in rows for column in columns]
        self.pads = [(column.before, column.after, row.before, row.after) for row, column in pairs]
        self.convs = nn.ModuleList(_convolution(transposed, row.first, column.first) for row, column in pairs)
        self.train(transposed.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ...), of the height and width that the transposed convolution gives."""
        phases = [conv(F.pad(x, pads) if any(pads) else x) for conv, pads in zip(self.convs, self.pads, strict=True)]
        out = F.pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), self.stride)
        if not self.cuts:
            return out
        height, width = (side * self.stride + grow for side, grow in zip(x.shape[2:], self.grow, strict=True))
        return out[:, :, :height, :width].contiguous()


def _convolution(transposed: nn.ConvTranspose2d, row: int, column: int) -> nn.Conv2d:
    """The convolution of one phase: the weights from `row` and `column` on in steps of the stride, in reverse."""
    stride, groups = transposed.stride[0], transposed.groups
    weight = transposed.weight[:, :, row::stride, column::stride]
    if not weight.numel():  # the kernel is shorter than the stride: nothing but the bias reaches this phase
        weight = transposed.weight.new_zeros((*weight.shape[:2], max(1, weight.shape[2]), max(1, weight.shape[3])))
    inputs, outputs, *size = weight.shape
    conv = nn.Conv2d(inputs, outputs * groups, (size[0], size[1]), groups=groups, bias=transposed.bias is not None)
    with torch.no_grad():
        by_group = weight.reshape(groups, inputs // groups, outputs, *size).transpose(1, 2)
        conv.weight = nn.Parameter(by_group.flatten(0, 1).flip(-1, -2).contiguous())
        if transposed.bias is not None:
            conv.bias = nn.Parameter(transposed.bias.detach().clone())
    return conv
