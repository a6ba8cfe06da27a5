"""Where the people are: a detector takes images and gives the person boxes of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError, unknown_name
from posezoo.types import Boxes

__all__ = ["DETECTORS", "Detector", "get_detector"]

DETECTORS = ("embedded", "whole")


@runtime_checkable
class Detector(Protocol):
    """Finds the people in images."""

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """The boxes of each image.

        Args:
            images_rgb: (H, W, 3) uint8 each, of any sizes; there may be none.
            names: the path that each image came from, for a detector that looks boxes up.

        Returns:
            One `Boxes` an image, best score first, in pixels of that image; empty where nobody is.
        """
        ...


def get_detector(
    spec: str | os.PathLike[str] | Detector,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Detector:
    """The detector that a name, a file or a detector stands for.

    Args:
        spec: "embedded" (the packaged network), "whole" (one box, the whole image), a .json file of boxes, an .onnx
            file of a detector network, or any callable that is a `Detector`, which is returned as it is.
        runtime: see `posezoo.deploy.runtimes.open_runtime`.
        device: see there.
        threads: see there.

    Raises:
        PosezooError: an unknown name (with the nearest valid ones), or a file that cannot be read.
    """
    if not isinstance(spec, str | os.PathLike):
        if not callable(spec):
            raise PosezooError(f"a detector must be a name, a file or a callable, but is {type(spec).__name__}")
        return spec
    name = os.fspath(spec)
    suffix = Path(name).suffix.lower()
    if name == "whole":
        from posezoo.detect.whole_image import WholeImage

        return WholeImage()
    if suffix == ".json":
        from posezoo.detect.boxes_file import BoxesFile

        return BoxesFile.read(name)
    if name == "embedded" or suffix == ".onnx":
        from posezoo.detect.embedded import open_detector

        return open_detector(name, runtime, device, threads)
    hint = "(or a .json file of boxes, or an .onnx file of a detector)"
    raise unknown_name("detector", name, DETECTORS, hint)
