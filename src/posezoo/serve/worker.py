"""The thread that has a model to itself: of the pictures that wait it takes as many as go well together.

Nothing waits for company: whatever has come in while the last pictures were looked at is looked at together, decoded on
all cores and with the people of all in common batches.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.estimator import LOOK_AHEAD, LOOK_AHEAD_PIXELS, Estimator
from posezoo.media.ahead import default_workers
from posezoo.media.images import Encoded, Image, Picture
from posezoo.predict import MIN_SCORE
from posezoo.serve.refusals import FAILED, Refusal
from posezoo.serve.settings import Settings
from posezoo.types import Boxes, Poses

_LOG = logging.getLogger("posezoo.serve")


class Done(NamedTuple):
    """What became of a picture.

    Attributes:
        size_wh: of the picture, in pixels.
        image_rgb: the picture, where it was asked for.
        poses: the people in it.
        wait_s: how long it waited, in seconds.
        work_s: how long the pictures took that it was looked at with.
    """

    size_wh: tuple[int, int]
    image_rgb: Image | None
    poses: Poses
    wait_s: float
    work_s: float


@dataclass(eq=False)
class Job:
    """A picture to look at.

    Attributes:
        encoded: its file, known to be a picture that is not too large; None once it is decoded.
        boxes: where its people are; None: the detector finds them.
        flip: whether the mirrored crop is averaged in.
        keep: whether the picture is wanted with its people.
        done: what became of it.
    """

    encoded: Encoded | None
    boxes: Boxes | None = None
    flip: bool = False
    keep: bool = False
    done: Future[Done] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)

    @property
    def pixels(self) -> int:
        """Of the picture, while it is not decoded."""
        return 0 if self.encoded is None else self.encoded.header.width * self.encoded.header.height

    def decode(self) -> Image:
        """The picture, once: its file is let go of.

        Raises:
            Refusal: it is damaged.
        """
        encoded, self.encoded = self.encoded, None
        assert encoded is not None
        try:
            return encoded.decode()
        except PosezooError as err:
            raise Refusal("bad_image", err) from None


class Capped:
    """A detector that remembers in which pictures it found more people than a server looks at; there it gives none.

    Attributes:
        found: how many people were found in each of the pictures since `found` was cleared, by the picture's name.
    """

    def __init__(self, detector: Callable[..., list[Boxes]], most: int) -> None:
        self._detector, self._most = detector, most
        self.found: dict[str | None, int] = {}

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """See `posezoo.detect.Detector`."""
        found = self._detector(images_rgb, names=names)
        self.found.update(zip(names or [], map(len, found), strict=False))
        return [boxes if len(boxes) <= self._most else Boxes.empty() for boxes in found]


@dataclass(eq=False)
class Model:
    """A model that is ready.

    Attributes:
        name: what answers call it.
        estimator: belongs to one worker.
        detector: the estimator's.
        least_score: people whose score is below it are left out, where the detector found them.
    """

    name: str
    estimator: Estimator
    detector: Capped
    least_score: float


def open_model(name: str, settings: Settings) -> Model:
    """Load a model with its detector.

    Raises:
        PosezooError: see `Estimator`.
    """
    from posezoo.detect import get_detector
    from posezoo.detect.network import PersonDetector

    where = (settings.runtime, settings.device, settings.threads)
    detector = get_detector(settings.detector, *where)
    capped = Capped(detector, settings.max_people)
    more = {"threads": settings.threads, "batch_size": settings.batch_size, "precision": settings.precision}
    estimator = Estimator(name, settings.weights, capped, settings.runtime, settings.device, **more)  # type: ignore[arg-type]
    # the name of a file is no business of the clients'
    called = os.path.basename(estimator.spec.name)
    return Model(called, estimator, capped, MIN_SCORE if isinstance(detector, PersonDetector) else 0.0)


class Worker:
    """A model and the pictures that wait for it."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self._settings = model, settings
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._decoders = ThreadPoolExecutor(default_workers(), "posezoo-decode")
        self._thread = threading.Thread(target=self._run, name=f"posezoo-{model.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def warm(self) -> None:
        """Once through both networks, before `start`: the first call of a network is much slower than the others."""
        picture = np.full((480, 640, 3), 127, np.uint8)
        self.model.estimator([picture, picture], [None, [[200, 40, 400, 440]]])

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put pictures at the end of those that wait."""
        with self._change:
            self._waiting.extend(jobs)
            self._change.notify()

    def discard(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more: those that are not being looked at go, and their memory with them."""
        with self._change:
            for job in jobs:
                if job.done.cancel() and job in self._waiting:
                    self._waiting.remove(job)

    def __len__(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    def close(self, timeout_s: float | None = None) -> None:
        """Look at what still waits, and end."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while jobs := self._take():
            self._work([job for job in jobs if job.done.set_running_or_notify_cancel()])
            del jobs  # it may be long until the next

    def _take(self) -> list[Job]:
        """The pictures to look at next; none when the worker is to end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            jobs: list[Job] = []
            pixels = 0
            while self._waiting and len(jobs) < LOOK_AHEAD:
                job = self._waiting[0]
                pixels += job.pixels
                if jobs and (pixels > LOOK_AHEAD_PIXELS or job.flip != jobs[0].flip):
                    break
                jobs.append(self._waiting.popleft())
            return jobs

    def _work(self, jobs: list[Job]) -> None:
        started = time.perf_counter()
        decoding = [self._decoders.submit(job.decode) for job in jobs] if len(jobs) > 1 else []
        readable: list[tuple[Job, Image]] = []
        for row, job in enumerate(jobs):
            try:
                readable.append((job, decoding[row].result() if decoding else job.decode()))
            except Refusal as refusal:
                job.done.set_exception(refusal.with_traceback(None))
            except Exception:
                _fail(job)
        self._estimate(readable, started)

    def _estimate(self, pictures: list[tuple[Job, Image]], started: float) -> None:
        if not pictures:
            return
        model = self.model
        try:
            model.estimator.flip = pictures[0][0].flip
            model.detector.found.clear()
            named = [Picture(image, str(row)) for row, (_, image) in enumerate(pictures)]
            found = list(model.estimator.stream(named, [job.boxes for job, _ in pictures], len(named)))
        except Exception as err:
            if len(pictures) == 1:
                _fail(pictures[0][0])
                return
            _LOG.warning("pictures that were looked at together failed, and are tried one by one: %r", err)
            for picture in pictures:
                self._estimate([picture], started)
            return
        work_s = time.perf_counter() - started
        for row, ((job, image), poses) in enumerate(zip(pictures, found, strict=True)):
            people = model.detector.found.get(str(row), 0)
            if people > self._settings.max_people:
                job.done.set_exception(too_many_people(people, self._settings))
            else:
                size_wh = (image.shape[1], image.shape[0])
                job.done.set_result(Done(size_wh, image if job.keep else None, poses, started - job.since, work_s))


def _fail(job: Job) -> None:
    """Log the error that is being handled; what waits gets none of its traceback, in which the pictures are."""
    _LOG.exception("a picture could not be looked at")
    job.done.set_exception(Refusal("internal", FAILED))


def too_many_people(people: int, settings: Settings) -> Refusal:
    """For a picture of a crowd."""
    return Refusal("too_many_people", f"{people} people in a picture, more than the limit of {settings.max_people}")
