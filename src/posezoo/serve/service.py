"""The models of a server, and the requests that it has taken: what is between HTTP and the pipeline."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool

from posezoo.errors import PosezooError
from posezoo.media.images import Encoded, open_image
from posezoo.serve.metrics import Metrics
from posezoo.serve.refusals import Refusal
from posezoo.serve.settings import Settings
from posezoo.serve.upload import Upload
from posezoo.serve.worker import Done, Job, Model, Worker, open_model, too_many_people
from posezoo.types import Boxes

_LOADER_S = 0.5

OpenModel = Callable[[str, Settings], Model]


class Outcome(NamedTuple):
    """A picture of a request, and what became of it."""

    upload: Upload
    done: Done | Refusal


class Service:
    """Loads the models in a thread of its own, and gives each picture to its model's worker.

    Attributes:
        settings: the server's.
        metrics: counted here and in the gate.
        failure: why the models could not be loaded.
    """

    def __init__(self, settings: Settings, opens: OpenModel = open_model) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.failure: BaseException | None = None
        self._opens = opens
        self._workers: dict[str, Worker] = {}
        self._names: dict[str, str] = {}  # as given at the start -> of the model
        self._state = "starting"
        self._stopping = threading.Event()
        self._taken = 0
        self._loader: threading.Thread | None = None
        self.metrics.watch(lambda: self._taken, self._waiting, lambda: self.ready)

    def _waiting(self) -> int:
        return sum(map(len, self._workers.values()))

    @property
    def ready(self) -> bool:
        """The models are loaded and warm, and the server is not shutting down."""
        return self._state == "ready" and not self._stopping.is_set()

    @property
    def models(self) -> dict[str, Model]:
        """Those that are ready, by name."""
        return {name: worker.model for name, worker in self._workers.items()} if self.ready else {}

    def start(self, on_failure: Callable[[], object] | None = None) -> None:
        """Begin to load the models; `on_failure` is called in that thread where one cannot be."""
        self._loader = threading.Thread(target=self._load, args=(on_failure,), name="posezoo-load", daemon=True)
        self._loader.start()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Until the models are loaded.

        Raises:
            PosezooError: one could not be loaded, or they take longer than that.
        """
        if self._loader is not None:
            self._loader.join(timeout_s)
        if self.failure is not None:
            raise self.failure
        if not self.ready:
            raise PosezooError(f"the models are not ready after {timeout_s} s")

    def _load(self, on_failure: Callable[[], object] | None) -> None:
        try:
            workers: dict[str, Worker] = {}
            for given in dict.fromkeys(self.settings.models):
                if self._stopping.is_set():
                    return
                worker = Worker(self._opens(given, self.settings), self.settings)
                if worker.model.name in workers:
                    raise PosezooError(f"two models are called {worker.model.name}: serve one of them")
                if self._stopping.is_set():
                    return
                worker.warm()
                workers[worker.model.name] = worker
                self._names |= {given: worker.model.name, worker.model.name: worker.model.name}
        except BaseException as err:
            self.failure, self._state = err, "failed"
            if on_failure is not None:
                on_failure()
            return
        if self._stopping.is_set():
            return
        for worker in workers.values():
            worker.start()
        self._workers, self._state = workers, "ready"

    def drain(self) -> None:
        """Take no more requests."""
        self._stopping.set()

    def close(self) -> None:
        """Finish what was taken, and end the workers; a model that is being opened is left to end with the process."""
        self.drain()
        if self._loader is not None:
            self._loader.join(_LOADER_S)
        for worker in self._workers.values():
            worker.close(self.settings.timeout_s)

    def check_ready(self) -> None:
        """Refuse what comes before the models are loaded, or too late."""
        if self._stopping.is_set():
            raise Refusal("shutting_down", "the server is shutting down")
        if not self.ready:
            raise Refusal("not_ready", "the models are being loaded")

    @contextmanager
    def taking(self) -> Iterator[None]:
        """A place among the requests that are taken, held from before the body is read until the answer is made.

        Raises:
            Refusal: all places are taken.
        """
        self.check_ready()
        if self._taken >= self.settings.max_queue:
            raise Refusal("busy", f"the limit of {self.settings.max_queue} requests at a time is reached; try again")
        self._taken += 1  # of the event loop's thread alone
        try:
            yield
        finally:
            self._taken -= 1

    def loaded(self, name: str) -> Model | None:
        """A model that is ready, by the name it was given at the start or its own; None where none is called so."""
        return self.models.get(self._names.get(name, ""))

    def model(self, name: str | None) -> Model:
        """The loaded model of this name, see `loaded`; None: the first.

        Raises:
            Refusal: none is called so.
        """
        if name is None:
            name = self.settings.models[0]
        if name not in self._names:
            loaded = ", ".join(self._workers)
            raise Refusal("unknown_model", f"no model '{name[:120]}' is loaded here; these are: {loaded}")
        return self._workers[self._names[name]].model

    def open_upload(self, upload: Upload) -> Encoded:
        """The picture in an upload, not decoded.

        Raises:
            Refusal: it is none, it is cut off, or it has too many pixels.
        """
        try:
            # its size is looked at here, where the limit has a status of its own
            encoded = open_image(upload.data, float("inf"))
        except PosezooError as err:
            raise Refusal("bad_image", str(err).replace("the given bytes", upload.name, 1)) from None
        width, height, most = encoded.header.width, encoded.header.height, self.settings.max_megapixels
        if width * height > most * 1e6:
            size = f"{upload.name}: {width}x{height} is {width * height / 1e6:.0f} megapixels"
            raise Refusal("too_many_pixels", f"{size}, more than the limit of {most:g}")
        return replace(encoded, name=upload.name)

    async def estimate(
        self, model: Model, uploads: Sequence[Upload], boxes: Sequence[Boxes | None], flip: bool, keep: bool = False
    ) -> list[Outcome]:
        """The people in each picture, or what is wrong with it.

        Args:
            model: which finds them.
            uploads: the pictures.
            boxes: for each; None where the detector finds them.
            flip: whether the mirrored crop is averaged in.
            keep: whether the pictures are wanted with their people.

        Raises:
            Refusal: it takes too long, or the model cannot do it so.
        """
        if flip and model.estimator.spec.output == "joints":
            raise Refusal("bad_option", f"{model.name} decodes inside its graph: it has no flip")
        # in a thread: it reads through the whole of each file
        jobs = await run_in_threadpool(self._jobs, uploads, boxes, flip, keep)
        found = iter(await self._results(self._workers[model.name], [job for job in jobs if isinstance(job, Job)]))
        outcomes = [
            Outcome(u, j if isinstance(j, Refusal) else next(found)) for u, j in zip(uploads, jobs, strict=True)
        ]
        for _, done in outcomes:
            if isinstance(done, Done):
                self.metrics.images.inc()
            elif len(outcomes) > 1:  # that of a single picture is the request's own, which the gate counts
                self.metrics.refused.labels(done.code).inc()
        return outcomes

    def _jobs(
        self, uploads: Sequence[Upload], boxes: Sequence[Boxes | None], flip: bool, keep: bool
    ) -> list[Job | Refusal]:
        jobs: list[Job | Refusal] = []
        for upload, given in zip(uploads, boxes, strict=True):
            try:
                if given is not None and len(given) > self.settings.max_people:
                    raise too_many_people(len(given), self.settings)
                jobs.append(Job(self.open_upload(upload), given, flip, keep))
            except Refusal as refusal:
                jobs.append(refusal)
        return jobs

    async def _results(self, worker: Worker, jobs: list[Job]) -> list[Done | Refusal]:
        if not jobs:
            return []
        worker.submit(jobs)
        started = time.perf_counter()
        waiting = [asyncio.wrap_future(job.done) for job in jobs]
        try:
            done = await asyncio.wait_for(
                asyncio.gather(*waiting, return_exceptions=True), timeout=self.settings.timeout_s
            )
        except asyncio.TimeoutError:
            seconds = time.perf_counter() - started
            raise Refusal("timeout", f"no answer was found within {seconds:.0f} s; the server may be busy") from None
        finally:
            worker.discard(jobs)
        for each in done:
            if isinstance(each, BaseException) and (not isinstance(each, Refusal) or each.code == "internal"):
                raise each
        return done  # type: ignore[return-value]
