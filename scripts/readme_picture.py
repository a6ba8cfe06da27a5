"""The README's picture: what `make demo` drew, side by side.

make demo && .venv/bin/python scripts/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from posezoo.media.images import read_image, write_image

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("astronaut", "basketball", "grace_hopper", "pedestrians_2")
HEIGHT, GAP = 400, 8


def main() -> None:
    """Read the demo's pictures, write docs/images/demo.jpg."""
    pictures = []
    for name in NAMES:
        picture = read_image(ROOT / "demo-output" / f"{name}.jpg")
        width = round(picture.shape[1] * HEIGHT / picture.shape[0])
        pictures += [cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA)]
        pictures += [np.full((HEIGHT, GAP, 3), 255, np.uint8)]
    write_image(ROOT / "docs" / "images" / "demo.jpg", np.hstack(pictures[:-1]))


if __name__ == "__main__":
    main()
