"""The range of every tensor of a graph on real inputs: what its 256 levels must span.

* "naive": from the smallest value to the largest.
* "percentile": without the outermost 0.001 % on either side.
* "entropy": the part of that range whose 256 levels lose the least of the values' distribution, by its
  Kullback-Leibler divergence (Migacz 2017, "8-bit inference with TensorRT"; MXNet's `calib_mode="entropy"`). It leaves
  out 0.01 % of the values at most: few of a heatmap's are large, and it is about those.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODES = ("naive", "entropy", "percentile")

_PERCENT = 99.999
_LEAST_KEPT = 0.9999
_BINS = 2048
_LEVELS = 256
_SAMPLES = 16384  # values of a tensor and crop that count in its histogram
_SHARES = np.linspace(0.3, 1.0, 36)  # of the whole range, that "entropy" tries

Range = tuple[float, float]


def tensor_ranges(
    proto: Any,
    batches: Sequence[NDArray[np.float32]],
    mode: str = "naive",
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> dict[str, Range]:
    """The lowest and the highest value of each float tensor that the nodes of a graph make or take.

    Args:
        proto: an `onnx.ModelProto` with one input; not changed.
        batches: (n, 3, h, w) each; every crop is looked at.
        mode: one of `MODES`.
        progress: called with the crops looked at and their number, over both passes where the mode takes two.
        threads: of the CPU; None: `posezoo.deploy.runtimes.default_threads`.
    """
    run = tensors(proto, threads)
    crops = [crop[None] for batch in batches for crop in batch]
    passes = 1 if mode == "naive" else 2
    ranges: dict[str, Range] = {}
    for number, crop in enumerate(crops, 1):
        for name, value in run(crop):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
        if progress is not None:
            progress(number, passes * len(crops))
    if mode == "naive":
        return ranges
    counts = {name: np.zeros(_BINS, np.int64) for name in ranges}
    for number, crop in enumerate(crops, 1):
        for name, value in run(crop):
            step = max(1, value.size // _SAMPLES)
            sample = value.reshape(-1)[number % step :: step]
            counts[name] += np.histogram(sample, _BINS, ranges[name])[0]
        if progress is not None:
            progress(len(crops) + number, passes * len(crops))
    choose = _percentile if mode == "percentile" else _entropy
    return {name: choose(counts[name], *ends) for name, ends in ranges.items()}


def tensors(proto: Any, threads: int | None = None) -> Callable[[NDArray[np.float32]], Iterator[tuple[str, NDArray]]]:
    """What gives, for a batch, the name and the value of the input and of every float tensor in the graph.

    Args:
        proto: an `onnx.ModelProto` with one input; not changed.
        threads: as for `tensor_ranges`.
    """
    import onnx
    import onnxruntime as ort

    from posezoo.deploy.runtimes import settle_threads

    proto = copy.deepcopy(proto)
    known = {each.name for each in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name and name not in known]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = settle_threads(threads)  # left alone it takes every core that it sees
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = (each.name for each in session.get_inputs())
    names = [each.name for each in session.get_outputs() if each.type == "tensor(float)"]

    def run(batch: NDArray[np.float32]) -> Iterator[tuple[str, NDArray]]:
        yield source, batch
        for name, value in zip(names, session.run(names, {source: batch}), strict=True):
            if value.size:
                yield name, value

    return run


def _percentile(counts: NDArray[np.int64], low: float, high: float) -> Range:
    """The range without the outermost values."""
    edges = np.linspace(low, high, _BINS + 1)
    percents = np.cumsum(counts) / counts.sum() * 100
    first = np.searchsorted(percents, 100 - _PERCENT, "right")
    last = np.searchsorted(percents, _PERCENT)
    return float(edges[first]), float(edges[last + 1])


def _entropy(counts: NDArray[np.int64], low: float, high: float) -> Range:
    """The part of the range, both ends drawn in alike, with the least divergence."""
    centres = np.linspace(low, high, 2 * _BINS + 1)[1::2]
    # zero is a level of every range: what is exactly zero, often the most of it, loses nothing
    counts = np.where(np.abs(centres) <= (high - low) / (2 * _BINS), 0, counts)
    if not counts.any():
        return low, high
    best, chosen = np.inf, (low, high)
    for share in _SHARES:
        inside = np.flatnonzero((centres >= low * share) & (centres <= high * share))
        kept = counts[inside]
        if kept.sum() < _LEAST_KEPT * counts.sum():
            continue
        clipped = kept.astype(float)  # what lies outside falls on the ends
        clipped[0] += counts[: inside[0]].sum()
        clipped[-1] += counts[inside[-1] + 1 :].sum()
        level = np.arange(len(kept)) * _LEVELS // len(kept)
        used = np.bincount(level, kept > 0, _LEVELS)
        even = np.bincount(level, kept, _LEVELS) / np.maximum(used, 1)  # within a level nothing is told apart
        divergence = _divergence(clipped, np.where(kept > 0, even[level], 0))
        if divergence < best:
            best, chosen = divergence, (low * share, high * share)
    return float(chosen[0]), float(chosen[1])


def _divergence(wanted: NDArray, given: NDArray) -> float:
    """Kullback-Leibler divergence of two histograms, the empty bins of the second made up for a little."""
    p, q = wanted / wanted.sum(), given / max(given.sum(), 1) + 1e-9
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))
