"""Timing on machines that are not idle: the contestants take turns, and medians of many calls are compared."""

from __future__ import annotations

import ctypes
import gc
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

TURN_SECONDS = 0.1  # quick contestants are called several times a turn, so that the caches are theirs again
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Call = Callable[[], Any]


class Sample(NamedTuple):
    """One call, in seconds.

    Attributes:
        wall: by the clock.
        cpu: of all threads of this process together.
        device: between two CUDA events round the call; None without CUDA.
    """

    wall: float
    cpu: float
    device: float | None = None


@dataclass(frozen=True)
class Contestant:
    """What takes part in a race.

    Attributes:
        call: does the work once.
        sample: how a call is timed: `time_call`, or `time_cuda_call` where it leaves work for the GPU behind.
    """

    call: Call
    sample: Callable[[Call], Sample]


@dataclass(frozen=True)
class Timing:
    """Every timed call of a contestant, in the order they were made."""

    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> list[float]:
        """What a call took: by the GPU's own events where there are any, else by the clock."""
        return [s.wall if s.device is None else s.device for s in self.samples]

    @property
    def latency(self) -> float:
        """The median call, in seconds."""
        return median(self.seconds)

    @property
    def cpu(self) -> float:
        """The median call's CPU time, in seconds."""
        return median(s.cpu for s in self.samples)

    @property
    def wall(self) -> float:
        """The median call by the clock, in seconds."""
        return median(s.wall for s in self.samples)

    @property
    def spread(self) -> float | None:
        """How far apart the quarters are between which the middle half of the calls lies, as a share of the median.

        None of a single call, which says nothing of others.
        """
        if len(self.samples) < 2:
            return None
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.latency if self.latency else 0.0


def time_call(call: Call) -> Sample:
    """Time one call that has done its work when it returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def time_cuda_call(call: Call) -> Sample:
    """Time one call of torch that leaves its work to a GPU, by CUDA's events and by the clock."""
    import torch

    begins, ends = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    begins.record()
    call()
    ends.record()
    ends.synchronize()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu, begins.elapsed_time(ends) / 1e3)


def race(
    contestants: Sequence[Contestant],
    rounds: int,
    warmup: int,
    turn_seconds: float = TURN_SECONDS,
    advance: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Let the contestants take turns, round after round: what slows the machine down for a while slows all of them.

    Args:
        contestants: in the order of their turns.
        rounds: how many turns each gets.
        warmup: calls of each beforehand that are not counted (one at least: it says how many calls a turn holds).
        turn_seconds: how long a turn is, roughly; it holds one call at least.
        advance: called after every turn.

    Returns:
        A timing for each contestant.
    """
    calls = []
    for contestant in contestants:
        first = [sum(contestant.sample(contestant.call)[:1]) for _ in range(max(warmup, 1))]
        calls.append(max(1, math.ceil(turn_seconds / max(min(first), 1e-6))))
    samples: list[list[Sample]] = [[] for _ in contestants]
    gc.collect()
    for _ in range(rounds):
        for contestant, number, mine in zip(contestants, calls, samples, strict=True):
            mine += [contestant.sample(contestant.call) for _ in range(number)]
            advance()
    return [Timing(tuple(mine)) for mine in samples]


class Memory:
    """How much more memory is held at the worst moment than when this was made, in bytes.

    On the CPU it is this process's, as far as the system tells (Linux does); on CUDA what torch's allocator gave out.
    """

    def __init__(self) -> None:
        gc.collect()
        with suppress(OSError, AttributeError):  # glibc: what was freed goes back, else it would be had again for free
            ctypes.CDLL(None).malloc_trim(0)
        self._before = {"cpu": _status("VmRSS"), "cuda": _allocated("memory_allocated") or 0}

    def restart(self) -> None:
        """Forget the worst moment so far."""
        with suppress(OSError):
            _CLEAR.write_text("5")  # Linux: the peak begins anew
        if _allocated("memory_allocated"):
            sys.modules["torch"].cuda.reset_peak_memory_stats()

    def peak(self, device: str) -> int | None:
        """Of the worst moment since `restart`, what was not there when this was made; None where it is not known."""
        found = _allocated("max_memory_allocated") if device == "cuda" else _status("VmHWM")
        before = self._before[device]
        return None if found is None or before is None else max(found - before, 0)


def _allocated(what: str) -> int | None:
    """A figure of torch's allocator on the GPU, in bytes; None where torch has not used one."""
    torch = sys.modules.get("torch")
    return getattr(torch.cuda, what)() if torch is not None and torch.cuda.is_initialized() else None


def _status(key: str) -> int | None:
    """A size of this process from Linux's table of it, in bytes."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
