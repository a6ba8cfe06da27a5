"""A device that is none: its tensors are the CPU's in disguise, and an operation that mixes both fails.

What would fail on a GPU for a tensor left behind fails here, with the same rules: a tensor without dimensions may come
from the CPU, an index may, a copy may go either way. Nothing is said of speed or rounding.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default}
INDEXED |= {aten._index_put_impl_.default}


class Pretended(Tensor):
    """A tensor that says it is on a device; `held` is what it is on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Pretended:
        # else it could be no view of one that was made outside
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            made = Tensor._make_wrapper_subclass(
                cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                device=device,
            )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Pretended({self.held}, {self.device})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # read back on the CPU

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def numpy(self) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy: use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.held.tolist()


class Pretend(TorchDispatchMode):
    """While it is entered, tensors can be brought to the device, and be made there from nothing."""

    def __enter__(self) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor` copies where we see it
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, by the rules of devices."""
    leaves = tree_leaves((args, kwargs))
    there = {id(value.held): value for value in leaves if isinstance(value, Pretended)}
    place = next((value.device for value in there.values()), None)
    if there and func is not aten.copy_.default:
        may_be_here = args[1] if func in INDEXED and isinstance(args[0], Pretended) else ()
        for value in leaves:
            left = isinstance(value, Tensor) and value.ndim and not isinstance(value, Pretended)
            if left and not any(value is index for index in may_be_here):
                raise RuntimeError(f"Expected all tensors to be on the same device: not all of {func} are on {place}")
    asked = next((value for value in leaves if isinstance(value, torch.device)), place)
    result = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    if func is aten.copy_.default:
        return args[0]
    if asked is None or asked.type == "cpu":
        return result

    def dressed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return there[id(value)] if id(value) in there else Pretended(value, asked)  # the one that was changed in place

    return tree_map(dressed, result)


def bare(value: Any) -> Any:
    """What the CPU computes with."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, Pretended) else value
