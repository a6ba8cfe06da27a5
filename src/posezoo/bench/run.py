"""`benchmark`: networks alone on dummy data, or the whole pipeline on pictures, in every setting asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from posezoo.bench.entrants import Entrant, Setting, check_name, networks, pipelines
from posezoo.bench.measure import TURN_SECONDS, race
from posezoo.bench.rows import Row
from posezoo.deploy.runtimes import settle_threads
from posezoo.errors import PosezooError, unknown_name

MOST_OPEN = 8  # networks that take turns with each other; more would fill the memory
_NO_MEMORY = ("OutOfMemoryError", "MemoryError", "_ArrayMemoryError")  # torch's on a GPU, Python's, numpy's


@dataclass(frozen=True)
class Request:
    """What to measure: every name in every runtime and precision at every batch size.

    Attributes:
        names: models of the zoo, or files.
        runtimes: see `posezoo.deploy.runtimes.RUNTIMES`.
        precisions: see `posezoo.deploy.runtimes.PRECISIONS`.
        batch_sizes: crops a network call; empty: what suits the device.
        threads: of the CPU; None: as many as this process may use.
        device: "auto", "cpu" or "cuda".
        flip: compute the mirrored crops too.
        images: a folder (or a file, or a glob) of pictures for the whole pipeline; None: dummy data for the network.
        weights: a checkpoint instead of the only name's own weights.
        random: random weights, even where a model's own are on this machine.
        rounds: turns of each.
        warmup: calls of each beforehand.
    """

    names: Sequence[str]
    runtimes: Sequence[str] = ("auto",)
    precisions: Sequence[str] = ("auto",)
    batch_sizes: Sequence[int] = ()
    threads: int | None = None
    device: str = "auto"
    flip: bool = False
    images: str | os.PathLike[str] | None = None
    weights: str | os.PathLike[str] | None = None
    random: bool = False
    rounds: int = 10
    warmup: int = 2

    def __post_init__(self) -> None:
        from posezoo.deploy.runtimes import DEVICES, PRECISIONS, RUNTIMES

        for what, given, valid in (
            ("runtime", self.runtimes, RUNTIMES),
            ("precision", self.precisions, PRECISIONS),
            ("device", (self.device,), DEVICES),
        ):
            for name in given:
                if name not in valid:
                    raise unknown_name(what, name, valid)
        counts = [("batch-size", size) for size in self.batch_sizes]
        counts += [("rounds", self.rounds), ("threads", 1 if self.threads is None else self.threads)]
        for what, value in counts:
            if value < 1:
                raise PosezooError(f"{what} must be 1 or more, but is {value}")
        if self.warmup < 0:
            raise PosezooError(f"warmup must be 0 or more, but is {self.warmup}")
        if not self.names:
            raise PosezooError("name a model to measure (posezoo list shows them all), or an exported file")
        if self.weights is not None and len(self.names) > 1:
            raise PosezooError(f"--weights belong to one model, but {len(self.names)} are named")
        if self.weights is not None and self.random:
            raise PosezooError("--weights and --random exclude each other")


@dataclass
class Report:
    """What came of a request.

    Attributes:
        total: how many settings were to be measured.
        rows: of those that were.
        failed: what could not be measured, and why.
        interrupted: stopped by Ctrl-C; the rows are those of the networks that were done.
    """

    total: int = 0
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False


def run(request: Request, progress: Callable[[int, int], None] | None = None) -> Report:
    """Measure everything that is asked for; what cannot be opened or computed is in the report.

    Args:
        request: what to measure.
        progress: called with (turns done, turns in all) after every turn.

    Raises:
        PosezooError: a name that is unknown, or pictures that are not there or cannot be read.
    """
    for name in request.names:
        check_name(name)
    paths = [] if request.images is None else _find_pictures(request.images)
    settings = len(request.names) * len(request.runtimes) * len(request.precisions)
    report = Report(settings * max(len(set(request.batch_sizes)), 1))
    turns, done = report.total * request.rounds, 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, turns)

    turn_seconds = TURN_SECONDS if request.images is None else 0.0  # one pass over the pictures is a turn
    try:
        for group in _groups(request):
            with (
                _opencv_threads(settle_threads(request.threads)),
                tempfile.TemporaryDirectory(prefix="posezoo-benchmark-", ignore_cleanup_errors=True) as folder,
            ):
                entrants = [each for setting in group for each in _enter(request, setting, Path(folder), paths, report)]
                contestants = [each.contestant for each in entrants]
                timings = race(contestants, request.rounds, request.warmup, turn_seconds, advance)
                report.rows += [each.row(timing) for each, timing in zip(entrants, timings, strict=True)]
                del entrants, contestants  # before the next ones are opened
    except KeyboardInterrupt:
        report.interrupted = True
    return report


@contextmanager
def _opencv_threads(threads: int) -> Iterator[None]:
    """Let OpenCV compute with so many threads, which the rows name, and afterwards with as many as before."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _find_pictures(source: str | os.PathLike[str]) -> list[Path]:
    from posezoo.media.images import find_images, read_image

    paths = find_images(source)
    for path in paths:
        read_image(path)  # now, rather than after minutes of measuring, is the time to find out that it cannot be
    return paths


def _groups(request: Request) -> Iterator[list[Setting]]:
    """The networks in their order, as many at a time as may be open; those of one model stay together."""
    group: list[Setting] = []
    for name in request.names:
        mine = [Setting(name, *rest) for rest in product(request.runtimes, request.precisions)]
        if group and len(group) + len(mine) > MOST_OPEN:
            yield group
            group = []
        group += mine
    yield group


def _enter(
    request: Request, setting: Setting, folder: Path, paths: Sequence[Path], report: Report
) -> Iterator[Entrant]:
    """The entrants of one network; why one cannot take part goes into the report."""
    try:
        if request.images is None:
            yield from networks(request, setting, folder)
        else:
            yield from pipelines(request, setting, folder, paths)
    except PosezooError as err:
        report.failed.append(f"{setting.name}, {setting.runtime}, {setting.precision}: {err}")
    except Exception as err:
        if type(err).__name__ not in _NO_MEMORY:
            raise
        report.failed.append(f"{setting.name}, {setting.runtime}: out of memory; choose a smaller --batch-size")
