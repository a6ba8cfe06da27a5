"""BatchNorm as part of the convolution before it: what a trained network computes, in fewer steps."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_Convolution = nn.Conv2d | nn.ConvTranspose2d
_SIDE = 64  # pixels of the picture that shows what follows what; the deepest network here halves it six times


def folded(module: nn.Module) -> nn.Module:
    """A copy in eval mode without the BatchNorms that follow a convolution; see `posezoo.deploy.export`."""
    module = copy.deepcopy(module).eval()
    for norm_name, conv_name in _pairs(module).items():
        norm, conv = module.get_submodule(norm_name), module.get_submodule(conv_name)
        assert isinstance(norm, nn.BatchNorm2d) and isinstance(conv, _Convolution)
        _fold(conv, norm)
        module.set_submodule(norm_name, nn.Identity())
    return module


@torch.no_grad()
def _fold(conv: _Convolution, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the weight and bias with which it computes what the norm makes of its output."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * scale + (0 if norm.bias is None else norm.bias)
    weight = conv.weight
    if isinstance(conv, nn.ConvTranspose2d):  # (inputs, outputs of a group, ...), and the groups lie along the inputs
        by_group = weight.unflatten(0, (conv.groups, -1))
        weight = (by_group * scale.view(conv.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)


class _Uses(TorchFunctionMode):
    """Counts, by the tensor's id, how many operations make another tensor of it; to ask for its shape is none."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if _tensors(found):
            self.of.update(map(id, _tensors((args, kwargs))))
        return found


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _pairs(module: nn.Module) -> dict[str, str]:
    """The names of the norms to fold, and of the convolution before each: no other operation sees what is between.

    Found by one run on the meta device, which computes shapes alone, so that no way of writing a network escapes it.
    """
    module = copy.deepcopy(module).to("meta")
    names = {each: name for name, each in module.named_modules()}
    convolutions = [each for each in names if isinstance(each, _Convolution)]
    if not convolutions:
        return {}
    made: dict[str, list[Tensor]] = {}  # by each convolution; what is kept does not pass its id on
    by: dict[int, str] = {}
    taken: dict[str, list[str | None]] = {}  # by each norm, from which convolution
    uses = _Uses()

    def after(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made.setdefault(names[conv], []).append(output)
        by[id(output)] = names[conv]
        uses.of[id(output)] = 0  # of one that had this id before

    def before(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken.setdefault(names[norm], []).append(by.get(id(inputs[0])))

    for each in names:
        if isinstance(each, _Convolution):
            each.register_forward_hook(after)
        elif isinstance(each, nn.BatchNorm2d) and each.track_running_stats:
            each.register_forward_pre_hook(before)
    picture = torch.zeros(1, convolutions[0].in_channels, _SIDE, _SIDE, device="meta")
    with torch.no_grad(), uses:
        found = module(picture)
    uses.of.update(map(id, _tensors(found)))
    pairs = {}
    for norm, (conv, *others) in taken.items():
        outputs = made[conv] if conv is not None and set(others) <= {conv} else []
        if conv is not None and len(outputs) == len(others) + 1 and all(uses.of[id(each)] == 1 for each in outputs):
            pairs[norm] = conv
    return pairs
