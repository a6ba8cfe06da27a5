"""Two pictures side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posezoo.draw.labels import ink_on, largest_scale, text, write
from posezoo.draw.themes import Theme, get_theme
from posezoo.errors import PosezooError

Image = NDArray[np.uint8]


def side_by_side(
    left_rgb: Image,
    right_rgb: Image,
    *,
    titles: tuple[str, str] | None = None,
    gap: int = 4,
    theme: str | Theme = "default",
    out: Image | None = None,
) -> Image:
    """Both pictures in one, as large as they are; one that is lower lies in the middle of the height.

    Args:
        left_rgb: (H, W, 3) uint8.
        right_rgb: (H, W, 3) uint8.
        titles: a word on each, at its top left corner.
        gap: columns between them.
        theme: the ground between and around them is its outline's colour.
        out: where to put them, an array of the size that comes back, as for the next frame of a video; None: a new one.

    Returns:
        (the larger height, both widths and the gap, 3) uint8.

    Raises:
        PosezooError: what is given is no picture, or `out` has another size.
        UnknownNameError: there is no such theme.
    """
    theme = get_theme(theme)
    for image in (left_rgb, right_rgb):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise PosezooError("can only put (H, W, 3) uint8 RGB arrays side by side")
    height, at = max(len(left_rgb), len(right_rgb)), left_rgb.shape[1] + gap
    shape = (height, at + right_rgb.shape[1], 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise PosezooError(f"these pictures side by side have the shape {shape}, but out has {out.shape}")
    out[:, left_rgb.shape[1] : at] = theme.outline
    for column, (image, x) in enumerate(((left_rgb, 0), (right_rgb, at))):
        y, part = (height - len(image)) // 2, out[:, x : x + image.shape[1]]
        part[:y] = part[y + len(image) :] = theme.outline
        part[y : y + len(image)] = image
        if titles is not None:
            word = text(titles[column], largest_scale(part))
            write(part[y : y + len(image)], word, 0, 0, theme.outline, ink_on(theme.outline), opaque=0.72)
    return out
