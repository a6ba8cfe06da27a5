"""`Protocol`: all that stands between a network and its figure on a dataset, with the habits of each zoo as presets.

Sources of the presets: HRNet's and MMPose 0.x's configs (`oks_thr`, `vis_thr`, `image_thr`, `use_gt_bbox`, `flip_test`
and their uppercase kin), the readme of Simple Baselines, GluonCV's `validate.py` and `COCOKeyPointsMetric`, and the
notes on AlphaPose's model zoo page. That page says neither how AlphaPose scores a pose nor whether its COCO figures are
with pose NMS: its preset takes the product below and, on COCO, the NMS of its paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import PurePath
from typing import Any

from posezoo import toml
from posezoo.codecs import CODECS, get_codec
from posezoo.data.catalog import Dataset, get_dataset
from posezoo.errors import PosezooError, UnknownNameError, unknown_name
from posezoo.evaluate.predictions import BY_ANNOTATION

GROUND_TRUTH = "gt"
DETECTIONS = "detections"
SUPPRESSIONS = ("none", "oks", "soft-oks", "parametric", "box")
RESCORINGS = ("none", "joints", "product")


@dataclass(frozen=True)
class Protocol:
    """How people are found, estimated and scored before a dataset's metric judges them.

    Attributes:
        name: of the preset it started from.
        boxes: "gt", the annotated ones; a file of detections; or "detections" while the file is still to be named.
        box_threshold: detections that score less are left out.
        cut_boxes: annotated boxes end at the picture's edge, as HRNet and those after it have them.
        cut_pixel: one that may be cut is a pixel smaller even where it ends within the picture, as HRNet has them.
        box_scale: how much larger than the box the crop is; None: what belongs to the model.
        flip: average over the mirrored crop too.
        flip_shift: whether its heatmaps are moved by a pixel; None: what belongs to the model.
        decode: a codec by name; None: the model's.
        nms: "none"; "oks" or "soft-oks" with `nms_threshold`; "parametric"; or "box", on the boxes by their overlap.
        nms_threshold: similarity or overlap above which two are one person; how gentle soft-oks is.
        rescoring: the score of a pose: "none" the box's, "joints" the mean of its joints', "product" of both.
        min_joint_score: joints that score no more than this do not count in that mean.

    Raises:
        PosezooError: a value that is not of its kind or out of its range.
    """

    name: str = "plain"
    boxes: str = GROUND_TRUTH
    box_threshold: float = 0.0
    cut_boxes: bool = False
    cut_pixel: bool = False
    box_scale: float | None = None
    flip: bool = False
    flip_shift: bool | None = None
    decode: str | None = None
    nms: str = "none"
    nms_threshold: float = 0.9
    rescoring: str = "product"
    min_joint_score: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            kinds, value = _kinds(field), getattr(self, field.name)
            if "float" in kinds and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, float(value))
            elif ("None" if value is None else type(value).__name__) not in kinds:
                wanted = " or ".join(_WORDS[kind] for kind in kinds)
                raise PosezooError(f"protocol: {field.name} must be {wanted}, but is {value!r}")
        for field_name, known in (("nms", SUPPRESSIONS), ("rescoring", RESCORINGS)):
            if getattr(self, field_name) not in known:
                raise unknown_name(f"{field_name} of the protocol", getattr(self, field_name), known)
        if self.decode is not None:
            try:
                get_codec(self.decode)
            except UnknownNameError:
                raise unknown_name("decode of the protocol", self.decode, CODECS) from None
        for field_name in ("box_threshold", "nms_threshold", "min_joint_score"):
            if not 0 <= getattr(self, field_name) <= 1:
                raise PosezooError(f"protocol: {field_name} must be in 0..1, but is {getattr(self, field_name):g}")
        if self.nms == "soft-oks" and not self.nms_threshold:
            raise PosezooError("protocol: soft-oks divides by nms_threshold, which must be above 0")
        if self.box_scale is not None and not (self.box_scale > 0 and math.isfinite(self.box_scale)):
            raise PosezooError(f"protocol: box_scale must be above 0, but is {self.box_scale:g}")
        if not self.boxes:
            raise PosezooError("protocol: boxes must be 'gt' or a file of detections")

    @property
    def on_ground_truth(self) -> bool:
        """Whether people are looked for in their annotated boxes."""
        return self.boxes == GROUND_TRUTH

    def with_overrides(self, overrides: Iterable[str]) -> Protocol:
        """Other values from `key=value` texts, such as "flip=false" or "nms_threshold=0.5"; "none" stands for None.

        Raises:
            PosezooError: not of that form, an unknown key (with the nearest valid one), or a wrong value.
        """
        known = {field.name: _kinds(field) for field in fields(self) if field.name != "name"}
        values: dict[str, Any] = {}
        for text in overrides:
            key, sign, given = (part.strip() for part in text.partition("="))
            if not sign or not given:
                raise PosezooError(f"'{text}' is not key=value; the protocol has {', '.join(known)}")
            if key not in known:
                raise unknown_name("protocol setting", key, known)
            if given.lower() == "none" and "None" in known[key]:
                values[key] = None
            else:
                values[key] = given if "str" in known[key] else toml.value(given.lower())
        changed = [key for key, value in values.items() if key != "boxes" and value != getattr(self, key)]
        name = f"{self.name} with another {' and '.join(changed)}" if changed else self.name
        return replace(self, name=name, **values)

    def describe(self, dataset: str | None = None) -> str:
        """Everything in one line, as it is printed with and stored in every result.

        Args:
            dataset: whose own rules are told too.
        """
        found = "ground-truth boxes" + (" cut at the picture's edge" if self.cut_boxes else "")
        found += " and a pixel smaller" if self.cut_boxes and self.cut_pixel else ""
        if not self.on_ground_truth:
            found = f"boxes {PurePath(self.boxes).name} scoring {self.box_threshold:g} or more"
        shift = {True: " shifted by a pixel", False: " unshifted", None: ""}[self.flip_shift]
        score = {
            "none": "of the box",
            "joints": f"mean of joints above {self.min_joint_score:g}",
            "product": f"box x mean of joints above {self.min_joint_score:g}",
        }[self.rescoring]
        parts = [
            found,
            "crop as the model" if self.box_scale is None else f"crop {self.box_scale:g} x box",
            f"flip{shift}" if self.flip else "no flip",
            f"decode {self.decode or 'as the model'}",
            {
                "none": "no suppression",
                "oks": f"OKS-NMS {self.nms_threshold:g}",
                "soft-oks": f"soft OKS-NMS {self.nms_threshold:g}, at most 20 people",
                "parametric": "parametric pose NMS",
                "box": f"box NMS {self.nms_threshold:g}",
            }[self.nms],
            f"score {score}",
        ]
        if dataset is not None:
            parts += _rules(get_dataset(dataset))
        on = f" on {dataset}" if dataset else ""
        return f"{self.name}{on}: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return asdict(self)


_WORDS = {"str": "text", "float": "a number", "bool": "true or false", "None": "none"}


def _kinds(field: Field[Any]) -> list[str]:
    """What a field may be, of `_WORDS`: annotations are texts such as "float | None"."""
    return [part.strip() for part in str(field.type).split("|")]


def _rules(dataset: Dataset) -> list[str]:
    """What the dataset's own metric does whatever the protocol."""
    if dataset.metric not in ("oks", "wholebody"):
        return []
    return ["area 0.53 x box" if dataset.area == "box" else "area as annotated"]


_COCO_STYLE = Protocol(boxes=DETECTIONS, cut_boxes=True, cut_pixel=True, flip=True, nms="oks", nms_threshold=0.9)

PRESETS = {
    "plain": Protocol(),
    "hrnet": replace(_COCO_STYLE, name="hrnet"),
    "simplebaselines": replace(_COCO_STYLE, name="simplebaselines"),
    "mmpose": replace(_COCO_STYLE, name="mmpose", cut_pixel=False),
    "gluoncv": replace(_COCO_STYLE, name="gluoncv", boxes=GROUND_TRUTH, nms="none", min_joint_score=0.0),
    "alphapose": replace(
        _COCO_STYLE, name="alphapose", cut_boxes=False, cut_pixel=False, nms="parametric", min_joint_score=0.0
    ),
}
"""What each zoo does on COCO; "plain" is a network by itself: annotated boxes, no flip, nothing suppressed."""

_ON_DATASET: dict[tuple[str, str], dict[str, Any]] = {
    ("mmpose", "posetrack18"): {"box_threshold": 0.4},
    ("mmpose", "hand21"): {"cut_boxes": False},
    **{("alphapose", name): {"nms": "none"} for name in ("halpe26", "halpe68", "halpe136", "wholebody133")},
}


def get_protocol(name: str, dataset: str) -> Protocol:
    """A preset as it is for a dataset.

    Where figures on the dataset are of annotated boxes (see its `boxes` in the catalogue), so is the preset; where each
    annotated person has one prediction, nothing is suppressed either. Boxes made of a centre and a scale are
    not cut: no zoo does.

    Raises:
        UnknownNameError: no such preset or dataset.
    """
    if name not in PRESETS:
        raise unknown_name("protocol", name, PRESETS)
    preset, entry = PRESETS[name], get_dataset(dataset)
    own = _ON_DATASET.get((name, dataset), {})
    if entry.boxes_from:
        own = {**own, "cut_boxes": False}
    if dataset in BY_ANNOTATION:
        return replace(preset, boxes=GROUND_TRUTH, nms="none", **own)
    boxes = GROUND_TRUTH if entry.boxes == GROUND_TRUTH else preset.boxes
    return replace(preset, boxes=boxes, **own)


def protocol_of(source: str) -> str:
    """The name of the preset for models of a zoo: its own, or "plain" where it has none."""
    return source if source in PRESETS else "plain"


def need_boxes(protocol: Protocol, dataset: str) -> None:
    """Refuse a protocol that cannot be run.

    Raises:
        PosezooError: its detections are still to be named (the message has the file that the zoos took); it detects or
            suppresses people where the dataset's metric wants one prediction for each annotated person; or it cuts
            boxes that were made of a centre and a scale.
    """
    if dataset in BY_ANNOTATION:
        each = f"{dataset} is judged by one prediction for each annotated person"
        if not protocol.on_ground_truth:
            raise PosezooError(f"{each}: boxes must be gt")
        if protocol.nms != "none":
            raise PosezooError(f"{each}: nms must be none, but is {protocol.nms}")
    if protocol.cut_boxes and (made := get_dataset(dataset).boxes_from):
        raise PosezooError(f"the boxes of {dataset} are made of {made}, which no zoo cuts: cut_boxes must be false")
    if protocol.boxes != DETECTIONS:
        return
    files = get_dataset(dataset).box_files
    took = f" (the published figures took {files[0].file}: {files[0].what})" if files else ""
    raise PosezooError(
        f"the {protocol.name} protocol looks for the people of {dataset} in detected boxes{took}: "
        "give --boxes FILE, or --boxes gt for the annotated ones"
    )
