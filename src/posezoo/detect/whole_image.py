"""The detector for pictures that are already cut to one person: the whole image is the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posezoo.types import Boxes


@dataclass(frozen=True)
class WholeImage:
    """One box an image, with score 1."""

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """The whole of each (H, W, 3) image, edge to edge: (0, 0, W, H)."""
        return [Boxes(np.array([[0, 0, image.shape[1], image.shape[0]]])) for image in images_rgb]
