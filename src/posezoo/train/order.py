"""Which samples make up each step: an order that follows from the seed and the epoch alone, so that a run can resume.

However many devices share a step, and in however many passes, it is of the same samples.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from posezoo.errors import PosezooError
from posezoo.words import counted

Key = tuple[int, int]
Batch = dict[str, Tensor]
_PREFETCH = 4  # passes that each worker reads ahead
_GRACE_S = 30  # that a worker goes on after SIGTERM, so that the main process can end its step and save


class Rows(Protocol):
    """A dataset whose samples follow from the seed, the round (the epoch, see `Order`) and the row."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Batch: ...


class Order:
    """Steps of (round, row), a row's round being how often it could have been drawn before.

    Where every row is drawn once an epoch the round is the epoch; a row that is drawn several times an epoch comes with
    another round each time, so that no two of its samples are alike.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        samples: int | None = None,
        seed: int = 0,
        weights: NDArray[np.floating] | None = None,
    ):
        """Plan epochs.

        Args:
            rows: of the dataset.
            batch_size: samples a step; as many as there are rows, where they are fewer.
            samples: drawn an epoch, of which those that fill no step are left out; None: the sum of `weights`.
            seed: of all that is drawn.
            weights: (rows,) how often each row is drawn, relative to the others; None: all alike.
        """
        self.weights = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
        if self.weights.shape != (rows,) or not (self.weights >= 0).all() or not 0 < self.weights.sum() < np.inf:
            raise PosezooError(f"the weights of {rows} samples must be as many numbers from 0, and not all of them 0")
        self.batch_size, self.seed = min(batch_size, rows), seed
        samples = round(self.weights.sum()) if samples is None else samples
        self.steps = max(1, samples // self.batch_size)
        self.weights *= self.steps * self.batch_size / self.weights.sum()  # the draws an epoch that each row may expect
        self.most = max(1, int(np.ceil(self.weights.max() - 1e-6)))

    def epoch(self, number: int) -> list[list[Key]]:
        """The steps of an epoch.

        A row of expectation 2.3 is drawn twice or three times (systematic sampling), never more and never less.
        """
        rng = np.random.default_rng((self.seed, number))
        count, order = self.steps * self.batch_size, rng.permutation(len(self.weights))
        ends = np.cumsum(self.weights[order])
        places = np.searchsorted(ends, np.arange(count) + rng.random(), side="right").clip(max=len(order) - 1)
        rounds = number * self.most + np.arange(count) - np.searchsorted(places, places)
        mixed = rng.permutation(count)
        keys = list(zip(rounds[mixed].tolist(), order[places[mixed]].tolist(), strict=True))
        return [keys[start : start + self.batch_size] for start in range(0, count, self.batch_size)]


class Share:
    """A batch sampler: what one process reads from step `first` to step `last`, one pass after another.

    It does not end with the epoch, so that the loader goes on reading while the network is validated.
    """

    def __init__(self, order: Order, first: int, last: int, passes: int = 1, rank: int = 0, processes: int = 1):
        if order.batch_size % (passes * processes):
            raise PosezooError(
                f"a step of {counted(order.batch_size, 'sample')} does not divide by {counted(processes, 'device')} x "
                f"{counted(passes, 'pass', 'passes')}: change optimiser.batch_size or optimiser.accumulate"
            )
        self.order, self.first, self.last = order, first, last
        self.passes, self.rank, self.processes = passes, rank, processes

    def __len__(self) -> int:
        return (self.last - self.first) * self.passes

    def __iter__(self) -> Iterator[list[Key]]:
        step, stride = self.first, self.passes * self.processes
        while step < self.last:
            epoch, skip = divmod(step, self.order.steps)
            for keys in self.order.epoch(epoch)[skip : skip + self.last - step]:
                for one in range(self.passes):
                    yield keys[one * self.processes + self.rank :: stride]
                step += 1


def make_loader(dataset: Rows, share: Share, workers: int, device: torch.device) -> DataLoader[Batch]:
    """Passes from so many processes (0: from this one), in shared memory, and pinned for a GPU."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=share,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own: the loader's draws must not move the network's
    )


def loader_error(err: BaseException) -> BaseException:
    """What to say of an error that came from the loader; a worker's has the worker's traceback in its text."""
    if isinstance(err, PosezooError):
        return PosezooError(str(err).strip().splitlines()[-1].removeprefix("posezoo.errors.PosezooError: "))
    if isinstance(err, RuntimeError) and "DataLoader worker" in str(err):
        advice = "Where memory is short: fewer run.workers, or more shared memory (docker run --shm-size)"
        return PosezooError(f"{next(iter(str(err).strip().splitlines()))} {advice}")
    return err


def _start_worker(_: int) -> None:
    """Leave Ctrl-C to the main process; and SIGTERM, which a scheduler sends to all of them, for a while. End with it.

    torch has a worker end with its parent, which is not the main process where a server forks them.
    """
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


def _end_with(main: Any) -> None:
    main.join()
    os._exit(1)  # nobody is left to read what it makes
