"""The whole pipeline on real pictures, and what each of its steps takes: the estimator itself, with a watch on it."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from posezoo.bench.rows import Stage
from posezoo.media.images import Picture, read_image

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

# in their order; "crop" is all of the estimator that is none of the others: affine, crops, normalise, suppression;
# "write" is the picture as JPEG and the results as JSON, as predict writes them, but into memory
STAGES = ("decode image", "detect", "crop", "network", "decode joints", "draw", "write")


class Stopwatch:
    """Charges the time that passes to the innermost step that is under way."""

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

    def __init__(self, inner: Any, watch: Stopwatch, step: str, *methods: str) -> None:
        self._inner, self._watch, self._step, self._methods = inner, watch, step, methods

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner one is called."""
        with self._watch(self._step):
            return self._inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return Watched(found, self._watch, self._step) if name in self._methods else found


class Pipeline:
    """Everything that `posezoo predict` does to pictures, one step after another.

    Attributes:
        passes: for every call, what each step took, in seconds by the clock and of CPU.
        people: how many the last call found.
    """

    def __init__(self, estimator: Estimator, paths: Sequence[Path]) -> None:
        self.estimator, self.paths = estimator, list(paths)
        self.passes: list[dict[str, list[float]]] = []
        self.people = 0
        self._watch = Stopwatch()
        watch = self._watch
        estimator.detector = Watched(estimator.detector, watch, "detect")
        if (on_device := estimator._on_device()) is not None:
            # there the crops, the network and the decode are one step: the first and the last are part of its graph
            device: Any = Watched(on_device, watch, "network")
            estimator._on_device = lambda: device  # type: ignore[method-assign]
            return
        estimator.runtime = Watched(estimator.runtime, watch, "network")
        codec: Any = Watched(estimator.spec.codec, watch, "decode joints", "decode", "average_flip")
        estimator.spec = replace(estimator.spec, codec=codec)

    def __call__(self) -> None:
        """Do all pictures once."""
        from posezoo.draw import draw_poses

        watch, waiting = self._watch, deque[Picture]()
        watch.spent.clear()
        self.people = 0

        def pictures() -> Iterator[Picture]:
            for path in self.paths:
                with watch("decode image"):
                    picture = Picture(read_image(path), os.fspath(path))
                waiting.append(picture)
                yield picture

        found = self.estimator.stream(pictures())
        while True:
            with watch("crop"):
                poses = next(found, None)
            if poses is None:
                break
            picture = waiting.popleft()
            self.people += len(poses)
            with watch("draw"):
                drawn = draw_poses(picture.image_rgb, poses)
            with watch("write"):
                _write(drawn, poses, picture)
        self.passes.append({step: list(watch.spent[step]) for step in STAGES})

    def stages(self, last: int) -> dict[str, Stage]:
        """The median of each step over the last so many calls, a picture."""
        each = 1e3 / len(self.paths)
        return {
            step: Stage(*(each * median(done[step][kind] for done in self.passes[-last:]) for kind in (0, 1)))
            for step in STAGES
        }


def _write(drawn: Any, poses: Any, picture: Picture) -> None:
    """What predict writes for one picture, into memory."""
    import cv2

    from posezoo.formats.posezoo import to_json

    cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    height, width = picture.image_rgb.shape[:2]
    to_json(poses, image=str(picture.name), size_wh=(width, height))
