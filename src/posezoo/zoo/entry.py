"""`Entry`: one row of the zoo. It carries all that belongs to a set of weights, so that no user has to set it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from posezoo.errors import PosezooError, unknown_name

TASKS = ("pose", "detection")
CHANNELS = ("rgb", "bgr")
LICENCE_PARTS = ("code", "weights", "data")
_WHOLE = {"percent": 100, "fraction": 1}
_T = TypeVar("_T")


def _row(kind: type[_T], value: Mapping[str, Any]) -> _T:
    """A dataclass from a table; an unknown or missing key is an error that names it."""
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            raise unknown_name(f"{kind.__name__.lower()} field", key, known)
    try:
        return kind(**value)
    except TypeError as err:
        raise PosezooError(f"{kind.__name__.lower()} table: {str(err).partition(') ')[2] or err}") from None


@dataclass(frozen=True)
class Score:
    """What one measurement gave, as its source printed it.

    Attributes:
        dataset: what it was measured on, a name such as "coco" or "halpe136".
        metrics: name to number, exactly as printed. OKS: AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL, and with
            crowds APE, APMedium, APH. PCKh and PoseTrack: the joints' names as printed, "Mean" or "Total"; PCK the same
            after "PCK/" (by person) or "tPCK/" (by torso). Speed: "speed"; latency: "latency".
        unit: of every number: "percent" or "fraction" (accuracy), else that of a speed, such as "iter/s" or "ms".
        flip: whether the predictions of the flipped image were averaged in; None where the source does not say.
        protocol: boxes, split, date, command and whatever else the number depends on.
    """

    dataset: str
    metrics: Mapping[str, float]
    protocol: str
    unit: str = "percent"
    flip: bool | None = None

    def __post_init__(self) -> None:
        if not self.metrics:
            raise PosezooError(f"a score on {self.dataset} without a number")
        if self.unit not in _WHOLE:
            return
        for name, value in self.metrics.items():
            if not 0 <= value <= _WHOLE[self.unit]:
                raise PosezooError(f"{name} {value} on {self.dataset} is no {self.unit}")

    def percent(self, metric: str) -> float | None:
        """An accuracy in percent, or None where this score does not have it."""
        value = self.metrics.get(metric)
        return None if value is None or self.unit not in _WHOLE else value * 100 / _WHOLE[self.unit]


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        file: its name in the weights folder, or, where it begins with "embedded/", inside this package.
        urls: where it is published, tried in this order (maybe inside a .zip).
        dead: its source's page lists it, but no link there leads to it.
        sha256: of the file, 64 hex digits.
        bytes: its size.
        hash_tag: the first 8 hex digits of its hash, by which its source calls it.
        hash_tag_of: which hash that is, "sha1" or "sha256".
        note: anything else.
    """

    file: str
    urls: tuple[str, ...] = ()
    dead: bool = False
    sha256: str | None = None
    bytes: int | None = None
    hash_tag: str | None = None
    hash_tag_of: str = "sha1"
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "urls", tuple(self.urls))
        if not re.fullmatch(r"(embedded/)?\w[\w.+-]*", self.file, re.ASCII):
            raise PosezooError(f"weights file '{self.file}' is not a plain file name")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise PosezooError(f"{self.file}: sha256 must be 64 hex digits")
        if self.hash_tag is not None and not re.fullmatch(r"[0-9a-f]{8}", self.hash_tag):
            raise PosezooError(f"{self.file}: hash_tag must be 8 hex digits, not '{self.hash_tag}'")
        if self.hash_tag_of not in ("sha1", "sha256"):
            raise unknown_name("hash", self.hash_tag_of, ("sha1", "sha256"))

    @property
    def packaged(self) -> bool:
        """Whether the file ships inside this package."""
        return self.file.startswith("embedded/")


@dataclass(frozen=True, eq=False)
class Entry:
    """One network with one set of weights, and everything that belongs to them.

    Attributes:
        name: "arch.tag", the name it is listed under.
        source: the zoo that published it.
        family: the kind of network, such as "simple_pose".
        dataset: what it was trained on.
        arch: the architecture, a name that `posezoo.models.build` knows.
        input_size_wh: width and height of its input, in pixels.
        channels: the order it wants its colours in, "rgb" or "bgr".
        mean: of each channel in that order, subtracted from values in [0, 1].
        std: of each channel in that order; divided by after that.
        licence: of the "code", the "weights" and the training "data".
        task: "pose" or "detection".
        skeleton: its joints, a name that `posezoo.skeletons` knows; None for a detector.
        codec: how its output becomes coordinates, a name that `posezoo.codecs` knows; None for a detector.
        box_scale: how much larger than the person's box its crop is.
        flip_shift: whether, in a flip test, the flipped image's heatmaps move one column to the right.
        claimed: what its source says of it.
        claimed_cost: what its source says it costs: "params" in millions, "gflops" in its source's own count.
        measured: what was measured here.
        weights: its files, the best first.
        onnx: the packaged ONNX file, "embedded/....onnx", or None.
        detector: settings of a detector (score and overlap thresholds and the like), or None.
        recipe: the training recipe that makes such weights, a name in `recipes/`.
        links: of its source, as it gives them, by what they lead to: "config", "log", "script" and others.
        aliases: other names it goes by, such as what its source calls it; see also `called`.
        notes: anything else.

    Raises:
        PosezooError: a field out of its range; the message names the entry.
    """

    name: str
    source: str
    family: str
    dataset: str
    arch: str
    input_size_wh: tuple[int, int]
    channels: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: Mapping[str, str]
    task: str = "pose"
    skeleton: str | None = None
    codec: str | None = None
    box_scale: float = 1.25
    flip_shift: bool = False
    claimed: tuple[Score, ...] = ()
    claimed_cost: Mapping[str, float] = field(default_factory=dict)
    measured: tuple[Score, ...] = ()
    weights: tuple[Weights, ...] = ()
    onnx: str | None = None
    detector: Mapping[str, Any] | None = None
    recipe: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        for name in ("input_size_wh", "mean", "std", "claimed", "measured", "weights", "aliases"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for wrong in self._mistakes():
            raise PosezooError(f"zoo entry '{self.name}': {wrong}")

    @property
    def called(self) -> tuple[str, ...]:
        """What else it goes by: its aliases, its config, and its weights' files, addresses and hash tags."""
        config = self.links.get("config")
        weights = [name for w in self.weights for name in (w.file, *w.urls, w.hash_tag)]
        return tuple(name for name in (*self.aliases, config, *weights) if name)

    def _mistakes(self) -> list[str]:
        def is_triple(values: tuple[float, ...]) -> bool:
            return len(values) == 3 and all(isinstance(v, int | float) and math.isfinite(v) for v in values)

        size = self.input_size_wh
        is_pose = self.task == "pose"
        rules = {
            f"the name must be '{self.arch}.' and a tag": re.fullmatch(re.escape(self.arch) + r"\.\w[\w-]*", self.name),
            f"task must be one of {', '.join(TASKS)}": self.task in TASKS,
            "input_size_wh must be two positive whole numbers": len(size) == 2
            and all(isinstance(v, int) and v > 0 for v in size),
            f"channels must be one of {', '.join(CHANNELS)}": self.channels in CHANNELS,
            "mean must be three numbers": is_triple(self.mean),
            "std must be three positive numbers": is_triple(self.std) and min(self.std) > 0,
            "box_scale must be positive": math.isfinite(self.box_scale) and self.box_scale > 0,
            f"licence must tell of {', '.join(LICENCE_PARTS)}": set(self.licence) == set(LICENCE_PARTS),
            "a pose network needs a skeleton and a codec": not is_pose or (self.skeleton and self.codec),
            "a detector has no skeleton and no codec": is_pose or not (self.skeleton or self.codec),
            "onnx must be 'embedded/NAME.onnx'": self.onnx is None or re.fullmatch(r"embedded/[\w-]+\.onnx", self.onnx),
        }
        return [message for message, holds in rules.items() if not holds]

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Entry:
        """An entry from a TOML table; inner tables become `Score` and `Weights`.

        Raises:
            PosezooError: an unknown, missing or wrong field.
        """
        values = dict(table)
        try:
            for name in ("claimed", "measured"):
                values[name] = tuple(_row(Score, score) for score in values.get(name, ()))
            values["weights"] = tuple(_row(Weights, weights) for weights in values.get("weights", ()))
            return _row(cls, values)
        except PosezooError as err:
            who = f"zoo entry '{table.get('name', '?')}'"
            raise err if who in str(err) else PosezooError(f"{who}: {err}") from None
