"""What a run says while it learns: `log.csv`, TensorBoard, speed, and how long it waits for its data."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from posezoo.errors import PosezooError
from posezoo.files import write_atomic

FILE = "log.csv"
COLUMNS = ["step", "phase", "name", "value"]
NOBODY = -1.0  # a figure that there was nobody to judge by
Row = tuple[int, str, str, float]


class Log:
    """`log.csv` (step, phase, name, value) and, where it is installed, TensorBoard; silent where not `active`."""

    def __init__(self, folder: Path, active: bool, keep: Callable[[int, str], bool] | None = None):
        """Open both.

        Args:
            folder: of the run.
            active: whether this process writes.
            keep: of an earlier log, the (step, phase) that still hold; None: there is no earlier one.
        """
        self.path, self.board = folder / FILE, None
        self.active = active
        if not active:
            return
        rows = [] if keep is None else [row for row in read_log(folder) if keep(row[0], row[1])]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *([*row[:3], f"{row[3]:.6g}"] for row in rows)])
        write_atomic(self.path, text.getvalue())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        purge = max((row[0] for row in rows), default=0) + 1 if keep is not None else None
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, step: int, phase: str, figures: Mapping[str, float]) -> None:
        """Add one line a figure.

        Raises:
            PosezooError: the disk is full.
        """
        if not self.active or not figures:
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerows([step, phase, name, f"{value:.6g}"] for name, value in figures.items())
            if self.board is not None:
                for name, value in figures.items():
                    self.board.add_scalar(f"{phase}/{name}", value, step)
                self.board.flush()
        except OSError as err:
            raise PosezooError(f"cannot write {self.path}: {err.strerror or err}") from None

    def close(self) -> None:
        """Let TensorBoard's file go."""
        if self.board is not None:
            with suppress(OSError):  # a full disk, which `write` has told of
                self.board.close()


def read_log(folder: Path) -> list[Row]:
    """The lines of a run's `log.csv`; a last line that was broken off is left out."""
    try:
        with (folder / FILE).open(newline="") as file:
            lines = list(csv.reader(file))[1:]
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            step, phase, name, value = line
            rows.append((int(step), phase, name, float(value)))
        except ValueError:
            continue
    return rows


class Bar:
    """The steps of a run as a bar, on a terminal alone, with figures behind it as far as they fit."""

    def __init__(self, steps: int, done: int, active: bool):
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, _Figures(), console=console, disable=not (active and console.is_terminal))
        self._task = self._progress.add_task("", total=steps, completed=done, figures="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, **what: Any) -> None:
        """Change any of `description`, `completed` (steps) and `figures` (text)."""
        self._progress.update(self._task, **what)


class _Figures(ProgressColumn):
    """Text that never takes a second line."""

    def render(self, task: RichTask) -> Text:
        return Text(task.fields["figures"], style="dim", no_wrap=True, overflow="ellipsis")


class Meter:
    """How fast a run is, and how long it waits for its data."""

    def __init__(self, batch_size: int, now: Callable[[], float] = time.perf_counter):
        self.batch_size, self.now = batch_size, now
        self.seconds = self.waited = 0.0  # of all steps together
        self.steps = 0
        self.has_begun = False
        self._begin()

    def _begin(self) -> None:
        self.since, self.window_waited, self.window_steps = self.now(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens here is waiting for data; the first time, for the loader to start, which counts nowhere."""
        began = self.now()
        yield
        if self.has_begun:
            self.window_waited += self.now() - began
        else:
            self.has_begun = True
            self._begin()

    def step(self) -> None:
        """A step is done."""
        self.window_steps += 1

    def figures(self, steps_left: int) -> dict[str, float]:
        """Of the steps since the last call: images a second, the share of time without data, seconds to the end."""
        seconds, steps, waited = max(self.now() - self.since, 1e-9), self.window_steps, self.window_waited
        self.seconds, self.waited, self.steps = self.seconds + seconds, self.waited + waited, self.steps + steps
        self._begin()
        return {
            "images_per_s": steps * self.batch_size / seconds,
            "data_wait": waited / seconds,
            "eta_s": steps_left * self.seconds / max(self.steps, 1),
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens here is no learning: its time counts nowhere."""
        began = self.now()
        yield
        self.since += self.now() - began


def duration(seconds: float) -> str:
    """Such as "2 d 3 h", "1 h 5 min" or "40 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short(figures: Mapping[str, Any]) -> str:
    """Figures in one line."""
    return "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
