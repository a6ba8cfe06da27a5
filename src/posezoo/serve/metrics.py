"""What `/metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server; several may live in a process.

    Attributes:
        requests: by route and status.
        seconds: how long requests took, by route.
        images: pictures that were looked at.
        people: people that were found in them.
        refused: requests, or single pictures of one, by the code of the refusal.
        taken: requests that are being read, wait or are worked on.
        waiting: pictures that wait for a model.
        ready: 1 where the models are loaded.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU seconds and open files, on Linux
        route = ["route"]
        self.requests = Counter("posezoo_requests", "Requests answered.", [*route, "status"], registry=registry)
        self.seconds = Histogram(
            "posezoo_request_seconds", "Time to answer.", route, registry=registry, buckets=_SECONDS
        )
        self.images = Counter("posezoo_images", "Pictures looked at.", registry=registry)
        self.people = Counter("posezoo_people", "People found.", registry=registry)
        self.refused = Counter("posezoo_refused", "Requests and pictures refused.", ["code"], registry=registry)
        self.taken = Gauge("posezoo_requests_taken", "Requests read, waiting or worked on.", registry=registry)
        self.waiting = Gauge("posezoo_queue_length", "Pictures that wait for a model.", registry=registry)
        self.ready = Gauge("posezoo_ready", "1 where the models are loaded and warm.", registry=registry)

    def watch(self, taken: Callable[[], int], waiting: Callable[[], int], ready: Callable[[], bool]) -> None:
        """What is asked when the text is made."""
        self.taken.set_function(taken)
        self.waiting.set_function(waiting)
        self.ready.set_function(ready)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
