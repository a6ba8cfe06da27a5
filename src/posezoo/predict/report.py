"""What became of the sources of `predict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from posezoo.errors import PosezooError
from posezoo.stopwatch import PLACES, Profile


@dataclass
class Report:
    """What became of the sources.

    Attributes:
        total: pictures found.
        written: one dict a picture: "image", "people", and the files "json" and "picture" where there are any.
        videos: one dict a video, camera or stream: "source", "frames", "people" (in all frames together), "tracks"
            (None where nobody was followed), "skipped" (damaged frames), "dropped" (frames that came too fast),
            "resumed" (the frame it went on at), "seconds", "fps", "results" and "video" (the files).
        failed: one dict a source or picture that could not be processed, or not to its end: "source" and "error".
        left_out: videos, and pictures of kinds that are not read, in folders that were asked for their pictures.
        seconds: of the loops, without loading the networks.
        results: the one results file of all pictures, where the format has one.
        interrupted: stopped by Ctrl-C.
        profile: what the steps took.
    """

    total: int = 0
    written: list[dict[str, Any]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    results: str | None = None
    interrupted: bool = False
    profile: Profile = field(default_factory=Profile)

    @property
    def people(self) -> int:
        """In all pictures and frames together."""
        return sum(row["people"] for row in (*self.written, *self.videos))

    @property
    def images(self) -> int:
        """Pictures and frames."""
        return len(self.written) + sum(row["frames"] for row in self.videos)

    @property
    def images_per_second(self) -> float:
        """Reading and writing included."""
        return self.images / self.seconds if self.seconds else 0.0

    def fail(self, source: object, error: PosezooError) -> None:
        """Note a failure."""
        self.failed.append({"source": str(source), "error": str(error)})

    def stages(self) -> list[dict[str, Any]]:
        """A row a step: "stage", "where" (the thread), "seconds", "ms" an image, and "fps" if it were all there is."""
        images = max(self.images, 1)
        return [
            {
                "stage": step,
                "where": PLACES.get(step, ""),
                "seconds": round(spent, 4),
                "ms": round(1e3 * spent / images, 3),
                "fps": round(images / spent, 1) if spent else None,
            }
            for step, spent in self.profile.seconds().items()
        ]
