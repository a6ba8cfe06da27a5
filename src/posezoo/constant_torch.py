"""Numbers that do not change, as tensors where they are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def constant(device: torch.device, make: Callable[..., Any], *arguments: Any) -> Tensor:
    """`make(*arguments)`, an array, as a tensor on `device`.

    On a GPU it is made once and kept: a copy to it would wait for all that it was told to do before, and no CUDA graph
    can be captured of that.

    Args:
        device: where.
        make: gives the array.
        arguments: of `make`, hashable.
    """
    if device.type == "cpu" or torch.compiler.is_compiling():  # a tracer writes constants into its graph
        return torch.tensor(make(*arguments), device=device)
    return _kept(device, make, *arguments)


@functools.cache
def _kept(device: torch.device, make: Callable[..., Any], *arguments: Any) -> Tensor:
    with torch.inference_mode(False):  # else no later gradient could flow past it
        return torch.tensor(make(*arguments), device=device)
