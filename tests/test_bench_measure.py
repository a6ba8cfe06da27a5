"""How a benchmark measures: turns, medians, events of a GPU, memory, and the stopwatch of a pipeline's stages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.bench import entrants, measure
from posezoo.bench.measure import Contestant, Memory, Sample, Timing, race, time_call
from posezoo.bench.stages import Stopwatch, Watched


def test_contestants_take_turns() -> None:
    order: list[str] = []
    contestants = [Contestant(lambda name=name: order.append(name), time_call) for name in "AB"]  # type: ignore[misc]
    timings = race(contestants, rounds=3, warmup=2, turn_seconds=0.0)
    assert "".join(order) == "AABB" + "ABABAB"
    assert [len(t.samples) for t in timings] == [3, 3]


def test_a_quick_contestant_is_called_several_times_a_turn() -> None:
    calls = {"quick": 0, "slow": 0}

    def work(name: str, seconds: float) -> None:
        calls[name] += 1
        time.sleep(seconds)

    contestants = [
        Contestant(lambda: work("quick", 0.002), time_call),
        Contestant(lambda: work("slow", 0.03), time_call),
    ]
    turns = []
    timings = race(contestants, rounds=2, warmup=0, turn_seconds=0.02, advance=lambda: turns.append(1))
    assert calls["slow"] == 1 + 2 and calls["quick"] > 1 + 2 * 2 and len(turns) == 4
    assert 0.002 <= timings[0].latency < timings[1].latency and timings[1].latency >= 0.03


def test_timing_is_of_medians_and_of_the_gpu_where_it_tells() -> None:
    timing = Timing(tuple(Sample(wall, wall / 2) for wall in (1.0, 2.0, 3.0, 4.0, 100.0)))
    assert (timing.latency, timing.wall, timing.cpu) == (3.0, 3.0, 1.5)
    assert timing.spread == pytest.approx(2 / 3)
    assert Timing((Sample(1.0, 1.0),)).spread is None
    on_gpu = Timing((Sample(9.0, 1.0, 0.5), Sample(9.0, 1.0, 0.7), Sample(9.0, 1.0, 0.6)))
    assert on_gpu.latency == 0.6 and on_gpu.wall == 9.0


def test_cuda_calls_are_timed_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = -1

        def record(self) -> None:
            done.append("event")
            self.at = len(done)

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, other: Event) -> float:
            return 1000.0 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("idle"))
    sample = measure.time_cuda_call(lambda: done.append("call"))
    assert done == ["idle", "event", "call", "event", "wait"] and sample.device == 2.0 and sample.wall < 1


def test_what_is_timed_on_a_gpu_is_the_network_alone() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Conv2d(3, 4, 1).to(torch.bfloat16)
    seen: list[Any] = []
    module.register_forward_hook(lambda _, given, found: seen.append((given[0], found)))
    call = entrants.resident(module, "cpu", [np.ones((2, 3, 8, 6), np.float32)] * 2)
    assert call() is None and len(seen) == 2
    image, found = seen[0]
    assert image.dtype == torch.bfloat16 and image.is_contiguous(memory_format=torch.channels_last)
    assert found.shape == (2, 4, 8, 6) and found.is_inference()


def test_call_is_timed() -> None:
    sample = time_call(lambda: time.sleep(0.03))
    assert 0.03 <= sample.wall < 1 and sample.cpu < 0.03 and sample.device is None


def test_memory_is_that_of_the_worst_moment() -> None:
    memory = Memory()
    if memory.peak("cpu") is None:
        pytest.skip("this system does not tell a process's memory")
    memory.restart()
    block = np.ones(8_000_000)
    del block
    assert 60e6 < memory.peak("cpu") < 200e6  # type: ignore[operator]


@pytest.mark.parametrize(("used_before", "most"), [(None, 50), (30, 20)])
def test_memory_of_a_gpu_is_unknown_until_torch_has_used_it(
    monkeypatch: pytest.MonkeyPatch, used_before: int | None, most: int
) -> None:
    found = {"memory_allocated": used_before, "max_memory_allocated": None}
    monkeypatch.setattr(measure, "_allocated", found.__getitem__)
    memory = Memory()
    assert memory.peak("cuda") is None
    found["max_memory_allocated"] = 50
    assert memory.peak("cuda") == most


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(measure, "_CLEAR", tmp_path / "no" / "clear")
    memory = Memory()
    memory.restart()
    assert memory.peak("cpu") is None


class Clock:
    """Time that passes only where a test lets it."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_stopwatch_charges_the_innermost_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("posezoo.stopwatch.time", clock)
    watch = Stopwatch()

    class Worker:
        rate = 3

        def __call__(self, seconds: float) -> str:
            clock.sleep(seconds)
            return "done"

        def step(self) -> float:
            clock.sleep(20)
            return 0.5

    worker = Watched(Worker(), watch, "inner", "step")
    clock.sleep(1000)
    with watch("outer"):
        clock.sleep(1)
        assert worker(30) == "done" and worker.step() == 0.5 and worker.rate == 3
        clock.sleep(2)
    assert dict(watch.spent) == {"outer": [3.0, 1.5], "inner": [50.0, 25.0]}


def test_stopwatch_survives_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("posezoo.stopwatch.time", clock)
    watch = Stopwatch()
    with pytest.raises(ValueError), watch("outer"), watch("inner"):
        raise ValueError
    with watch("after"):
        clock.sleep(5)
    assert watch.spent["after"] == [5.0, 2.5] and watch.spent["outer"] == [0.0, 0.0]
