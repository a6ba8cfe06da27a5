"""What 8 bits cost and gain: the table of GluonCV's INT8 page, for one network, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from posezoo.deploy.calibrate import Labelled
from posezoo.deploy.quantize import Network
from posezoo.deploy.search import open_file

ROUNDS, WARM_UP = 10, 2


@dataclass(frozen=True)
class Latency:
    """Of a batch of one person, before and after, by the clock.

    Attributes:
        fp32_ms: in single precision, by the same runtime.
        int8_ms: in 8 bits.
        threads: that computed both.
        device: where.
    """

    fp32_ms: float
    int8_ms: float
    threads: int
    device: str

    @property
    def ratio(self) -> float:
        """How many times as fast."""
        return self.fp32_ms / self.int8_ms


@dataclass(frozen=True)
class Judged:
    """A labelled set as the judge of `quantize`; it keeps what it said.

    Attributes:
        labelled: the set. Its people are looked for in their own boxes.
        progress: called with the pictures done and their number.
        threads: of the CPU; None: `posezoo.deploy.runtimes.default_threads`.
        figures: the dataset's main figure of each file that was judged, its name and its value in points.
    """

    labelled: Labelled
    progress: Callable[[int, int], None] | None = None
    threads: int | None = None
    figures: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, file: Path) -> float:
        """The figure of a network's file."""
        from posezoo.evaluate.protocol import get_protocol
        from posezoo.evaluate.report import PERCENT, ordered
        from posezoo.evaluate.run import run_evaluation

        protocol = get_protocol("plain", self.labelled.dataset).with_overrides(["boxes=gt"])
        with tempfile.TemporaryDirectory(prefix="posezoo-") as folder:
            report = run_evaluation(
                str(file),
                self.labelled.dataset,
                list(self.labelled.images),
                self.labelled.annotations,
                protocol,
                Path(folder),
                device="cpu",
                progress=self.progress,
                threads=self.threads,
                shard=(0, 1),
            )
        assert report is not None
        name = ordered(report.metrics, self.labelled.dataset)[0]
        points = report.metrics[name] * (1 if self.labelled.dataset in PERCENT else 100)
        self.figures.append((name, points))
        return points


def latency(network: Network, quantised: Path, threads: int | None = None) -> Latency:
    """Time a network before and after, in turns, on one crop.

    Args:
        network: that was quantised.
        quantised: the file.
        threads: of the CPU; None: as many as `posezoo.deploy.runtimes.default_threads` says.
    """
    import numpy as np

    from posezoo.bench.measure import Contestant, race, time_call

    width, height = network.spec.input_size_wh
    crop = network.planes(np.random.default_rng(0).integers(0, 256, (1, height, width, 3)).astype(np.uint8))
    with tempfile.TemporaryDirectory(prefix="posezoo-", ignore_cleanup_errors=True) as folder:
        before = Path(folder) / f"before{quantised.suffix.lower()}"
        network.write(before)
        runtimes = [open_file(file, threads) for file in (before, quantised)]
        timings = race([Contestant(partial(runtime, crop), time_call) for runtime in runtimes], ROUNDS, WARM_UP)
    fp32, int8 = (1000 * timing.latency for timing in timings)
    return Latency(fp32, int8, runtimes[1].threads, runtimes[1].device)
