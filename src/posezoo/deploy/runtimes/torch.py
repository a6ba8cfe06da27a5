"""PyTorch: runs whatever the zoo can build, on the CPU or on CUDA, as it is or compiled."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.metadata import METADATA_FILE, parse_metadata, weights_metadata
from posezoo.deploy.runtimes.base import check_kind, none_of, refused, settle_precision, settle_threads
from posezoo.errors import PosezooError, require

if TYPE_CHECKING:
    from posezoo.zoo import Entry

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "float32"}  # of what goes in
_HALVES = ("bf16", "fp16")


@dataclass(frozen=True)
class TorchRuntime:
    """A torch module in eval mode; see `open_torch`.

    Attributes:
        module: takes a batch, as `Runtime` does, and gives a tensor, or several.
        device: where its weights are.
        name: "torch" or "torch-compile".
        precision: of its weights.
        limit: threads of the CPU to use; None: as many as torch does.
        values: what its file says.
        fixed: whether its weights and their places in memory change no more, so that its work may be recorded.
    """

    module: Any
    device: str
    name: str = "torch"
    precision: str = "fp32"
    limit: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False

    @property
    def threads(self) -> int:
        """With how many threads of the CPU."""
        import torch

        return self.limit or torch.get_num_threads()

    def metadata(self) -> Mapping[str, Any]:
        """What posezoo wrote into the file; empty where there was none."""
        return self.values

    def __call__(self, batch: NDArray) -> list[NDArray[np.float32]]:
        """Every output for a batch; see `Runtime`."""
        import torch

        if not len(batch):
            return none_of(self, batch)
        if self.threads != torch.get_num_threads():  # torch has one number for the whole process
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                x = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
                if x.is_floating_point():
                    x = x.to(getattr(torch, _DTYPES[self.precision]), memory_format=torch.channels_last)
                if self.name == "torch-compile" and len(x) > 1:  # once for every size, and once for a batch of one
                    torch._dynamo.maybe_mark_dynamic(x, 0)
                out = self.module(x)
        except torch.OutOfMemoryError:
            raise PosezooError(f"the GPU's memory does not hold a batch of {len(batch)}: --batch-size less") from None
        except (RuntimeError, AssertionError) as err:  # the latter is an exported program's
            raise refused(batch, err) from err
        outputs = out.values() if isinstance(out, dict) else [out] if isinstance(out, torch.Tensor) else out
        return [tensor.float().cpu().numpy() for tensor in outputs]


def open_torch(
    model: Entry | str | os.PathLike[str],
    device: str = "auto",
    threads: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    precision: str = "auto",
    *,
    compiled: bool = False,
) -> TorchRuntime:
    """A torch module with its weights, in eval mode and channels_last; arguments as for `open_runtime`.

    That format is 8 to 20 % faster on a CPU, for every kind of network. In half precision, and to be compiled, the
    norms are folded into the convolutions first, in single precision.

    Args:
        model: an entry of the zoo; a .pt2 file; or a .safetensors file that says its architecture.
        device: see there.
        threads: see there.
        weights: a checkpoint instead of the entry's own weights.
        precision: see there.
        compiled: by `torch.compile`, at the first call.
    """
    named = os.fspath(model) if isinstance(model, str | os.PathLike) else model.name
    torch = require("torch", "torch", f"running {named} with torch")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise PosezooError("torch found no CUDA device: choose --device cpu")
    place = "cuda" if has_cuda and device != "cpu" else "cpu"
    limit = settle_threads(threads)
    torch.set_num_threads(limit)
    is_program = Path(named).suffix.lower() == ".pt2"
    module, values = _load_program(Path(named), place) if is_program else torch_module(model, weights)
    stored = values.get("precision", "fp32")
    chosen = settle_precision(precision, stored, named, "an exported program", () if is_program else _HALVES)
    if not is_program and (compiled or chosen in _HALVES):
        from posezoo.deploy.export import fold_batchnorm

        module = fold_batchnorm(module).to(dtype=getattr(torch, _DTYPES[chosen]))
    module = module.to(device=place, memory_format=torch.channels_last)
    if compiled:
        module = _compiled(module)
    return TorchRuntime(module, place, "torch-compile" if compiled else "torch", chosen, limit, values, fixed=True)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads of the CPU, and afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_module(
    model: Entry | str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """The module of an entry (with its own weights or these), or of a .safetensors file; and what the file says.

    Raises:
        PosezooError: the weights are not there, do not fit, or do not say of which network they are.
    """
    if not isinstance(model, str | os.PathLike):
        from posezoo.zoo import get_model

        return get_model(model.name, pretrained=True if weights is None else os.fspath(weights)), {}
    require("torch", "torch", f"running {os.fspath(model)} with torch")
    values = weights_metadata(model)
    from posezoo.models.build import build
    from posezoo.skeletons import get_skeleton
    from posezoo.zoo import get_entry, list_models
    from posezoo.zoo.weights import load_weights

    skeleton = values.get("skeleton")
    if not skeleton and values["arch"] not in {get_entry(name).arch for name in list_models(task="detection")}:
        raise PosezooError(
            f"{os.fspath(model)} does not say which joints its network finds: name the model, and give the file as "
            f"its weights (-m NAME --weights {os.fspath(model)})"
        )
    module = build(values["arch"], len(get_skeleton(skeleton).joints) if skeleton else 0, filled=False)
    return load_weights(module, model).eval(), values


def _load_program(path: Path, place: str) -> tuple[Any, dict[str, Any]]:
    """The module of a `torch.export` file on a device, and what the file says."""
    import torch

    check_kind(path)
    if not zipfile.is_zipfile(path):
        raise PosezooError(f"{path} is not a whole .pt2 file")
    extra = {METADATA_FILE: ""}
    log = logging.getLogger("torch.export")
    silent, log.disabled = log.disabled, True  # it prints a page for what is said here in a line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path, extra_files=extra)
            if place != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, place)
    except Exception as err:  # whatever a damaged archive, or one of another version, brings about
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise PosezooError(f"{path} is no program that torch {torch.__version__} can load: {reason}") from None
    finally:
        log.disabled = silent
    return program.module(), parse_metadata(extra[METADATA_FILE], path)


def _compiled(module: Any) -> Any:
    """A module that inductor compiles when it is first called.

    Without `freezing`, which folds norms into transposed convolutions wrongly; they have been folded already.
    """
    import torch

    return torch.compile(module)
