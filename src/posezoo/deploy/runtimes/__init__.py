"""Runtimes: one call that computes a network, whatever computes it.

ONNX Runtime is part of the core install and runs the networks that ship with it. OpenVINO is faster on most CPUs, most
of all for int8. Torch runs whatever the zoo can build, and is the one for CUDA.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from posezoo.deploy.metadata import METADATA_KEY
from posezoo.deploy.runtimes.base import (
    DEVICES,
    PRECISIONS,
    RUNTIMES,
    Runtime,
    default_batch_size,
    default_threads,
    describe,
    saturates,
    settle_precision,
    settle_threads,
)
from posezoo.deploy.runtimes.onnx import OnnxRuntime, onnx_has_cuda, open_onnx
from posezoo.deploy.runtimes.openvino import OpenVinoRuntime, open_openvino
from posezoo.deploy.runtimes.torch import TorchRuntime, open_torch, torch_module
from posezoo.errors import PosezooError, require, unknown_name

if TYPE_CHECKING:
    from posezoo.zoo import Entry

__all__ = [
    "DEVICES",
    "METADATA_KEY",
    "NETWORK_FILES",
    "PRECISIONS",
    "RUNTIMES",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Runtime",
    "TorchRuntime",
    "default_batch_size",
    "default_threads",
    "describe",
    "is_network_file",
    "onnx_has_cuda",
    "open_onnx",
    "open_openvino",
    "open_runtime",
    "open_torch",
    "packaged_onnx",
    "saturates",
    "settle_threads",
    "torch_module",
]

NETWORK_FILES = {
    ".onnx": ("onnx", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch", "torch-compile"),
    ".safetensors": ("torch", "torch-compile", "onnx", "openvino"),
}
"""The suffixes of files that can be run without naming a model, and by what; the first is what "auto" takes."""
_WEIGHTS = ".safetensors"  # the only one of these that may also be the weights of a model that is named


def is_network_file(name: str | os.PathLike[str]) -> bool:
    """Whether this is the name of a file that can be run alone."""
    return Path(name).suffix.lower() in NETWORK_FILES


def open_runtime(
    model: Entry | str | os.PathLike[str],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    precision: str = "auto",
) -> Runtime:
    """Make a zoo entry or a file ready to compute.

    With "auto" a file is run by its own runtime: .onnx by ONNX Runtime, .xml by OpenVINO, .pt2 and .safetensors by
    torch. So is an entry that ships as .onnx, unless it is asked for on CUDA and only torch has that, or in half
    precision. Any other entry is run by torch, at once, on CUDA where there is one. On a CPU "openvino" computes it in
    0.46 to 0.61 of torch's time (one thread; MobileNetV2, ResNet-50, HRNet-w32), but converting it takes 8 to 18 s
    first, which 70 to 530 people make up for: worth asking for then, or once for all with `posezoo export`.

    Args:
        model: an entry of the zoo, or a file: .onnx (for onnx, openvino), .xml with its .bin (openvino), .pt2 (torch,
            torch-compile), or a .safetensors file of `posezoo convert` or `posezoo train`.
        runtime: one of `RUNTIMES`. What there is no file of for onnx or openvino is exported for it, which needs the
            extras torch and deploy.
        device: "cpu", "cuda", or "auto": CUDA where the runtime has it, else the CPU.
        threads: how many CPU threads to use; None: `default_threads`.
        weights: a checkpoint, or a file as above, instead of the entry's own weights.
        precision: one of `PRECISIONS`; "auto": that of the file, and single precision for weights. What is asked for is
            computed, or refused; but on CUDA both torch and ONNX Runtime round what goes into a convolution of single
            precision to 10 bits (TF32), as is their default.

    Raises:
        PosezooError: an unknown runtime, device or precision, no such file or one that the runtime cannot run, no
            weights, a missing extra, or no CUDA.
    """
    for what, given, valid in (("runtime", runtime, RUNTIMES), ("precision", precision, PRECISIONS)):
        if given not in valid:
            raise unknown_name(what, given, valid)
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES, f"(valid: {', '.join(DEVICES)})")
    threads = settle_threads(threads)
    if weights is not None and Path(weights).suffix.lower() in NETWORK_FILES.keys() - {_WEIGHTS}:
        model, weights = weights, None  # the whole network
    if isinstance(model, str | os.PathLike):
        file: Path | None = Path(model)
        name = os.fspath(model)
        _check_file(Path(model), runtime)
        best = NETWORK_FILES[Path(model).suffix.lower()][0]
    else:
        name = model.name
        file = packaged_onnx(model) if weights is None else None
        best = _runtime_for(model, file, device, precision)
    chosen = best if runtime == "auto" else runtime
    if chosen in ("torch", "torch-compile"):
        return open_torch(model, device, threads, weights, precision, compiled=chosen == "torch-compile")
    opener = open_onnx if chosen == "onnx" else open_openvino
    if file is not None and file.suffix.lower() != _WEIGHTS:
        return opener(file, device, threads, precision)
    # what cannot be is said before the long work
    settle_precision(precision, "fp32", name, "ONNX Runtime", () if chosen == "onnx" else ("bf16", "fp16"))
    with _exported(name, weights, chosen) as made:
        return opener(made, device, threads, precision)


def packaged_onnx(entry: Entry) -> Path | None:
    """The ONNX file of an entry that ships inside the package, or None."""
    from posezoo.zoo import packaged_file

    return packaged_file(entry, ".onnx")


def _check_file(path: Path, runtime: str) -> None:
    """See that a file is there, and that a runtime can run it.

    Raises:
        PosezooError: neither.
    """
    able = NETWORK_FILES.get(path.suffix.lower(), ())
    if not able:
        raise PosezooError(f"{path} is no network file: known are {', '.join(NETWORK_FILES)}")
    if not path.is_file():
        raise PosezooError(f"{path} is a folder: name a file in it" if path.is_dir() else f"no such file: {path}")
    if runtime not in ("auto", *able):
        kind = path.suffix.lower()
        raise PosezooError(f"{path}: the {runtime} runtime cannot run it; {kind} files are for {' or '.join(able)}")


def _runtime_for(entry: Entry, file: Path | None, device: str, precision: str) -> str:
    """The best runtime for an entry, which may ship as .onnx; see `open_runtime`."""
    if file is None or precision not in ("auto", "fp32") or (device == "cuda" and not onnx_has_cuda()):
        return "torch"
    return "onnx"


@contextmanager
def _exported(name: str, weights: str | os.PathLike[str] | None, runtime: str) -> Iterator[Path]:
    """A file for a runtime, of a model that there is none of; it is gone when the block ends."""
    if runtime == "openvino":
        require("openvino", "deploy", "the OpenVINO runtime")  # before the long work
    from posezoo.deploy.export import export

    # a runtime may still look into the file when the folder goes, which not every system allows
    with tempfile.TemporaryDirectory(prefix="posezoo-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"network{'.xml' if runtime == 'openvino' else '.onnx'}"
        export(name, path, to=runtime, weights=weights)
        yield path
