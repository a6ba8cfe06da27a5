"""What a server is started with: its models, how they are computed, and the most that a request may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from posezoo.detect import kind_of_file
from posezoo.errors import PosezooError
from posezoo.media.images import check_megapixels

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """Settings of a server; the limits bound its memory and how long it works on a request.

    Attributes:
        models: names of the zoo, or files that posezoo made; the first is what a request gets that names none.
        weights: a checkpoint instead of the model's own, for a server of one model.
        detector: finds the people, see `posezoo.detect.get_detector`.
        runtime: see `posezoo.deploy.runtimes.open_runtime`.
        device: see there.
        precision: see there.
        threads: of each model; None: as many as this process may use.
        batch_size: people a network call; None: what suits the device.
        token: what clients must send as `Authorization: Bearer TOKEN`; None: nothing.
        hosts: the names that clients may call the server by, in their Host header; empty: any.
        max_body_mb: of a request's body, in 10^6 bytes.
        max_megapixels: of a picture, in 10^6 pixels.
        max_images: of a request.
        max_people: of a picture.
        max_queue: requests that are taken at a time: read, waiting or worked on.
        timeout_s: seconds for the body to come, and again for the answer to be found.

    Raises:
        PosezooError: a value that is out of range; the message names it.
    """

    models: tuple[str, ...] = ("embedded",)
    weights: Path | None = None
    detector: str = "embedded"
    runtime: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    max_body_mb: float = 20.0
    max_megapixels: float = 50.0
    max_images: int = 16
    max_people: int = 100
    max_queue: int = 32
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.models:
            raise PosezooError("a server needs a model at least")
        if self.weights is not None and len(self.models) > 1:
            raise PosezooError("weights are those of one model: serve one, or give the others as files (-m FILE)")
        for name in ("max_images", "max_people", "max_queue", "threads", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PosezooError(f"{name.replace('_', '-')} must be 1 or more, but is {value}")
        check_megapixels(self.max_megapixels)
        for name in ("max_body_mb", "timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PosezooError(f"{name.replace('_', '-')} must be a number above 0, but is {value:g}")
        if self.token is not None:
            check_token(self.token)
        if self.detector.partition(":")[0] == "follow":
            raise PosezooError("the detector follow goes from frame to frame of one video: a server has many clients")
        if kind_of_file(self.detector) == "boxes":
            raise PosezooError("a file of boxes is of certain pictures: clients of a server send boxes with theirs")

    @property
    def max_body(self) -> int:
        """In bytes."""
        return int(self.max_body_mb * 1e6)


def check_token(token: str) -> None:
    """See that a token can stand in a header, and that it is no trifle to guess.

    Raises:
        PosezooError: it is too short, or has spaces or other than plain characters in it.
    """
    if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
        raise PosezooError("the token must be 8 or more plain characters without spaces")
