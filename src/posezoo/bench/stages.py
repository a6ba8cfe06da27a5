"""The whole pipeline on real pictures, and what each of its steps takes: the estimator itself, with a watch on it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from posezoo.bench.rows import Stage
from posezoo.media.images import Picture, read_image
from posezoo.stopwatch import Stopwatch, Watched, watch_estimator
from posezoo.stream import ahead_of

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

__all__ = ["STAGES", "Pipeline", "Stopwatch", "Watched"]

# in their order; "crop" is all of the estimator that is none of the others: affine, crops, normalise, suppression;
# "write" is the picture as JPEG and the results as JSON, as predict writes them, but into memory
STAGES = ("decode image", "detect", "crop", "network", "decode joints", "draw", "write")


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
        watch_estimator(estimator, self._watch, suppress="crop")

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

        found = self.estimator.stream(pictures(), look_ahead=ahead_of(self.estimator.batch_size))
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
