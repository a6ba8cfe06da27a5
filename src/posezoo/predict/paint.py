"""The annotated picture of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.predict.request import Look
from posezoo.skeletons import Skeleton
from posezoo.types import Poses

Image = NDArray[np.uint8]


class Painter:
    """Draws people as a `Look` says.

    Attributes:
        threads: how many may draw at once; None: any number. Trails need the frames in order.
    """

    def __init__(self, look: Look, skeleton: Skeleton) -> None:
        """Start with nobody's trail.

        Raises:
            PosezooError: there is no such theme.
        """
        from posezoo import draw

        self._draw = draw
        self._beside = look.side_by_side
        self._options: dict[str, Any] = {key: True for key in ("boxes", "names") if getattr(look, key)}
        if not look.ids:
            self._options["ids"] = False
        if look.theme != "default":
            self._options["theme"] = draw.get_theme(look.theme)
        self._trails = draw.Trails(skeleton) if look.trails else None
        if self._trails is not None:
            self._options["trails"] = self._trails
        self.threads = 1 if look.trails else None

    def __call__(self, image_rgb: Image, poses: Poses, time_s: float, spare: bool = False) -> Image:
        """The picture with the people on it.

        Args:
            image_rgb: (H, W, 3) uint8.
            poses: the people.
            time_s: when that was, in seconds.
            spare: nobody needs `image_rgb` any more: it may be drawn upon.
        """
        if self._trails is not None:
            self._trails.add(poses, time_s)
        options = self._options
        if spare and not self._beside and image_rgb.flags.writeable and image_rgb.flags.c_contiguous:
            options = {**options, "out": image_rgb}
        drawn = self._draw.draw_poses(image_rgb, poses, **options)
        return self._draw.side_by_side(image_rgb, drawn) if self._beside else drawn
