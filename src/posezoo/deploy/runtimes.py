"""Runtimes: one call that computes a network, whatever computes it.

ONNX Runtime is part of the core install and, on a CPU, faster than torch; torch runs whatever the zoo can build.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError, require, unknown_name

if TYPE_CHECKING:
    from posezoo.zoo import Entry

RUNTIMES = ("auto", "onnx", "torch")
DEVICES = ("auto", "cpu", "cuda")
METADATA_KEY = "posezoo"


class Runtime(Protocol):
    """A network that is ready to compute."""

    @property
    def name(self) -> str:
        """What computes it, "onnx" or "torch"."""
        ...

    @property
    def device(self) -> str:
        """Where, "cpu" or "cuda"."""
        ...

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output for a batch of (N, 3, h, w) float32, in the network's order, each of length N."""
        ...


@dataclass(frozen=True)
class OnnxRuntime:
    """An ONNX Runtime session; see `open_onnx`."""

    session: Any
    device: str
    name: str = "onnx"

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output for a batch of (N, 3, h, w) float32."""
        if not len(batch):  # a fused graph may refuse to reshape nothing; the shapes of the rest are those of one crop
            return [output[:0] for output in self(np.zeros((1, *batch.shape[1:]), np.float32))]
        try:
            return self.session.run(None, {self.session.get_inputs()[0].name: np.ascontiguousarray(batch)})
        except Exception as err:  # the binding has no common base class for its errors
            raise PosezooError(f"the network refused an input of shape {batch.shape}: {_first_line(err)}") from err

    def metadata(self) -> dict[str, Any]:
        """What posezoo wrote beside the graph when it exported it; empty where it did not."""
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
        try:
            found = json.loads(text) if text else {}
        except json.JSONDecodeError as err:
            raise PosezooError(f"the model's '{METADATA_KEY}' metadata is not JSON: {err}") from None
        if not isinstance(found, dict):
            raise PosezooError(f"the model's '{METADATA_KEY}' metadata must be an object, but is {text[:60]}")
        return found


@dataclass(frozen=True)
class TorchRuntime:
    """A torch module in eval mode; see `open_torch`."""

    module: Any
    device: str
    name: str = "torch"

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output for a batch of (N, 3, h, w) float32."""
        import torch

        with torch.inference_mode():
            out = self.module(torch.from_numpy(np.ascontiguousarray(batch)).to(self.device))
        outputs = out.values() if isinstance(out, dict) else [out] if isinstance(out, torch.Tensor) else out
        return [tensor.float().cpu().numpy() for tensor in outputs]


def open_runtime(
    model: Entry | str | os.PathLike[str],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Runtime:
    """Make a zoo entry or an .onnx file ready to compute.

    Args:
        model: an entry of the zoo, or the path of an .onnx file.
        runtime: "onnx", "torch", or "auto": ONNX where there is a file for it, else torch.
        device: "cpu", "cuda", or "auto": CUDA where the runtime has it, else the CPU.
        threads: how many CPU threads to use; None: as many as this process may.
        weights: a checkpoint, or an .onnx file, instead of the entry's own weights.

    Raises:
        PosezooError: an unknown runtime or device, no such file, no weights for the runtime, or no CUDA.
    """
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES, f"(valid: {', '.join(DEVICES)})")
    if threads is not None and threads < 1:
        raise PosezooError(f"threads must be 1 or more, but is {threads}")
    source = weights if weights is not None else model
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".onnx":
        if runtime == "torch":
            raise PosezooError(f"{os.fspath(source)} is an ONNX file: the torch runtime cannot run it")
        return open_onnx(source, device, threads)
    if isinstance(model, str | os.PathLike):
        raise PosezooError(f"{os.fspath(model)} is not an .onnx file")
    packaged = packaged_onnx(model) if weights is None else None
    # asked for CUDA and left to choose: torch, where ONNX Runtime is the build without it
    prefers_torch = runtime == "auto" and device == "cuda" and not _onnx_has_cuda()
    if runtime != "torch" and packaged is not None and not prefers_torch:
        return open_onnx(packaged, device, threads)
    if runtime == "onnx":
        raise PosezooError(f"there is no ONNX file for {model.name}: run it with the torch runtime (--runtime torch)")
    return open_torch(model, device, threads, weights)


def packaged_onnx(entry: Entry) -> Path | None:
    """The ONNX file of an entry that ships inside the package, or None."""
    from posezoo.zoo import packaged_file

    return packaged_file(entry, ".onnx")


def open_onnx(file: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> OnnxRuntime:
    """An ONNX Runtime session that prints nothing; arguments as for `open_runtime`."""
    import onnxruntime as ort

    if not Path(file).is_file():
        raise PosezooError(f"no such file: {os.fspath(file)}")
    ort.set_default_logger_severity(3)
    has_cuda = _onnx_has_cuda()
    if device == "cuda" and not has_cuda:
        raise PosezooError("this ONNX Runtime has no CUDA: pip install onnxruntime-gpu, or choose --device cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads if threads is not None else _limited_threads()
    # detector and pose network take turns: the one that rests must not spin on the cores of the other
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = ort.InferenceSession(os.fspath(file), options, providers=providers)
    except Exception as err:  # the binding has no common base class for its errors
        raise PosezooError(f"ONNX Runtime cannot load {os.fspath(file)}: {_first_line(err)}") from None
    on_cuda = "CUDAExecutionProvider" in session.get_providers()
    if device == "cuda" and not on_cuda:
        raise PosezooError("ONNX Runtime found no usable CUDA device: choose --device cpu")
    return OnnxRuntime(session, "cuda" if on_cuda else "cpu")


def open_torch(
    entry: Entry,
    device: str = "auto",
    threads: int | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> TorchRuntime:
    """An entry's torch module with its weights, in eval mode; arguments as for `open_runtime`."""
    torch = require("torch", "torch", f"running {entry.name} with torch")
    from posezoo.zoo import get_model

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise PosezooError("torch found no CUDA device: choose --device cpu")
    if threads is not None or _limited_threads():
        torch.set_num_threads(threads if threads is not None else _limited_threads())
    place = "cuda" if has_cuda and device != "cpu" else "cpu"
    module = get_model(entry.name, pretrained=True if weights is None else os.fspath(weights))
    return TorchRuntime(module.to(place).eval(), place)


def _onnx_has_cuda() -> bool:
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


def _limited_threads() -> int:
    """How many CPUs this process may use where that is fewer than the machine has, else 0 (the runtime decides).

    A container sees every core of its host; a thread for each would fight over the few that it was given.
    """
    total = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        pass
    return allowed if allowed < total else 0


def _first_line(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(err).__name__
