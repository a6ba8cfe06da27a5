"""Work in threads, ahead of whoever wants its results: in order, and bounded by number and by memory.

Chained, it is the whole of a pipeline: files are read ahead of the decoding, pictures decoded ahead of the network, and
the results written while the network goes on with the next pictures. Every link takes in what comes before it when it
is asked for a result, so that all but the work itself, and with it the network, runs in the thread of the last asker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BYTES = 192_000_000  # 64 megapixels


class Ahead(Generic[Item, Result]):
    """The results of `work(item)` in the order of the items, as an iterator to be used in a `with` statement.

    Leaving the `with` drops the work that has not begun and waits for that which has. What `work` raises is raised when
    its turn comes. No thread ever waits for another: an iterator that is left lying about keeps no program from ending.

    Example:
        >>> with Ahead(abs, [-1, 2, -3], threads=2) as results:
        ...     list(results)
        [1, 2, 3]
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        weigh: Callable[[Item], int] | None = None,
        *,
        threads: int | None = None,
        most: int = 16,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Nothing is taken from `items` before the first result is asked for.

        Args:
            work: called in the threads.
            items: taken one by one, in the thread that asks for results.
            weigh: the memory, in bytes, that an item takes from when it is taken until its result is handed out.
            threads: how many work; None: `default_workers`.
            most: how many items are taken at most before the result of the first is handed out.
            max_bytes: no more are taken while those that were weigh this much; one item may weigh more.
        """
        self._work, self._items, self._weigh = work, iter(items), weigh
        self._most, self._max_bytes = most, max_bytes
        self._pool = ThreadPoolExecutor(threads or default_workers(), "posezoo-ahead")
        self._queue: deque[tuple[int, Future[Result]]] = deque()

    def __enter__(self) -> Ahead[Item, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        # one is taken before one is handed out, so that the threads have enough to do while the asker is busy
        while not self._full() and self._take():
            if self._queue[0][1].done():
                break
        if not self._queue:
            raise StopIteration
        result = self._queue[0][1].result()
        self._queue.popleft()
        return result

    def stop(self) -> Iterator[Result]:
        """Drop the work that has not begun, wait for that which has, and give what was done but not handed out."""
        # from the end: dropped from the front, a thread would meanwhile begin a later one, and leave a hole before it
        for _, future in reversed(self._queue):
            future.cancel()
        self._pool.shutdown(cancel_futures=True)
        while self._queue:
            _, future = self._queue.popleft()
            if not future.cancelled() and future.exception() is None:
                yield future.result()

    def _full(self) -> bool:
        return len(self._queue) >= self._most or sum(weight for weight, _ in self._queue) >= self._max_bytes

    def _take(self) -> bool:
        """Have one more item worked on; False where there is none."""
        for item in self._items:
            self._queue.append((self._weigh(item) if self._weigh else 0, self._pool.submit(self._work, item)))
            return True
        return False


def default_workers() -> int:
    """How many threads are sensible for one kind of work beside a network.

    As many as there are cores, since the network leaves them idle at times, or sits on a GPU; but two at least, which
    wait for different files, and eight at most, from which even a GPU has hundreds of pictures a second.
    """
    from posezoo.deploy.runtimes import default_threads

    return min(max(default_threads(), 2), 8)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own for each call, which would fight over the cores with ours."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
