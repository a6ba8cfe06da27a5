"""Work in threads ahead of its asker: order, bounds, errors, stopping."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import cv2
import pytest

from posezoo.media.ahead import Ahead, default_workers, one_opencv_thread


class Counted:
    """Items, and how many of them were taken."""

    def __init__(self, count: int) -> None:
        self.items, self.taken = iter(range(count)), 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        item = next(self.items)
        self.taken += 1
        return item


def test_results_come_in_the_order_of_the_items() -> None:
    pauses = [random.Random(1).uniform(0, 0.004) for _ in range(60)]
    running, most_running, lock = set(), 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal most_running
        with lock:
            running.add(item)
            most_running = max(most_running, len(running))
        time.sleep(pauses[item])
        with lock:
            running.remove(item)
        return item * item

    with Ahead(work, range(60), threads=4, most=9) as results:
        assert list(results) == [n * n for n in range(60)]
        assert next(results, None) is None
    assert 2 <= most_running <= 4


def test_nothing_is_nothing_and_nothing_is_taken_before_it_is_wanted() -> None:
    with Ahead(abs, [], threads=2) as results:
        assert list(results) == []
    items = Counted(5)
    with Ahead(abs, items, threads=2):
        assert items.taken == 0


def test_only_so_many_are_taken_ahead() -> None:
    items = Counted(50)
    with Ahead(lambda item: item, items, threads=2, most=6) as results:
        for handed_out, _ in enumerate(results):
            assert items.taken - handed_out <= 6
    assert items.taken == 50


def test_a_result_does_not_wait_for_those_after_it() -> None:
    done = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert done.wait(10)
        time.sleep(0.05)
        yield 1
        raise AssertionError("asked for more, though the first result was there")

    with Ahead(lambda item: done.set() or item, items(), threads=2) as results:
        assert next(results) == 0


@pytest.mark.parametrize(("weight", "ahead"), [(100, 3), (1000, 1), (1, 16)])
def test_only_so_much_memory_is_taken_ahead(weight: int, ahead: int) -> None:
    items, first = Counted(40), threading.Event()

    def work(item: int) -> int:
        first.wait(10)  # so that the asker cannot get a result before it has taken all that it may
        return item

    with Ahead(work, items, lambda _: weight, threads=2, max_bytes=250) as results:
        threading.Timer(0.1, first.set).start()
        assert next(results) == 0 and items.taken == ahead
        assert list(results) == list(range(1, 40))  # a single item that is too heavy is done all the same


def test_a_slow_end_of_a_chain_holds_its_start_back() -> None:
    items, done = Counted(30), 0

    def slow(item: int) -> int:
        time.sleep(0.003)
        return item

    with Ahead(abs, items, threads=2, most=3) as quick, Ahead(slow, quick, threads=1, most=4) as results:
        for done, item in enumerate(results, 1):
            assert item == done - 1 and items.taken - done <= 3 + 4
    assert done == 30


def test_an_error_comes_when_its_turn_does_and_ends_the_rest() -> None:
    begun, got = [], []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ZeroDivisionError("three")
        time.sleep(0.002)
        return item

    with pytest.raises(ZeroDivisionError, match="three"), Ahead(work, range(1000), threads=2, most=8) as results:
        got.extend(results)
    assert got == [0, 1, 2] and len(begun) <= 3 + 8
    now = len(begun)
    time.sleep(0.02)
    assert len(begun) == now  # nothing goes on behind one's back


def test_an_error_of_the_items_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"), Ahead(abs, items(), threads=2) as results:
        list(results)


def test_stopping_waits_for_what_runs_and_drops_what_does_not() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 2:
            begun.set()
            go.wait(10)
        return item

    def items() -> Iterator[int]:
        yield from range(6)
        assert begun.wait(10)
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt

    got = []
    with Ahead(work, items(), threads=1) as results:
        with pytest.raises(KeyboardInterrupt):
            for item in results:
                got.append(item)
        got.extend(results.stop())
    assert got == [0, 1, 2]


def test_an_iterator_left_lying_about_keeps_no_program_from_ending() -> None:
    code = (
        "import time; from posezoo.media.ahead import Ahead\n"
        "left = Ahead(lambda n: time.sleep(0.01) or n, range(10**9), threads=2, most=4); print(next(left))\n"
        "raise SystemExit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "0\n", "")


def test_opencv_keeps_to_one_thread_for_a_while() -> None:
    before = cv2.getNumThreads()
    with pytest.raises(ZeroDivisionError), one_opencv_thread():
        assert cv2.getNumThreads() == 1
        raise ZeroDivisionError
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize(("cores", "workers"), [("1", 2), ("2", 2), ("6", 6), ("64", 8)])
def test_as_many_threads_as_are_sensible(monkeypatch: pytest.MonkeyPatch, cores: str, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", cores)
    assert default_workers() == workers


def test_what_is_dropped_leaves_no_hole() -> None:
    """While the rest is being dropped a thread that ends its work must not begin one behind it."""
    done: list[int] = []
    often = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        for _ in range(20):
            done.clear()
            # the first takes so long that all are taken, and then comes the end
            with Ahead(lambda n: (done.append(n), n or time.sleep(0.02)), range(500), threads=1, most=500) as results:
                next(results)
                list(results.stop())
            assert done == list(range(len(done)))
    finally:
        sys.setswitchinterval(often)
