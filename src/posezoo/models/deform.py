"""Deformable convolution (arXiv 1703.06211; modulated, arXiv 1811.11168): every tap of a kernel reads where it is told.

Written with operations that every device, exporter and runtime has. torchvision's own kernel is taken where it imports.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution; arguments and result are those of `torchvision.ops.deform_conv2d`.

    Args:
        x: (B, C, H, W). It is zero outside, and bilinear between pixels.
        offset: (B, 2 g k, h, w) in pixels of `x`, for k taps and g groups of the channels: all taps of the first group,
            row by row, each as (dy, dx); then the next group.
        weight: (outputs, C, kernel height, kernel width).
        bias: (outputs,).
        stride: of height and width, as are the next two.
        padding: how far the first output lies outside of `x`.
        dilation: distance of the taps.
        mask: (B, g k, h, w), a factor for each value read, or None.

    Returns:
        (B, outputs, h, w).
    """
    batch, channels, height, width = x.shape
    outputs, _, rows, columns = weight.shape
    out_h, out_w = offset.shape[-2:]
    groups = offset.shape[1] // (2 * rows * columns)
    # half precision would place what is read wrongly by up to 1/32 pixel
    exact = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    moved = offset.to(exact).reshape(batch * groups, rows, columns, 2, out_h, out_w)
    y_at = moved[:, :, :, 0] + _regular(rows, out_h, stride[0], padding[0], dilation[0], moved)[:, None, :, None]
    x_at = moved[:, :, :, 1] + _regular(columns, out_w, stride[1], padding[1], dilation[1], moved)[:, None, :]
    # in the frame of grid_sample -1 and 1 are the outer edges of the outermost pixels
    grid = torch.stack(((2 * x_at + 1) / width - 1, (2 * y_at + 1) / height - 1), dim=-1)
    read = F.grid_sample(
        x.to(exact).reshape(batch * groups, channels // groups, height, width),
        grid.reshape(batch * groups, rows * columns * out_h, out_w, 2),
        align_corners=False,
    )
    if mask is not None:
        read = read * mask.to(exact).reshape(batch * groups, 1, rows * columns * out_h, out_w)
    patches = read.reshape(batch, channels * rows * columns, out_h * out_w).to(x.dtype)
    out = (weight.flatten(1) @ patches).reshape(batch, outputs, out_h, out_w)
    return out if bias is None else out + bias[:, None, None]


def _regular(taps: int, size: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """(taps, size): where each tap of an ordinary convolution reads for each output, in pixels, along one axis."""
    first = torch.arange(size, dtype=like.dtype, device=like.device) * stride - padding
    return torch.arange(taps, dtype=like.dtype, device=like.device)[:, None] * dilation + first


@cache
def _fastest() -> Callable[..., Tensor]:
    """torchvision's operator, or the one above where torchvision is absent or was built for another torch."""
    try:
        return importlib.import_module("torchvision.ops").deform_conv2d
    except (ImportError, AttributeError, RuntimeError, OSError):
        return deform_conv2d


class DeformConv2d(nn.Conv2d):
    """A convolution without bias that predicts from its input, for each output and tap, where to read.

    With the offsets that it starts with it is an ordinary convolution (half of one, where modulated). A BatchNorm that
    is folded into it gives it a bias.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd kernel size.
        stride: 1 or 2.
        dilation: distance of the kernel's taps.
        deform_groups: groups of the input's channels that read at places of their own.
        modulated: also predict a factor from 0 to 1 for each value read.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        deform_groups: int = 1,
        modulated: bool = False,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.geometry = (stride, stride), (padding, padding), (dilation, dilation)
        self.places = 2 * deform_groups * kernel**2
        self.modulated = modulated
        told = self.places * 3 // 2 if modulated else self.places
        self.offset = nn.Conv2d(inputs, told, kernel, stride, padding, dilation)
        self.reset_offset()

    def reset_offset(self) -> None:
        """Read at the regular places again."""
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        told = self.offset(x)
        mask = told[:, self.places :].sigmoid() if self.modulated else None
        # an exporter or a compiler knows no foreign kernel, and what counts operations sees none inside of it
        traced = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or x.is_meta
        operator = deform_conv2d if traced else _fastest()
        return operator(x, told[:, : self.places], self.weight, self.bias, *self.geometry, mask)
