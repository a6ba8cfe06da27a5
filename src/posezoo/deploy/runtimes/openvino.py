"""OpenVINO: the fastest on most CPUs, for float networks and for quantised ones."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.metadata import METADATA_KEY, parse_metadata
from posezoo.deploy.runtimes.base import check_kind, last_line, none_of, refused, settle_precision, settle_threads
from posezoo.errors import PosezooError, require

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}  # of int8, what is not quantised


@dataclass(frozen=True)
class OpenVinoRuntime:
    """A compiled model; see `open_openvino`."""

    compiled: Any
    precision: str = "fp32"
    threads: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    name: str = "openvino"

    def __call__(self, batch: NDArray) -> list[NDArray[np.float32]]:
        """Every output for a batch; see `Runtime`."""
        if not len(batch):
            return none_of(self, batch)
        wanted = self.compiled.input(0)
        shape, kind = wanted.partial_shape, wanted.element_type.to_dtype()
        sizes = [None if size.is_dynamic else size.get_length() for size in shape]
        # it computes nothing, and says nothing, where they do not fit
        if len(sizes) != batch.ndim or any(a not in (None, b) for a, b in zip(sizes, batch.shape, strict=True)):
            raise refused(batch, f"it wants {shape}")
        if kind != batch.dtype:
            raise refused(batch, f"it wants {kind}, and these are {batch.dtype}")
        # a request of its own for each call costs nothing to speak of, and threads may share the network
        found = self.compiled.create_infer_request().infer([np.ascontiguousarray(batch)], share_inputs=True)
        return list(found.values())

    def metadata(self) -> Mapping[str, Any]:
        """What posezoo wrote into the file; empty where it did not."""
        return self.values


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux's sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Give this thread back the stack that its signal handlers run on.

    OpenVINO puts one of its own there for each network, and where several come and go, one is left that is no more:
    then Ctrl-C is a segmentation fault.
    """
    change = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    before = _SignalStack()
    if change is None or change(None, ctypes.byref(before)):
        yield
        return
    try:
        yield
    finally:
        change(ctypes.byref(before), None)


@_own_signal_stack()
def open_openvino(
    file: str | os.PathLike[str], device: str = "auto", threads: int | None = None, precision: str = "auto"
) -> OpenVinoRuntime:
    """An OpenVINO model of an .xml (with its .bin beside it) or .onnx file; arguments as for `open_runtime`.

    It is compiled once, for any batch size: a size of its own each would be 3 to 8 % faster, but must be compiled anew.
    """
    ov = require("openvino", "deploy", "the OpenVINO runtime")
    path = Path(file)
    check_kind(path)
    if device == "cuda":
        raise PosezooError("OpenVINO computes on the CPU here: choose --device cpu, or --runtime torch for CUDA")
    if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
        raise PosezooError(f"{path} is one file of two: {path.with_suffix('.bin').name} must lie beside it")
    front_ends = require("openvino.frontend", "deploy", "the OpenVINO runtime").FrontEndManager()
    try:  # by its own reader: `Core.read_model` tries every one on a file that is damaged, and some of those print
        reader = front_ends.load_by_framework("ir" if path.suffix.lower() == ".xml" else "onnx")
        model = reader.convert(reader.load(path))
    except Exception as err:  # the binding has no common base class for its errors
        raise PosezooError(f"OpenVINO cannot load {path}: {last_line(err)}") from None
    core = ov.Core()
    values = parse_metadata(_metadata(model), path)
    is_quantised = any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops())
    able = {"BF16": "bf16", "FP16": "fp16"}
    also = [able[name] for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") if name in able]
    stored = "int8" if is_quantised else "fp32"
    chosen = settle_precision(precision, stored, path, "OpenVINO on this CPU", () if is_quantised else also)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": settle_threads(threads),
        "INFERENCE_PRECISION_HINT": _HINTS[chosen],  # left alone, it takes bf16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # or two processes of one thread would share the first core
    }
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as err:
        raise PosezooError(f"OpenVINO cannot compile {path}: {last_line(err)}") from None
    return OpenVinoRuntime(compiled, chosen, int(compiled.get_property("INFERENCE_NUM_THREADS")), values)


def _metadata(model: Any) -> str:
    """The JSON in the model's notes; those that an .onnx file has are among its framework's."""
    for place in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(place):
            return str(model.get_rt_info(place).value)
    return ""
