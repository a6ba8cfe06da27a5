"""Detectors of others as ONNX files: told by what they take and give, and run by ONNX Runtime.

The kinds are listed in onnx_kinds.toml. Where a file's inputs, outputs, operators and metadata leave open which kind it
is, a file beside it, of its name and .toml, says so, as in

    kind = "plain"
    channels = "bgr"
    range = 255
    size_wh = [416, 416]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.runtimes import open_onnx
from posezoo.detect import embedded, onnx_told
from posezoo.detect.classes import COCO, names_of
from posezoo.detect.network import PERSON, STRIDE, Candidates, Fit, PersonDetector, Settings, View, class_numbers
from posezoo.detect.onnx_graph import read_graph
from posezoo.detect.onnx_read import READERS, Writing, is_decoded, misread, strides_of
from posezoo.detect.onnx_session import WHOLE, Port, Session, listed, ports_of, session_of
from posezoo.detect.onnx_told import Told, told_of
from posezoo.errors import PosezooError

_USUAL = (640, 640)
_OURS = {"scores", "boxes_xyxy"}
_SINGLE = ("grid", "rows", "columns", "found")  # readers of one output that has all


def open_foreign(
    file: str | os.PathLike[str],
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    *,
    score: float | None = None,
    nms: float | None = None,
    classes: Sequence[str] = PERSON,
    batch_size: int | None = None,
) -> PersonDetector:
    """Any .onnx file of a detector, ours too; arguments as for `get_detector`.

    Raises:
        PosezooError: it is of no kind that is known (the message has what it takes and gives, and how to say what it
            is), it finds joints rather than people, or it does not know the classes.
    """
    path = Path(file)
    asked: dict[str, Any] = {"score": score, "nms": nms, "classes": classes, "batch_size": batch_size}
    opened = open_onnx(path, device, threads)
    outputs = ports_of(opened.session.get_outputs())
    if opened.metadata() or {port.name for port in outputs} == _OURS:
        if runtime == "openvino":
            return embedded.open_file(path, runtime, device, threads, **asked)
        return embedded.around(opened, path, **asked)
    metadata = opened.session.get_modelmeta().custom_metadata_map
    _check_is_detector(path, outputs, metadata)
    session = session_of(path, opened)
    said, where = onnx_told.beside(path)
    kind = said.pop("kind", None)
    probe = _probe(path, session, session.fixed_wh or _asked_size(said) or _USUAL)
    if kind is None and "reads" not in said:
        kind, more = _recognise(path, session, probe, metadata)
        said = {**more, **said}
    told = told_of(kind, said, where or path)
    return _detector(path, session, told, probe, onnx_told.names_in(metadata), **asked)


class _Probe(NamedTuple):
    """What a black picture of a size gave, output by output."""

    size_wh: tuple[int, int]
    outputs: list[NDArray]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [output.shape for output in self.outputs]


def _asked_size(said: Mapping[str, Any]) -> tuple[int, int] | None:
    size = said.get("size_wh")
    return size if onnx_told.is_size(size) else None


def _probe(path: Path, session: Session, size_wh: tuple[int, int]) -> _Probe:
    """Run the graph once, which also tells at once whether it runs at all."""
    try:
        given = session(np.zeros((1, 3, size_wh[1], size_wh[0]), np.float32))
    except PosezooError as err:
        raise PosezooError(f"{path}: {err}") from None
    return _Probe(size_wh, [np.asarray(output[0]) for output in given])


def _check_is_detector(path: Path, outputs: Sequence[Port], metadata: Mapping[str, str]) -> None:
    """See that it does not find joints."""
    maps = [port for port in outputs if len(port.shape) == 4]
    joints = [port for port in outputs if any(word in port.name.lower() for word in ("keypoint", "simcc", "heatmap"))]
    if joints or len(maps) == len(outputs):
        raise _pose_network(path, f"it gives {listed(joints or maps)}")
    if metadata.get("task", "detect") != "detect":
        raise _pose_network(path, f"its metadata says its task is {metadata['task']}")


def _pose_network(path: Path, why: str) -> PosezooError:
    return PosezooError(f"{path} is no detector, but seems to be a pose network ({why}): -m takes those")


def _recognise(path: Path, session: Session, probe: _Probe, metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The kind of a graph, and what else is known of it.

    Raises:
        PosezooError: it is of none, or may be of several.
    """
    shapes, names = probe.shapes, {port.name for port in session.outputs}
    fives = [shape for shape in shapes if len(shape) == 2 and shape[-1] == 5]
    if len(shapes) == 2 and fives and any(len(shape) == 1 for shape in shapes):
        return _of_mmdeploy(path, session)
    if len(shapes) == 1 and len(shapes[0]) == 2:
        kind = _of_one(probe.outputs[0], probe.size_wh)
        if kind:
            return kind, {}
        if shapes[0][1] == 6:
            if metadata.get("author") == "Ultralytics":
                return "yolov10", {}
            reason = (
                "six numbers a box, maybe its corners, its score and its class, and how it wants a picture is not said"
            )
            raise _unclear(path, session, reason, "yolov10")
    plain = any(len(shape) == 2 and shape[-1] == 4 for shape in shapes) and len(shapes) > 1
    if plain and "detection_boxes" in names:
        return "tensorflow", {}
    if plain and session.one_by_one:
        return "torchvision", {}
    if plain and any(port.is_sizes for port in session.others):
        return "rtdetr-sizes", {}
    if plain and len(shapes) == 2 and any("logit" in name for name in names):
        counts = [shape[-1] for port, shape in zip(session.outputs, shapes, strict=True) if "logit" in port.name]
        if counts[0] in (92, 80):
            return ("detr" if counts[0] == 92 else "rtdetr"), {}
    reason = "plain boxes, and how it wants a picture is not said" if plain else "of no kind that is known"
    raise _unclear(path, session, reason, "plain" if plain else None)


def _of_one(table: NDArray, size_wh: tuple[int, int]) -> str | None:
    """The kind whose one output is like this, without the batch."""
    rows, columns = table.shape
    if columns >= 6 and strides_of(rows, size_wh):
        # YOLOv6 fills in whether there is anything, which YOLOX computes
        return "yolov6" if (table[:, 4] == 1).all() else "yolox"
    if columns >= 6 and rows % 3 == 0 and strides_of(rows // 3, size_wh):
        return "yolov5"
    return "yolov8" if rows >= 5 and strides_of(columns, size_wh) else None


def _of_mmdeploy(path: Path, session: Session) -> tuple[str, dict[str, Any]]:
    """Which of the detectors that MMDeploy exports alike: as the file beside it says, or else by their operators."""
    if prepared := onnx_told.pipeline(path):
        return "mmdeploy", prepared
    graph = read_graph(path, {session.image.name})
    if "Slice" in graph.first:  # it begins by putting every other pixel into channels
        return "yolox-nms", {}
    if "Conv" in graph.first and "Relu" not in graph.kinds:  # all of its activations are SiLU
        return "rtmdet", {}
    reason = f"exported by MMDeploy, it seems, but neither RTMDet nor YOLOX ({onnx_told.PIPELINE} beside it would help)"
    raise _unclear(path, session, reason, None)


def _unclear(path: Path, session: Session, reason: str, kind: str | None) -> PosezooError:
    """The error for a graph that nobody knows how to use: what was seen, and how to say what it is."""
    which = f'kind = "{kind}"' if kind else f"kind = one of {', '.join(onnx_told.kinds())}"
    return PosezooError(
        f"{path} is {reason}: it takes {listed((session.image, *session.others))} and gives "
        f"{listed(session.outputs)}; write {path.with_suffix('.toml')} with {which} and what differs from that of "
        f"{', '.join(onnx_told.KEYS)}"
    )


def _detector(
    path: Path,
    session: Session,
    told: Told,
    probe: _Probe,
    carried: tuple[str, ...] | None,
    *,
    score: float | None,
    nms: float | None,
    classes: Sequence[str],
    batch_size: int | None,
) -> PersonDetector:
    """The detector around a session, of which all is told."""
    who = str(path)
    places = _places(path, session, told, probe)
    _check_outputs(path, session, told.reads, places, probe.outputs)
    if told.reads == "grid" and not _check_grid(path, probe, places["boxes"]):
        told = replace(told, reads="rows")
    known = _class_names(who, told, probe, places, carried)
    wanted = class_numbers(classes, known, who)
    fit = _fit(session, told)
    settings = Settings.of(
        {"long_side": max(STRIDE, *fit.size_wh), "score": told.score, "nms": told.nms}, score=score, nms=nms
    )
    reader = READERS[told.reads]

    def read(outputs: Sequence[NDArray], view: View, least: float) -> Candidates:
        writing = Writing(told.boxes, told.unit, fit.canvas_wh(view.size_wh))
        _check_outputs(path, session, told.reads, places, outputs)  # how many there are may depend on the picture
        return reader({role: np.asarray(outputs[place]) for role, place in places.items()}, writing, least)

    return PersonDetector(session, settings, fit, read, wanted, batch_size)


def _fit(session: Session, told: Told) -> Fit:
    """How a picture becomes the input; what the graph fixes goes before what is told."""
    fixed, place = session.fixed_wh, told.place
    if fixed and place in ("tight", "as-is"):
        place = "top-left" if place == "tight" else "stretch"
    mean, std = (tuple(value / told.range for value in values) for values in (told.mean, told.std))
    raw = session.image.colours_last and session.image.type == "tensor(uint8)"
    how: dict[str, Any] = {name: getattr(told, name) for name in ("fill", "resize", "rounding", "channels")}
    how |= {"place": place, "mean": mean, "std": std, "layout": "pixels" if raw else "planes"}
    return Fit(fixed or told.size_wh, **how)


def _places(path: Path, session: Session, told: Told, probe: _Probe) -> dict[str, int]:
    """Which output is what: as told, or by its name, its type and its shape."""
    ports, shapes = session.outputs, probe.shapes
    if told.outputs is not None:
        order = {port.name: place for place, port in enumerate(ports)}
        for name in told.outputs.values():
            if name not in order:
                raise PosezooError(f"{path} has no output '{name}': it gives {listed(ports)}")
        places = {role: order[name] for role, name in told.outputs.items()}
    elif told.reads in _SINGLE:
        places = {"boxes": 0}
    else:
        places = _guessed(ports, shapes, 5 if told.reads == "dets" else 4)
    needed = {"dets": ("boxes", "labels")}.get(told.reads, ("boxes",) if told.reads in _SINGLE else ("boxes", "scores"))
    for role in needed:
        if role not in places:
            raise PosezooError(
                f"{path}: which of its outputs has the {role} is not clear ({listed(ports)}): say so in "
                f"{path.with_suffix('.toml')}, as outputs = {{ boxes = NAME, scores = NAME, labels = NAME }}"
            )
    return places


def _guessed(ports: Sequence[Port], shapes: Sequence[tuple[int, ...]], width: int) -> dict[str, int]:
    """What each output is; boxes are `width` numbers each."""
    places: dict[str, int] = {}
    for place, (port, shape) in enumerate(zip(ports, shapes, strict=True)):
        name = port.name.lower()
        if len(shape) == 2 and shape[-1] == width and "boxes" not in places and "logit" not in name:
            places["boxes"] = place
        elif len(shape) == 1 and (port.type in WHOLE or "class" in name or "label" in name):
            places.setdefault("labels", place)
        elif len(shape) in (1, 2) and port.type not in WHOLE and "num" not in name:
            places.setdefault("scores", place)
    return places


def _check_outputs(
    path: Path, session: Session, reads: str, places: Mapping[str, int], outputs: Sequence[NDArray]
) -> None:
    """See that what the graph gives for a picture is what its kind gives.

    Raises:
        PosezooError: an output has another shape; the message has its name and both shapes.
    """
    given = {role: np.asarray(outputs[place]) for role, place in places.items()}
    if wrong := misread(reads, given):
        role, wanted = wrong
        port, found = session.outputs[places[role]], given[role]
        raise PosezooError(
            f"{path}: as its {role}, read as {reads}, '{port.name}' must be {wanted} for a picture, but is "
            f"{found.dtype} {found.shape}: say in {path.with_suffix('.toml')} which kind it is, or which output is what"
        )


def _check_grid(path: Path, probe: _Probe, place: int) -> bool:
    """Whether YOLOX's boxes still count from their cells.

    Raises:
        PosezooError: they are as many as no grid has cells.
    """
    table = probe.outputs[place]
    if strides_of(len(table), probe.size_wh) is None:
        raise PosezooError(
            f"{path} gives {table.shape} for an input of {probe.size_wh[0]} x {probe.size_wh[1]}, which is no YOLOX "
            "grid of strides 8, 16 and 32: its size_wh or its kind is another"
        )
    return not is_decoded(table, probe.size_wh)


def _class_names(
    who: str, told: Told, probe: _Probe, places: Mapping[str, int], carried: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The names of its classes, by number; COCO's 80 where it only gives labels and nothing says more."""
    shapes = {role: probe.shapes[place] for role, place in places.items()}
    given = told.names or carried
    if told.reads in _SINGLE and told.reads != "found":
        skipped = 4 if told.reads == "columns" else 5
        count = shapes["boxes"][0 if told.reads == "columns" else 1] - skipped
    elif "scores" in shapes and len(shapes["scores"]) == 2:
        count = shapes["scores"][1] - (told.reads == "softmax")
    elif told.reads == "found" or "labels" in shapes:
        return given or COCO
    else:
        return PERSON
    way_out = f'say so in {Path(who).with_suffix(".toml")}, as classes = ["person", ...]'
    return names_of(count, given, who, way_out)
