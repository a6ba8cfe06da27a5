"""Ctrl-C and SIGTERM as a wish, so that a run can end where it can be gone on with."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

_TWICE = 1.0  # seconds: a second signal that comes sooner is the first one again, passed on by torchrun


class Interrupts:
    """Ctrl-C and SIGTERM as a wish that the loop may see to; a second one is an exception as usual."""

    def __init__(self) -> None:
        self.wanted, self.since = False, 0.0
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            if time.monotonic() - self.since < _TWICE:
                return
            raise KeyboardInterrupt
        self.wanted, self.since = True, time.monotonic()
        if os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nstopping after this step, with a checkpoint; once more to stop at once\n")
