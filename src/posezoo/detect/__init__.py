"""Where the people are: a detector takes images and gives the person boxes of each."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError, UnknownNameError, unknown_name
from posezoo.types import Boxes

__all__ = ["DETECTORS", "Detector", "get_detector", "kind_of_file"]

DETECTORS = ("embedded", "yolov3-spp", "yolov3", "whole", "follow")
_FOLLOW = "follow"
_BOXES = (".json", ".jsonl", ".csv")


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
    spec: str | os.PathLike[str] | Detector | Callable[..., Any],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    *,
    score: float | None = None,
    nms: float | None = None,
    classes: Sequence[str] = ("person",),
    batch_size: int | None = None,
) -> Detector:
    """The detector that a name, a file or a detector stands for.

    Args:
        spec: "embedded" (the packaged network), "yolov3-spp" or "yolov3" (fetched once), "whole" (one box, the whole
            image), "follow" or "follow:SPEC" (one person, from frame to frame), an .onnx file of a detector (see
            `posezoo.detect.onnx`), any other that posezoo exported, a darknet .weights or .cfg file, a .json, .jsonl
            or .csv file of boxes or a folder of such (see `posezoo.detect.boxes_file`), or any callable that takes
            images and gives boxes for each; a `Detector` is returned as it is.
        runtime: see `posezoo.deploy.runtimes.open_runtime`; detectors of others run in ONNX Runtime whatever it is.
        device: see there.
        threads: see there.
        score: leave out boxes below it; None: what belongs to the weights, and for a file of boxes none.
        nms: of two boxes of a class that overlap by more than this intersection over union, leave out the worse one;
            None: what belongs to the weights, and for a file of boxes none.
        classes: the names of what is looked for, as COCO calls them.
        batch_size: pictures a network call; None: what suits the device.

    Raises:
        PosezooError: an unknown name (with the nearest valid ones), a file that cannot be read or is of another kind,
            a class that the detector does not know, or a threshold out of range.
    """
    if not isinstance(spec, str | os.PathLike):
        if not callable(spec):
            raise PosezooError(f"a detector must be a name, a file or a callable, but is {type(spec).__name__}")
        return spec if _takes_names(spec) else _without_names(spec)
    if batch_size is not None and batch_size < 1:
        raise PosezooError(f"the detector's batch_size must be 1 or more, but is {batch_size}")
    name = os.fspath(spec)
    if name == "whole":
        from posezoo.detect.whole_image import WholeImage

        return WholeImage()
    where: tuple[Any, ...] = (runtime, device, threads)
    asked: dict[str, Any] = {"score": score, "nms": nms, "classes": classes, "batch_size": batch_size}
    if name.partition(":")[0] == _FOLLOW:
        from posezoo.detect.follow import FollowOne

        return FollowOne(get_detector(name.partition(":")[2] or "embedded", *where, **asked))
    if kind_of_file(name) == "boxes":
        from posezoo.detect.boxes_file import BoxesFile

        return BoxesFile.read(name, score=score, nms=nms, classes=classes)
    return _network(name, where, asked)


def kind_of_file(name: str) -> Literal["boxes", "network"] | None:
    """What kind of file or folder a detector is given as; None: a name, whatever lies in the present folder by it.

    A folder whose name is that of a detector too is given with a path: ./yolov3.
    """
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.detect import yolov3

    suffix = Path(name).suffix.lower()
    if suffix in _BOXES:
        return "boxes"
    if suffix in yolov3.FILES or is_network_file(name):
        return "network"
    if name.partition(":")[0] in DETECTORS or not os.path.isdir(name):
        return None
    if os.path.basename(name) != name:
        return "boxes"
    from posezoo.zoo import find_entry

    return "boxes" if find_entry(name) is None else None


def _takes_names(detector: Callable[..., Any]) -> bool:
    """Whether it wants to be told which pictures these are."""
    try:
        taken = inspect.signature(detector).parameters.values()
    except (TypeError, ValueError):  # written in C: there is no telling
        return True
    return any(each.name == "names" or each.kind is each.VAR_KEYWORD for each in taken)


def _without_names(detector: Callable[..., Any]) -> Detector:
    """A detector of a callable that takes images alone."""

    def detect(images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None) -> list[Boxes]:
        return detector(images_rgb)

    return detect


def _network(name: str, where: tuple[Any, ...], asked: dict[str, Any]) -> Detector:
    """A detector network by its name or its file."""
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.detect import embedded, yolov3

    suffix = Path(name).suffix.lower()
    if suffix == ".onnx":
        from posezoo.detect.onnx import open_foreign

        return open_foreign(name, *where, **asked)
    if suffix in yolov3.FILES:
        return yolov3.open_darknet(name, *where, **asked)
    if name == "embedded" or is_network_file(name):
        return embedded.open_detector(name, *where, **asked)
    from posezoo.zoo import get_entry

    try:
        entry = get_entry(name)
    except UnknownNameError:
        hint = f"(or a file: boxes as {', '.join(_BOXES)}; a network as .onnx or .weights)"
        raise unknown_name("detector", name, DETECTORS, hint) from None
    if entry.task != "detection":
        raise PosezooError(f"{entry.name} finds joints, not people: give it as -m {name}")
    if yolov3.is_yolov3(entry.arch):
        return yolov3.open_yolov3(entry, *where, **asked)
    return embedded.open_detector(entry.name, *where, **asked)
