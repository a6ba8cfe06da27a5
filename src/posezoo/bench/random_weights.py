"""Weights for networks whose own are not on this machine: how long a network takes does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posezoo.errors import require

if TYPE_CHECKING:
    from posezoo.zoo import Entry

_CROPS = 2
RANDOM = "random"


def random_weights(entry: Entry, folder: Path) -> Path:
    """A .safetensors file of weights for an entry's network, the same ones each time.

    Each norm keeps the values at the size of 1, as norms do that were trained: else they would grow or shrink from
    layer to layer, to 10^5 or 10^-12, where half precision and INT8 have no numbers for them. It takes no mean away:
    what is left of noise after that is mostly rounding, and no two runtimes would agree.

    Args:
        entry: of the zoo.
        folder: where to write the file, where it is not there yet.

    Raises:
        PosezooError: torch is not installed.
    """
    torch = require("torch", "torch", f"random weights for {entry.name}")
    save_file = require("safetensors.torch", "torch", f"random weights for {entry.name}").save_file
    from posezoo.models.build import build
    from posezoo.skeletons import get_skeleton

    path = folder / f"{entry.name}.{RANDOM}.safetensors"
    if path.is_file():
        return path
    width, height = entry.input_size_wh
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build(entry.arch, len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.register_forward_pre_hook(_fit)
        model(torch.randn(_CROPS, 3, height, width))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def _fit(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Set a norm by what it is about to be given."""
    norm.running_mean.zero_()
    norm.running_var.fill_(inputs[0].square().mean())
