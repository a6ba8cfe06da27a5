"""A network in 8-bit integers: static, per channel, one file that runs alone, and how far it is from what it was.

The same graph serves both runtimes. It is made in six steps: norms folded and transposed convolutions split; channels
brought nearer to one range; the range of every tensor taken from crops of people; weights rounded so that the outputs
stay; the nodes put in that say what is computed in 8 bits; and, while the result is too far off, the worst convolutions
left as they were.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.cpu import multiplies_bytes
from posezoo.crop import normalise
from posezoo.deploy.metadata import metadata_of
from posezoo.deploy.ranges import MODES
from posezoo.deploy.search import Judge, Progress, Search
from posezoo.errors import PosezooError, require, unknown_name
from posezoo.files import check_writable

if TYPE_CHECKING:
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

SUFFIXES = {"openvino": ".xml", "onnx": ".onnx"}
"""The runtimes that a network can be quantised for, and the suffix of the file."""
WEIGHTS = ("auto", "7bit", "8bit")
MAX_ERROR = 5.0


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to be quantised.

    Attributes:
        name: of the entry or the file that it is from.
        spec: what belongs to its weights.
        entry: of the zoo, or None.
        module: in torch, its norms folded, without a transposed convolution.
        proto: the same as an ONNX graph.
        arch: its architecture.
        weights: as a file's metadata call them: "random", or a file's name; None for the entry's own.
    """

    name: str
    spec: NetworkSpec
    entry: Entry | None
    module: Any
    proto: Any
    arch: str
    weights: str | None

    def write(self, path: Path) -> None:
        """Write it as it is, in single precision."""
        from posezoo.deploy.write import write_network

        write_network(
            self.proto, path, metadata_of(self.spec, self.entry, "fp32", arch=self.arch, weights=self.weights)
        )

    def planes(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What it takes, of (N, h, w, 3) uint8 crops."""
        return normalise(crops, self.spec.mean, self.spec.std, self.spec.channels)


@dataclass(frozen=True)
class Quantized:
    """What `quantize` did.

    Attributes:
        path: the file; of OpenVINO the .xml, whose .bin lies beside it.
        name: what was quantised.
        runtime: "onnx" or "openvino".
        mode: how the ranges were found, one of `posezoo.deploy.ranges.MODES`.
        bits: of a weight.
        calibrated_on: crops.
        checked_on: crops, none of which were among those where `held_back`.
        held_back: whether they were kept out of the calibration.
        error: of the heatmaps, in percent, see `posezoo.deploy.search.heatmap_error`.
        drop: of the judge's figure; None where there was none.
        convolutions: of the network.
        left_out: the names of those that stayed in floating point.
        seconds: it took.
        bytes: the size of the file, or of both.
        random: whether the weights are random.
    """

    path: Path
    name: str
    runtime: str
    mode: str
    bits: int
    calibrated_on: int
    checked_on: int
    held_back: bool
    error: float
    drop: float | None
    convolutions: int
    left_out: tuple[str, ...]
    seconds: float
    bytes: int
    random: bool


def prepare(
    name_or_file: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    random: bool = False,
    threads: int | None = None,
) -> Network:
    """A network with its weights, as a graph that can be quantised.

    Args:
        name_or_file: as for `posezoo.deploy.export.export`.
        weights: as there.
        random: as there.
        threads: of the CPU; None: `posezoo.deploy.runtimes.default_threads`.

    Raises:
        PosezooError: an unknown model, no weights, a detector, or a missing extra.
    """
    torch = require("torch", "torch,deploy", "quantisation")
    for module in ("onnx", "onnxscript"):
        require(module, "deploy", "quantisation")
    from posezoo.deploy import graph, moves, qdq
    from posezoo.deploy.export import _load, fold_batchnorm
    from posezoo.deploy.phases import split_transposed
    from posezoo.deploy.runtimes import settle_threads
    from posezoo.deploy.runtimes.torch import torch_threads
    from posezoo.estimator import NetworkSpec

    with torch_threads(settle_threads(threads)):
        loaded = _load(name_or_file, weights, random)
        if not loaded.values.get("skeleton"):
            raise PosezooError(f"{loaded.name} is a detector: only pose networks are quantised")
        network = split_transposed(fold_batchnorm(loaded.module))
    spec = NetworkSpec.of(loaded.values)
    for conv in network.modules():
        if isinstance(conv, torch.nn.Conv2d) and conv.bias is None:  # rounding moves the mean, and a bias moves it back
            conv.bias = torch.nn.Parameter(torch.zeros(conv.out_channels), requires_grad=False)
    width, height = spec.input_size_wh
    program = graph.trace(network, torch.zeros(2, 3, height, width))
    proto = moves.few_moves(qdq.simplified(graph.to_onnx(program, ["heatmaps"])))
    return Network(loaded.name, spec, loaded.entry, network, proto, loaded.values["arch"], loaded.weights)


def quantize(
    network: Network | str | os.PathLike[str],
    crops: Iterable[NDArray[np.uint8]],
    path: str | os.PathLike[str],
    *,
    runtime: str = "openvino",
    mode: str = "percentile",
    weights: str | os.PathLike[str] | None = None,
    check: NDArray[np.uint8] | None = None,
    weight_bits: str = "auto",
    max_error: float | None = MAX_ERROR,
    max_drop: float | None = None,
    judge: Judge | None = None,
    random: bool = False,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Quantized:
    """Write a network in 8 bits, and measure how far its heatmaps are from those that it gave before.

    Args:
        network: of `prepare`, or what that takes.
        crops: (n, h, w, 3) uint8 RGB each, as `posezoo.crop.crop_images` gives them, to calibrate with.
        path: the file to write, with the suffix of its runtime (`SUFFIXES`); as a whole, or not at all.
        runtime: "openvino" or "onnx".
        mode: how ranges are found, one of `posezoo.deploy.ranges.MODES`.
        weights: a checkpoint instead of the model's own weights.
        check: (N, h, w, 3) crops to measure the error on; None or none: those of the calibration.
        weight_bits: one of `WEIGHTS`; "auto": see `bits_for`.
        max_error: leave convolutions in floating point, the worst first, until the error is no more percent; None: take
            it as it is.
        max_drop: the same for what `judge` says less of the file than of the network before.
        judge: gives a figure for a network's file, the higher the better.
        random: weights drawn at random, for measuring speed alone; they have no error to bound.
        facts: what else the file should say of its calibration.
        progress: called with what is being done, how far it is, and of how much.
        threads: of the CPU, for all but the judge; None: `posezoo.deploy.runtimes.default_threads`. Torch's own number,
            one for the whole process, is afterwards what it was.

    Raises:
        PosezooError: as `prepare`; an unknown runtime or mode, no crop, crops of another size, a file that cannot be
            written; a bound that not even floating point keeps.
    """
    started, path = time.perf_counter(), Path(path)
    from posezoo.deploy.runtimes import settle_threads

    threads = settle_threads(threads)
    check_request(path, runtime, mode, weight_bits, max_drop, random)
    if max_drop is not None and judge is None:
        raise PosezooError(
            "a largest drop needs a labelled set to measure it on; without one bound the heatmaps' error"
        )
    if not isinstance(network, Network):
        network = prepare(network, weights, random, threads)
    random = network.weights == "random"
    batches = [np.ascontiguousarray(batch) for batch in crops]
    _check_crops(batches, network.spec)
    search = Search(
        network=network,
        suffix=SUFFIXES[runtime],
        bits=bits_for(weight_bits),
        crops=np.concatenate(batches),
        check=check if check is not None and len(check) else np.concatenate(batches),
        max_error=None if random else max_error,
        max_drop=max_drop,
        judge=judge,
        report=progress or (lambda what, done, total: None),
        threads=threads,
    )
    from posezoo.deploy.runtimes.torch import torch_threads
    from posezoo.deploy.write import write_network

    with (
        tempfile.TemporaryDirectory(prefix="posezoo-", ignore_cleanup_errors=True) as folder,
        torch_threads(threads),
    ):
        found = search.run(Path(folder), mode)
    held_back = check is not None and len(check) > 0
    told = {
        "mode": mode,
        "crops": len(search.crops),
        "weight_bits": search.bits,
        "left_out": list(found.left_out),
        "heatmap_error_percent": round(found.error, 3),
        "checked_on": len(search.check),
        "held_back": held_back,
        **(facts or {}),
    }
    more = {"arch": network.arch, "weights": network.weights, "calibration": told}
    write_network(found.proto, path, metadata_of(network.spec, network.entry, "int8", **more))
    return Quantized(
        path=path,
        name=network.name,
        runtime=runtime,
        mode=mode,
        bits=search.bits,
        calibrated_on=len(search.crops),
        checked_on=len(search.check),
        held_back=held_back,
        error=found.error,
        drop=found.drop,
        convolutions=len(search.names),
        left_out=found.left_out,
        seconds=time.perf_counter() - started,
        bytes=sum(each.stat().st_size for each in files_of(path)),
        random=random,
    )


def bits_for(weight_bits: str) -> int:
    """How many bits a weight gets: 8 where this machine's sums of products do not saturate; else 7, whose sums cannot.

    A file with weights of 8 bits is for machines like the one that it was made on.
    """
    if weight_bits not in WEIGHTS:
        raise unknown_name("width of weights", weight_bits, WEIGHTS)
    if weight_bits != "auto":
        return int(weight_bits[0])
    return 8 if multiplies_bytes() else 7


def files_of(path: Path) -> list[Path]:
    """The file, and the one beside it that an .xml has."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]


def check_request(
    path: Path, runtime: str, mode: str, weight_bits: str, max_drop: float | None = None, random: bool = False
) -> None:
    """See that a file can be asked for like that, before any work is done; arguments as for `quantize`.

    Raises:
        PosezooError: an unknown runtime, mode or width, a bound for random weights, a path with another suffix, or a
            missing extra.
    """
    if random and max_drop is not None:
        raise PosezooError("--max-drop and --random exclude each other: random weights find nothing to lose")
    if runtime not in SUFFIXES:
        raise unknown_name("runtime to quantise for", runtime, SUFFIXES)
    if mode not in MODES:
        raise unknown_name("calibration mode", mode, MODES)
    if weight_bits not in WEIGHTS:
        raise unknown_name("width of weights", weight_bits, WEIGHTS)
    if path.suffix.lower() != SUFFIXES[runtime]:
        ends = " or ".join(f"{suffix} ({name})" for name, suffix in SUFFIXES.items())
        raise PosezooError(f"{path} does not fit the runtime {runtime}: the file must end in {ends}")
    check_writable(path)
    if runtime == "openvino":
        require("openvino", "deploy", "quantisation for OpenVINO")


def _check_crops(batches: Sequence[NDArray], spec: NetworkSpec) -> None:
    width, height = spec.input_size_wh
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1:] != (height, width, 3) or batch.dtype != np.uint8:
            raise PosezooError(
                f"crops must be (n, {height}, {width}, 3) uint8 arrays, but are {batch.shape} {batch.dtype}"
            )
    if not sum(map(len, batches)):
        raise PosezooError("there is no crop to calibrate with")
