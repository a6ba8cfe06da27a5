"""The person detector that ships inside the package, and any network that keeps its contract.

Input `image` (N, 3, h, w) float32, RGB in [-1, 1], h and w multiples of 32; outputs `scores` (N, A) in [0, 1] and
`boxes_xyxy` (N, A, 4) in pixels of the input. The image is scaled so that its longer side is `long_side`, put in the
top left corner and padded with grey.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.runtimes import Runtime, is_network_file, open_runtime
from posezoo.detect import network
from posezoo.detect.classes import COCO
from posezoo.detect.network import PERSON, Candidates, Fit, PersonDetector, Settings, View, box_nms, class_numbers
from posezoo.errors import PosezooError
from posezoo.types import Boxes

__all__ = ["ENTRY", "PersonDetector", "Settings", "box_nms", "network_input", "open_detector", "read", "select"]

ENTRY = "embedded-detector"
_HALF = (0.5, 0.5, 0.5)


def fit_of(long_side: int) -> Fit:
    """How a picture becomes the input."""
    return Fit((long_side, long_side), "tight", resize="area", mean=_HALF, std=_HALF)


def network_input(image_rgb: NDArray[np.uint8], long_side: int) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1]: scaled, top left, padded with grey to multiples of 32."""
    return fit_of(long_side).inputs([image_rgb])


def read(outputs: Sequence[NDArray], view: View, least: float) -> Candidates:
    """The two outputs for one picture, in either order; boxes are cut at its edges before they are compared."""
    scores, boxes = outputs if outputs[0].ndim == 1 else outputs[::-1]
    return Candidates(view.inside(boxes), scores)


def select(scores: NDArray, boxes: NDArray, shape: tuple[int, ...], settings: Settings) -> Boxes:
    """Threshold and suppression for one image.

    Args:
        scores: (A,) in [0, 1].
        boxes: (A, 4) in pixels of the network's input.
        shape: of the image, height first.
        settings: the input's longer side, and the thresholds.

    Returns:
        Boxes in pixels of the image, best score first.
    """
    view = fit_of(settings.long_side).view((shape[1], shape[0]))
    return network.select(read([scores, boxes], view, settings.score), view, settings)


def open_detector(
    name_or_file: str | os.PathLike[str] = "embedded",
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    **asked: Any,
) -> PersonDetector:
    """The packaged detector, another entry of the zoo that keeps its contract, or an exported file of one.

    Args:
        name_or_file: what to open.
        runtime: see `get_detector`.
        device: see there.
        threads: see there.
        asked: `score`, `nms`, `classes` and `batch_size`, see there.
    """
    name = os.fspath(name_or_file)
    if is_network_file(name):
        return open_file(name, runtime, device, threads, **asked)
    from posezoo.zoo import get_entry

    entry = get_entry(ENTRY if name == "embedded" else name)
    opened = open_runtime(entry, _any_size(runtime), device, threads)
    return detector_of(opened, dict(entry.detector or {}), name, **asked)


def open_file(
    file: str | os.PathLike[str],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    **asked: Any,
) -> PersonDetector:
    """A detector that posezoo exported, of this contract or YOLOv3; arguments as for `open_detector`.

    Raises:
        PosezooError: it cannot be opened, or it finds joints rather than people.
    """
    return around(open_runtime(file, _any_size(runtime), device, threads), file, **asked)


def around(opened: Runtime, file: str | os.PathLike[str], **asked: Any) -> PersonDetector:
    """The detector around a file of ours that is open; errors as of `open_file`."""
    from posezoo.detect import yolov3

    values, name = opened.metadata(), os.fspath(file)
    if "skeleton" in values:
        raise PosezooError(f"{name} is no detector, but a pose network: -m takes those")
    arch = str(values.get("arch") or values.get("entry") or values.get("name")).partition(".")[0]
    settings = dict(values.get("detector") or {})
    if yolov3.is_yolov3(arch):
        side = settings.get("long_side", yolov3.SIZE)
        return yolov3.detector_of(opened, (side, side), COCO, settings, name, **asked)
    return detector_of(opened, settings, name, **asked)


def detector_of(
    runtime: Runtime,
    values: dict[str, Any],
    who: str,
    *,
    score: float | None = None,
    nms: float | None = None,
    classes: Sequence[str] = PERSON,
    batch_size: int | None = None,
) -> PersonDetector:
    """The detector around a network that is ready to compute.

    Args:
        runtime: computes it.
        values: its settings.
        who: the network, for messages.
        score: see `get_detector`.
        nms: see there.
        classes: see there.
        batch_size: see there.
    """
    wanted = class_numbers(classes, PERSON, who)
    settings = Settings.of(values, score=score, nms=nms)
    return PersonDetector(runtime, settings, fit_of(settings.long_side), read, wanted, batch_size)


def _any_size(runtime: str) -> str:
    """Without compiling: pictures have too many sizes for that."""
    return "torch" if runtime == "torch-compile" else runtime
