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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.cpu import multiplies_bytes
from posezoo.crop import normalise
from posezoo.deploy.metadata import metadata_of
from posezoo.deploy.ranges import MODES, tensor_ranges
from posezoo.errors import PosezooError, require, unknown_name
from posezoo.files import check_writable

if TYPE_CHECKING:
    from posezoo.deploy.rounding import Rounded
    from posezoo.deploy.runtimes import Runtime
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

SUFFIXES = {"openvino": ".xml", "onnx": ".onnx"}
"""The runtimes that a network can be quantised for, and the suffix of the file."""
WEIGHTS = ("auto", "7bit", "8bit")
MAX_ERROR = 5.0
FITTED_ON, RANKED_ON = 64, 8  # crops: to fit the weights to, and to rank the convolutions by

Progress = Callable[[str, int, int], None]
Judge = Callable[[Path], float]


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
        error: of the heatmaps, in percent, see `heatmap_error`.
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
    name_or_file: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, random: bool = False
) -> Network:
    """A network with its weights, as a graph that can be quantised; arguments as for `posezoo.deploy.export.export`.

    Raises:
        PosezooError: an unknown model, no weights, a detector, or a missing extra.
    """
    torch = require("torch", "torch", "quantisation")
    for module in ("onnx", "onnxscript"):
        require(module, "deploy", "quantisation")
    from posezoo.deploy import graph, moves, qdq
    from posezoo.deploy.export import _load, fold_batchnorm
    from posezoo.deploy.phases import split_transposed
    from posezoo.estimator import NetworkSpec

    loaded = _load(name_or_file, weights, random)
    if not loaded.values.get("skeleton"):
        raise PosezooError(f"{loaded.name} is a detector: only pose networks are quantised")
    spec = NetworkSpec.of(loaded.values)
    network = split_transposed(fold_batchnorm(loaded.module))
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

    Raises:
        PosezooError: as `prepare`; an unknown runtime or mode, no crop, crops of another size, a file that cannot be
            written; a bound that not even floating point keeps.
    """
    started, path = time.perf_counter(), Path(path)
    check_request(path, runtime, mode, weight_bits)
    if max_drop is not None and judge is None:
        raise PosezooError(
            "a largest drop needs a labelled set to measure it on; without one bound the heatmaps' error"
        )
    if not isinstance(network, Network):
        network = prepare(network, weights, random)
    random = network.weights == "random"
    batches = [np.ascontiguousarray(batch) for batch in crops]
    _check_crops(batches, network.spec)
    search = _Search(
        network=network,
        runtime=runtime,
        bits=bits_for(weight_bits),
        crops=np.concatenate(batches),
        check=check if check is not None and len(check) else np.concatenate(batches),
        max_error=None if random else max_error,
        max_drop=max_drop,
        judge=judge,
        report=progress or (lambda what, done, total: None),
    )
    from posezoo.deploy.write import write_network

    with tempfile.TemporaryDirectory(prefix="posezoo-", ignore_cleanup_errors=True) as folder:
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


def heatmap_error(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """How far heatmaps are from others, in percent: the root of the squared differences over that of the squares."""
    return 100 * float(np.linalg.norm(given - wanted) / (np.linalg.norm(wanted) or 1.0))


def files_of(path: Path) -> list[Path]:
    """The file, and the one beside it that an .xml has."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]


def open_file(path: Path, threads: int | None = None) -> Runtime:
    """A file ready to compute on the CPU, by the runtime that its suffix is of."""
    from posezoo.deploy.runtimes import open_onnx, open_openvino

    return (open_openvino if path.suffix.lower() == ".xml" else open_onnx)(path, "cpu", threads)


@dataclass(frozen=True)
class _Found:
    """A graph, and how good it is."""

    proto: Any
    left_out: tuple[str, ...]
    error: float
    drop: float | None


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for a graph in 8 bits that is within its bounds; fields as the arguments of `quantize`."""

    network: Network
    runtime: str
    bits: int
    crops: NDArray[np.uint8]
    check: NDArray[np.uint8]
    max_error: float | None
    max_drop: float | None
    judge: Judge | None
    report: Progress

    @property
    def names(self) -> list[str]:
        """The convolutions that can be quantised, in their order."""
        from torch import nn

        from posezoo.deploy.qdq import convolutions

        modules = dict(self.network.module.named_modules())
        return [name for name in convolutions(self.network.proto) if isinstance(modules.get(name), nn.Conv2d)]

    def run(self, folder: Path, mode: str) -> _Found:
        """Quantise, and leave more and more out until it is good enough."""
        import torch

        from posezoo.deploy.equalise import equalised
        from posezoo.deploy.moves import shared_ranges
        from posezoo.deploy.qdq import convolutions, last_convolutions
        from posezoo.deploy.rounding import layer_errors, round_weights

        network, planes = self.network, self.network.planes
        few, fewer = (planes(spread(self.crops, count)) for count in (FITTED_ON, RANKED_ON))
        nodes = {name: node for name, node in convolutions(network.proto).items() if name in self.names}
        proto, module = equalised(network.proto, network.module, nodes, few)
        ranges = tensor_ranges(
            proto,
            [planes(crop[None]) for crop in self.crops],
            mode,
            lambda done, total: self.report("ranges", done, total),
        )
        ranges = shared_ranges(proto, ranges)
        rounded = round_weights(
            module,
            torch.from_numpy(few),
            self.names,
            self.bits,
            lambda done, total: self.report("weights", done, total),
        )
        before = folder / f"before{SUFFIXES[self.runtime]}"
        network.write(before)
        wanted = self._maps(before)
        score = None if self.judge is None else self.judge(before)
        left_out = last_convolutions(proto)  # nothing comes after them that would make up for 256 levels
        ranked: list[tuple[str, float]] = []
        while True:
            found = self._try(folder, proto, ranges, rounded, left_out, wanted, score)
            excess = self._excess(found)
            if excess <= 1:
                return found
            if len(left_out) == len(self.names):
                raise PosezooError(f"{network.name} is not within the bound even where no convolution is quantised")
            if not ranked:
                errors = layer_errors(
                    module,
                    torch.from_numpy(fewer),
                    rounded,
                    lambda done, total: self.report("ranking", done, total),
                )
                ranked = [each for each in errors.items() if each[0] not in left_out]
            count = enough([error for _, error in ranked], excess)
            left_out, ranked = [*left_out, *(name for name, _ in ranked[:count])], ranked[count:]

    def _maps(self, file: Path) -> NDArray[np.float32]:
        runtime = open_file(file)
        return np.concatenate([runtime(self.network.planes(crop[None]))[0] for crop in self.check])

    def _try(
        self,
        folder: Path,
        proto: Any,
        ranges: Mapping[str, tuple[float, float]],
        rounded: Mapping[str, Rounded],
        left_out: Sequence[str],
        wanted: NDArray[np.float32],
        score: float | None,
    ) -> _Found:
        from posezoo.deploy.qdq import quantised
        from posezoo.deploy.write import write_network

        proto = quantised(proto, ranges, rounded, self.bits, left_out)
        file = folder / f"int8{SUFFIXES[self.runtime]}"
        write_network(proto, file, metadata_of(self.network.spec, self.network.entry, "int8"))
        error = heatmap_error(wanted, self._maps(file))
        drop = None if self.judge is None or score is None else score - self.judge(file)
        return _Found(proto, tuple(left_out), error, drop)

    def _excess(self, found: _Found) -> float:
        """How many times as far off as it may be; 1 or less where it is good enough."""
        bounds = ((found.error, self.max_error), (found.drop, self.max_drop))
        excesses = (value / max(most, 1e-9) for value, most in bounds if value is not None and most is not None)
        return max(excesses, default=0.0)


def enough(errors: Sequence[float], excess: float) -> int:
    """How many of the worst convolutions to leave out, so that an error that is `excess` times too large is not.

    Errors of many layers add up as their squares do.

    Args:
        errors: of the convolutions, the worst first; at least one.
        excess: above 1.
    """
    squares = np.cumsum(np.square(errors))
    return min(int(np.searchsorted(squares, squares[-1] * (1 - excess**-2))) + 1, len(errors))


def spread(crops: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """So many of the crops, evenly spread over them; all where there are no more."""
    return crops[np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int)]


def check_request(path: Path, runtime: str, mode: str, weight_bits: str) -> None:
    """See that a file can be asked for like that, before any work is done.

    Raises:
        PosezooError: an unknown runtime, mode or width, a path with another suffix, or a missing extra.
    """
    if runtime not in SUFFIXES:
        raise unknown_name("runtime to quantise for", runtime, SUFFIXES)
    if mode not in MODES:
        raise unknown_name("calibration mode", mode, MODES)
    if weight_bits not in WEIGHTS:
        raise unknown_name("width of weights", weight_bits, WEIGHTS)
    if path.suffix.lower() != SUFFIXES[runtime]:
        raise PosezooError(f"{path} must end in {SUFFIXES[runtime]}, as files for {runtime} do")
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
