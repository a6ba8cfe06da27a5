"""What is said of someone else's detector beside its graph: a TOML file, MMDeploy's pipeline.json, its metadata."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from posezoo import toml
from posezoo.deploy.metadata import LONGEST_SIDE
from posezoo.detect.classes import LISTS
from posezoo.detect.network import PLACES, RESIZES
from posezoo.detect.onnx_read import BOXES, READERS, UNITS
from posezoo.errors import PosezooError, unknown_name

PIPELINE = "pipeline.json"
ROLES = ("boxes", "scores", "labels")
Triple = tuple[float, float, float]
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Told:
    """All that a kind of detector needs said; see onnx_kinds.toml.

    Attributes:
        reads: what its outputs mean, a key of `READERS`.
        title: what the kind is, in words.
        boxes: how a box is written, see `Writing`.
        unit: in what, see there.
        place: see `Fit`.
        size_wh: of the input, where the graph does not fix it.
        fill: see `Fit`.
        resize: see there.
        rounding: see there.
        channels: see there.
        range: what white becomes before `mean` is subtracted.
        mean: of each channel, in 0..range.
        std: of each channel, in 0..range.
        classes: the names of its classes, or of a list of `classes.LISTS`; None: its metadata says, or their number.
        outputs: which output is the "boxes", the "scores" and the "labels"; None: their names and shapes say.
        score: boxes below it are dropped.
        nms: see `Settings`.
    """

    reads: str
    title: str = ""
    boxes: str = "xyxy"
    unit: str = "input"
    place: str = "top-left"
    size_wh: tuple[int, int] = (640, 640)
    fill: int = 114
    resize: str = "linear"
    rounding: str = "nearest"
    channels: str = "rgb"
    range: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    classes: str | tuple[str, ...] | None = None
    outputs: Mapping[str, str] | None = None
    score: float = 0.3
    nms: float = 0.6

    def __post_init__(self) -> None:
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown_name(name, str(getattr(self, name)), valid, f"(valid: {', '.join(valid)})")
        texts = isinstance(self.classes, tuple) and all(isinstance(n, str) for n in self.classes)
        rules = {
            f"size_wh must be two positive whole numbers, at most {LONGEST_SIDE}": is_size(self.size_wh),
            "fill must be a grey level in 0..255": _are((self.fill,), int, 1) and 0 <= self.fill <= 255,
            "range must be a positive number": _are((self.range,), float, 1) and self.range > 0,
            "mean must be three numbers": _are(self.mean, float, 3),
            "std must be three positive numbers": _are(self.std, float, 3) and min(self.std) > 0,
            f"classes must be names, or one of {', '.join(LISTS)}": self.classes is None
            or texts
            or (isinstance(self.classes, str) and self.classes in LISTS),
            "score must be in 0..1": _are((self.score,), float, 1) and 0 <= self.score <= 1,
            "nms must be above 0 and at most 1": _are((self.nms,), float, 1) and 0 < self.nms <= 1,
            f"outputs must name {', '.join(ROLES)}, each by the text that the graph calls it": self.outputs is None
            or (
                isinstance(self.outputs, Mapping)
                and set(self.outputs) <= set(ROLES)
                and all(isinstance(name, str) for name in self.outputs.values())
            ),
        }
        for message, holds in rules.items():
            if not holds:
                raise PosezooError(f"{message}, but is {getattr(self, message.partition(' ')[0])!r:.60}")

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the classes by number, where they are said."""
        return LISTS[self.classes] if isinstance(self.classes, str) else self.classes


_CHOICES = {
    "reads": tuple(READERS),
    "boxes": BOXES,
    "unit": UNITS,
    "place": PLACES,
    "resize": RESIZES,
    "rounding": ("nearest", "down"),
    "channels": ("rgb", "bgr"),
}
KEYS = tuple(f.name for f in fields(Told) if f.name != "title")


def _are(values: Any, kind: type, count: int) -> bool:
    kinds = int if kind is int else (int, float)
    return (
        isinstance(values, tuple)
        and len(values) == count
        # a whole number may be longer than any float has it
        and all(isinstance(v, kinds) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in values)
    )


def is_size(size: Any) -> bool:
    """Whether it can be the size of an input."""
    return _are(size, int, 2) and min(size) > 0 and max(size) <= LONGEST_SIDE


@cache
def kinds() -> dict[str, dict[str, Any]]:
    """Every kind that is known, by name, with what is said of it."""
    return {name: _tuples(row) for name, row in toml.load(Path(__file__).with_name("onnx_kinds.toml")).items()}


def told_of(kind: str | None, said: Mapping[str, Any], where: object) -> Told:
    """What a kind says, and what is said of one file, which goes before it.

    Raises:
        PosezooError: an unknown kind, key or value; the message says where it stands.
    """
    if kind is not None and not (isinstance(kind, str) and kind in kinds()):
        raise unknown_name("kind", str(kind), kinds(), f"(in {where})")
    for key in said:
        if key not in KEYS:
            raise unknown_name("key", key, ("kind", *KEYS), f"(in {where})")
    try:
        return Told(**{**(kinds()[kind] if kind else {}), **said})
    except PosezooError as err:
        raise PosezooError(f"{where}: {err}") from None


def beside(file: Path) -> tuple[dict[str, Any], Path | None]:
    """What the TOML file beside a network says, and its path; nothing and None where there is none."""
    path = file.with_suffix(".toml")
    return (_tuples(toml.load(path)), path) if path.is_file() else ({}, None)


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def names_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names that a file carries as a table of numbers and names, as Ultralytics' do; None where it does not."""
    try:
        found = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that it raises for what it cannot
        return None
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or set(found) != set(range(len(found))):
        return None
    return tuple(str(found[number]) for number in range(len(found)))


def pipeline(file: Path) -> dict[str, Any]:
    """What MMDeploy wrote beside a network of how a picture is prepared; nothing where it did not.

    Raises:
        PosezooError: the file is damaged.
    """
    path = file.with_name(PIPELINE)
    if not path.is_file():
        return {}
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["pipeline"]["tasks"]
        steps = {step["type"]: step for task in reversed(tasks) for step in reversed(task.get("transforms", ()))}
        return _prepared(steps)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise PosezooError(f"{path} is not the pipeline.json that MMDeploy writes beside a detector") from None


def _prepared(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Of the steps of a pipeline, by type, what we call them."""
    resize, norm, pad = steps["Resize"], steps.get("Normalize", {}), steps.get("Pad", {})
    size = resize.get("size") or resize["scale"]
    fixed = bool(pad.get("size") or pad.get("pad_to_square"))
    fill = pad.get("pad_val", 0)
    fill = fill.get("img", 0) if isinstance(fill, dict) else fill
    return {
        "size_wh": tuple(size) if isinstance(size, list) else (size, size),
        "place": "stretch" if not resize.get("keep_ratio") else "top-left" if fixed else "tight",
        "fill": int(fill[0] if isinstance(fill, list) else fill),
        "channels": "rgb" if norm.get("to_rgb") else "bgr",
        "mean": tuple(norm.get("mean", (0.0, 0.0, 0.0))),
        "std": tuple(norm.get("std", (1.0, 1.0, 1.0))),
    }
