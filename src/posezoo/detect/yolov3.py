"""YOLOv3 and YOLOv3-SPP (arXiv 1804.02767) from darknet's files, run as AlphaPose runs them.

The picture is scaled bicubically into the middle of a grey square; a box counts by its objectness alone, and for a
person where that is its best class; overlaps are measured with the last pixel inside; and where more than 100 people
are left, they are suppressed anew, with a threshold that is lower by 0.05.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.runtimes import Runtime, TorchRuntime, default_threads, open_runtime
from posezoo.detect.classes import COCO, names_of, read_names
from posezoo.detect.network import PERSON, Candidates, Fit, PersonDetector, Settings, View, class_numbers
from posezoo.errors import PosezooError, require

if TYPE_CHECKING:
    from posezoo.models.darknet import Darknet
    from posezoo.zoo import Entry

GREY = 128
SIZE = 608
SETTINGS = {"long_side": SIZE, "score": 0.05, "nms": 0.6, "max_people": 1000, "pixel": 1.0, "crowd": 100}
FILES = (".weights", ".cfg")
_HEADS = (16, 20)  # bytes before the numbers of a .weights file, by its version


def fit_of(size_wh: tuple[int, int]) -> Fit:
    """How a picture becomes the input: RGB in [0, 1]."""
    return Fit(size_wh, "centre", GREY, "cubic", "down")


def read(outputs: Sequence[NDArray], view: View, least: float) -> Candidates:
    """The rows of one picture: centre x, y, width, height, objectness and one number a class."""
    rows = outputs[0]
    rows = rows[rows[:, 4] >= least]
    half = rows[:, 2:4] / 2
    xyxy = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
    return Candidates(xyxy, rows[:, 4], rows[:, 5:].argmax(axis=1))


def is_yolov3(arch: str) -> bool:
    """Whether an architecture of the zoo is one of these."""
    return arch in ("yolov3", "yolov3_spp")


def open_yolov3(
    entry: Entry,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    **asked: Any,
) -> PersonDetector:
    """A YOLOv3 entry of the zoo; arguments as for `get_detector`.

    Args:
        entry: of the zoo.
        runtime: see there.
        device: see there.
        threads: see there.
        weights: a file to use instead of the entry's own.
        asked: `score`, `nms`, `classes` and `batch_size`, see there.
    """
    _check_classes(COCO, entry.name, asked)  # before 250 MB are fetched
    opened = open_runtime(entry, runtime, device, threads, weights)
    return detector_of(opened, entry.input_size_wh, COCO, dict(entry.detector or {}), entry.name, **asked)


def open_darknet(
    file: str | os.PathLike[str],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    **asked: Any,
) -> PersonDetector:
    """A `.weights` file, or the `.cfg` beside it; arguments as for `open_yolov3`.

    Its layers, and its input size, are those of the cfg of the same name beside it; without one they are those of
    YOLOv3 or YOLOv3-SPP, whichever has as many numbers. Names of its classes may lie beside it too, as `.names`.

    Raises:
        PosezooError: a file is missing, damaged, or of another network.
    """
    weights, cfg = Path(file).with_suffix(".weights"), Path(file).with_suffix(".cfg")
    if Path(file).suffix.lower() == ".weights":
        weights = Path(file)
    if not Path(file).is_file():
        raise PosezooError(f"no such file: {file}")
    if not weights.is_file():
        raise PosezooError(f"{cfg} says how a network is laid out, but its weights are missing: expected {weights}")
    require("torch", "torch", f"running {weights} with torch")
    if not cfg.is_file():
        from posezoo.zoo import get_entry

        entry = get_entry(_arch_of(weights, cfg).replace("_", "-"))
        return open_yolov3(entry, runtime, device, threads, weights=weights, **asked)
    model, size_wh = _network(cfg)
    (classes,) = {yolo.classes for yolo in model.yolos}
    names = weights.with_suffix(".names")
    known = names_of(classes, read_names(names), str(weights), f"name them in {names}, one a line")
    _check_classes(known, str(weights), asked)
    from posezoo.zoo.weights import load_weights

    load_weights(model, weights)
    opened = _opened(model.eval(), runtime, device, threads, cfg)
    return detector_of(opened, size_wh, known, {}, str(weights), **asked)


def detector_of(
    runtime: Runtime,
    size_wh: tuple[int, int],
    known: Sequence[str],
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
        size_wh: of its input.
        known: the names of its classes.
        values: its settings, where they are not AlphaPose's.
        who: the network, for messages.
        score: see `get_detector`.
        nms: see there.
        classes: see there.
        batch_size: see there.
    """
    settings = Settings.of({**SETTINGS, "long_side": max(size_wh), **values}, score=score, nms=nms)
    return PersonDetector(runtime, settings, fit_of(size_wh), read, class_numbers(classes, known, who), batch_size)


def _check_classes(known: Sequence[str], who: str, asked: dict[str, Any]) -> None:
    class_numbers(asked.get("classes", PERSON), known, who)


def _arch_of(weights: Path, cfg: Path) -> str:
    """The architecture whose numbers fill a file of this size."""
    from posezoo.models import darknet
    from posezoo.models.build import outline
    from posezoo.zoo.weights.darknet import count

    size = weights.stat().st_size
    numbers = {arch: count(outline(arch, 0)) for arch in darknet.ARCHS}
    for arch, wanted in numbers.items():
        if size in [4 * wanted + head for head in _HEADS]:
            return arch
    sizes = " nor ".join(f"{4 * wanted + _HEADS[-1]} of {arch}" for arch, wanted in numbers.items())
    raise PosezooError(
        f"{weights} has {size} bytes, neither {sizes}: it is cut off, or of another network, whose cfg has to lie "
        f"beside it as {cfg.name}"
    )


def _network(cfg: Path) -> tuple[Darknet, tuple[int, int]]:
    """The network that a cfg lays out, and the width and height that it asks for."""
    from posezoo.models.darknet import Darknet, Section, parse_cfg

    try:
        text = cfg.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise PosezooError(f"cannot read {cfg}: {getattr(err, 'strerror', None) or 'it is not text'}") from None
    try:
        sections = parse_cfg(text)
        model = Darknet(sections)
        net = sections[0] if sections[0].kind in ("net", "network") else Section("net")
        size_wh = net.integer("width", str(SIZE)), net.integer("height", str(SIZE))
    except PosezooError as err:
        raise PosezooError(f"{cfg}: {err}") from None
    coarsest = max(yolo.stride for yolo in model.yolos)
    if min(size_wh) < coarsest or any(side % coarsest for side in size_wh):
        raise PosezooError(f"{cfg}: width and height must be multiples of {coarsest}, but are {size_wh}")
    if len({yolo.classes for yolo in model.yolos}) > 1:
        raise PosezooError(f"{cfg}: every [yolo] must tell as many classes apart")
    return model, size_wh


def _opened(model: Darknet, runtime: str, device: str, threads: int | None, cfg: Path) -> TorchRuntime:
    """A network that no zoo entry describes, run by torch."""
    import torch

    if runtime not in ("auto", "torch", "torch-compile"):
        raise PosezooError(f"{cfg}: only torch runs a network of one's own cfg, not {runtime}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise PosezooError("torch found no CUDA device: choose --device cpu")
    place = "cuda" if has_cuda and device != "cpu" else "cpu"
    module: Any = model
    module = module.to(device=place, memory_format=torch.channels_last)
    return TorchRuntime(module, place, limit=threads if threads is not None else default_threads())
