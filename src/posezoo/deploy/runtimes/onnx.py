"""ONNX Runtime: part of the core install."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.metadata import METADATA_KEY, parse_metadata
from posezoo.deploy.runtimes.base import check_kind, first_line, none_of, refused, settle_precision, settle_threads
from posezoo.errors import PosezooError


@dataclass(frozen=True)
class OnnxRuntime:
    """An ONNX Runtime session; see `open_onnx`."""

    session: Any
    device: str
    precision: str = "fp32"
    threads: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)
    name: str = "onnx"

    def __call__(self, batch: NDArray) -> list[NDArray[np.float32]]:
        """Every output for a batch; see `Runtime`."""
        if not len(batch):
            return none_of(self, batch)
        try:
            return self.session.run(None, {self.session.get_inputs()[0].name: np.ascontiguousarray(batch)})
        except Exception as err:  # the binding has no common base class for its errors
            raise refused(batch, err) from err

    def metadata(self) -> Mapping[str, Any]:
        """What posezoo wrote beside the graph when it exported it; empty where it did not."""
        return self.values


def open_onnx(
    file: str | os.PathLike[str], device: str = "auto", threads: int | None = None, precision: str = "auto"
) -> OnnxRuntime:
    """An ONNX Runtime session that prints nothing; arguments as for `open_runtime`."""
    import onnxruntime as ort

    check_kind(Path(file))
    ort.set_default_logger_severity(3)
    has_cuda = onnx_has_cuda()
    if device == "cuda" and not has_cuda:
        raise PosezooError("this ONNX Runtime has no CUDA: pip install onnxruntime-gpu, or choose --device cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = settle_threads(threads)
    # detector and pose network take turns: the one that rests must not spin on the cores of the other
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = ort.InferenceSession(os.fspath(file), options, providers=providers)
    except Exception as err:  # the binding has no common base class for its errors
        raise PosezooError(f"ONNX Runtime cannot load {os.fspath(file)}: {first_line(err)}") from None
    on_cuda = "CUDAExecutionProvider" in session.get_providers()
    if device == "cuda" and not on_cuda:
        raise PosezooError("ONNX Runtime found no usable CUDA device: choose --device cpu")
    values = parse_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""), file)
    stored = values.get("precision") or _stored_precision(file)
    computed = settle_precision(precision, stored, os.fspath(file), "ONNX Runtime")
    return OnnxRuntime(session, "cuda" if on_cuda else "cpu", computed, options.intra_op_num_threads, values)


def onnx_has_cuda() -> bool:
    """Whether the ONNX Runtime that is installed is the build for CUDA."""
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


def _stored_precision(file: str | os.PathLike[str]) -> str:
    """Of another's file: "int8" where its operators are a quantised graph's; their names stand in it as they are."""
    with Path(file).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return "int8" if any(content.find(name) >= 0 for name in (b"QuantizeLinear", b"ConvInteger")) else "fp32"
