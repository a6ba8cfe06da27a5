"""Where the time goes: each step of the pipeline is charged with what passes in it, whichever thread it runs in."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

Watch = Callable[[str], AbstractContextManager[None]]
"""Charges a step for a `with` block."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def unwatched(step: str) -> AbstractContextManager[None]:
    """Charges nobody."""
    return nullcontext()


def charged(watch: Watch, step: str, work: Callable[[_Given], _Made]) -> Callable[[_Given], _Made]:
    """The same work, charged to a step."""

    def working(given: _Given) -> _Made:
        with watch(step):
            return work(given)

    return working


def timed(watch: Watch, step: str, items: Iterable[_Made]) -> Iterator[_Made]:
    """The same items; a step is charged for making them, but for what the steps inside it are charged for."""
    items, end = iter(items), object()
    while True:
        with watch(step):
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


class Stopwatch:
    """Charges the time that passes to the innermost step that is under way, in one thread.

    Attributes:
        spent: seconds by the clock and of CPU, by step.
    """

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._under_way: list[str] = []
        self._last = (0.0, 0.0)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Charge `step` for the block, but for what steps inside it are charged for."""
        self._charge()
        self._under_way.append(step)
        try:
            yield
        finally:
            self._charge()
            self._under_way.pop()

    def _charge(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._under_way:
            for kind in (0, 1):
                self.spent[self._under_way[-1]][kind] += now[kind] - self._last[kind]
        self._last = now


class Watched:
    """Something as it is, but calls of it (or of the methods named) are charged to a step."""

    def __init__(self, inner: Any, watch: Watch, step: str, *methods: str) -> None:
        self._inner, self._watch, self._step, self._methods = inner, watch, step, methods

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner one is called."""
        with self._watch(self._step):
            return self._inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return Watched(found, self._watch, self._step) if name in self._methods else found


def watch_estimator(estimator: Estimator, watch: Watch, suppress: str = "suppress") -> Callable[[], None]:
    """Charge the steps "detect", "network" and "decode joints" of an estimator for what they take.

    Args:
        estimator: to be watched.
        watch: charges the steps.
        suppress: the step that leaving out repeated poses is charged to.

    Returns:
        Puts everything back as it was.
    """
    before = dict(vars(estimator))

    def restore() -> None:
        vars(estimator).clear()
        vars(estimator).update(before)

    estimator._suppress = Watched(estimator._suppress, watch, suppress)  # type: ignore[method-assign, assignment]
    estimator._detect = Watched(estimator._detect, watch, "detect")  # type: ignore[method-assign]
    if (on_device := estimator._on_device()) is not None:
        # there the crops, the network and the decode are one step: the first and the last are part of its graph
        before |= {"_device": estimator._device, "_device_settings": estimator._device_settings}
        device: Any = Watched(on_device, watch, "network")
        estimator._on_device = lambda: device  # type: ignore[method-assign]
        return restore
    estimator.runtime = Watched(estimator.runtime, watch, "network")  # type: ignore[assignment]
    codec: Any = Watched(estimator.spec.codec, watch, "decode joints", "decode", "average_flip")
    estimator.spec = replace(estimator.spec, codec=codec)
    return restore


# where each step of `predict` is taken; a step in another thread costs time only where the waits show it
PLACES = {
    "read": "reading",
    "decode image": "reading",
    "wait for reading": "main",
    "detect": "main",
    "crop": "main",
    "network": "main",
    "decode joints": "main",
    "suppress": "main",
    "track": "main",
    "smooth": "main",
    "wait for writing": "main",
    "draw": "drawing",
    "write results": "writing",
    "write images": "writing",
}


class Profile:
    """A stopwatch a thread, and what they say together.

    Example:
        >>> profile = Profile()
        >>> with profile("draw"):
        ...     pass
        >>> list(profile.seconds())
        ['draw']
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._watches: list[Stopwatch] = []

    def __call__(self, step: str) -> AbstractContextManager[None]:
        """Charge a step for a `with` block of the thread that asks."""
        watch: Stopwatch | None = getattr(self._local, "watch", None)
        if watch is None:
            self._local.watch = watch = Stopwatch()
            self._watches.append(watch)
        return watch(step)

    def seconds(self) -> dict[str, float]:
        """By step, all threads together, in the order of the pipeline."""
        total: dict[str, float] = defaultdict(float)
        for watch in self._watches:
            for step, (clock, _) in list(watch.spent.items()):
                total[step] += clock
        return {step: total[step] for step in [*PLACES, *total] if step in total}
