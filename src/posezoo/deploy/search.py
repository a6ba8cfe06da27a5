"""The search for a graph in 8 bits that is near enough to what it was: the worst convolutions are left as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.metadata import metadata_of
from posezoo.deploy.ranges import tensor_ranges
from posezoo.errors import PosezooError

if TYPE_CHECKING:
    from posezoo.deploy.quantize import Network
    from posezoo.deploy.rounding import Rounded
    from posezoo.deploy.runtimes import Runtime

FITTED_ON, RANKED_ON = 64, 8  # crops: to fit the weights to, and to rank the convolutions by

Progress = Callable[[str, int, int], None]
Judge = Callable[[Path], float]


@dataclass(frozen=True)
class Found:
    """A graph, and how good it is; fields as those of `posezoo.deploy.quantize.Quantized`."""

    proto: Any
    left_out: tuple[str, ...]
    error: float
    drop: float | None


@dataclass(frozen=True, eq=False)
class Search:
    """The search for a graph in 8 bits that is within its bounds; fields as the arguments of `quantize`.

    Attributes:
        suffix: of the files, which says whose they are.
        check: crops to measure the error on.
        report: what `quantize` calls progress.
    """

    network: Network
    suffix: str
    bits: int
    crops: NDArray[np.uint8]
    check: NDArray[np.uint8]
    max_error: float | None
    max_drop: float | None
    judge: Judge | None
    report: Progress
    threads: int

    @property
    def names(self) -> list[str]:
        """The convolutions that can be quantised, in their order."""
        from torch import nn

        from posezoo.deploy.qdq import convolutions

        modules = dict(self.network.module.named_modules())
        return [name for name in convolutions(self.network.proto) if isinstance(modules.get(name), nn.Conv2d)]

    def run(self, folder: Path, mode: str) -> Found:
        """Quantise, and leave more and more out until it is good enough."""
        import torch

        from posezoo.deploy.equalise import equalised
        from posezoo.deploy.moves import shared_ranges
        from posezoo.deploy.qdq import convolutions, last_convolutions
        from posezoo.deploy.rounding import layer_errors, round_weights

        network, planes = self.network, self.network.planes
        few, fewer = (planes(spread(self.crops, count)) for count in (FITTED_ON, RANKED_ON))
        nodes = {name: node for name, node in convolutions(network.proto).items() if name in self.names}
        proto, module = equalised(network.proto, network.module, nodes, few, self.threads)
        ranges = tensor_ranges(
            proto,
            [planes(crop[None]) for crop in self.crops],
            mode,
            lambda done, total: self.report("ranges", done, total),
            self.threads,
        )
        ranges = shared_ranges(proto, ranges)
        rounded = round_weights(
            module,
            torch.from_numpy(few),
            self.names,
            self.bits,
            lambda done, total: self.report("weights", done, total),
        )
        before = folder / f"before{self.suffix}"
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
        runtime = open_file(file, self.threads)
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
    ) -> Found:
        from posezoo.deploy.qdq import quantised
        from posezoo.deploy.write import write_network

        proto = quantised(proto, ranges, rounded, self.bits, left_out)
        file = folder / f"int8{self.suffix}"
        write_network(proto, file, metadata_of(self.network.spec, self.network.entry, "int8"))
        error = heatmap_error(wanted, self._maps(file))
        drop = None if self.judge is None or score is None else score - self.judge(file)
        return Found(proto, tuple(left_out), error, drop)

    def _excess(self, found: Found) -> float:
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


def heatmap_error(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """How far heatmaps are from others, in percent: the root of the squared differences over that of the squares."""
    return 100 * float(np.linalg.norm(given - wanted) / (np.linalg.norm(wanted) or 1.0))


def open_file(path: Path, threads: int | None = None) -> Runtime:
    """A file ready to compute on the CPU, by the runtime that its suffix is of."""
    from posezoo.deploy.runtimes import open_onnx, open_openvino

    return (open_openvino if path.suffix.lower() == ".xml" else open_onnx)(path, "cpu", threads)
