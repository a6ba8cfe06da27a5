"""Protocols: each zoo's habits on each dataset, settings from the command line, and one line that says it all."""

from __future__ import annotations

import dataclasses
import json

import pytest

from posezoo.codecs import CODECS
from posezoo.data.catalog import list_datasets
from posezoo.errors import PosezooError
from posezoo.evaluate.predictions import BY_ANNOTATION
from posezoo.evaluate.protocol import PRESETS, Protocol, get_protocol, need_boxes, protocol_of
from posezoo.zoo import get_entry, list_models


@pytest.mark.parametrize("dataset", list_datasets())
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_every_dataset(name, dataset):
    protocol = get_protocol(name, dataset)
    line = protocol.describe(dataset)
    assert line.startswith(f"{name} on {dataset}: ")
    assert "\n" not in line
    if dataset in BY_ANNOTATION:
        assert (protocol.boxes, protocol.nms) == ("gt", "none")
        need_boxes(protocol, dataset)
    assert json.loads(json.dumps(protocol.to_dict())) == dataclasses.asdict(protocol)


def test_the_zoos_coco_protocols():
    """HRNet's and MMPose's configs: oks_thr 0.9, vis_thr 0.2, image_thr 0, flip_test; GluonCV's validate.py."""
    for name in ("hrnet", "simplebaselines", "mmpose"):
        protocol = get_protocol(name, "coco")
        assert (protocol.boxes, protocol.box_threshold, protocol.flip) == ("detections", 0.0, True)
        assert (protocol.nms, protocol.nms_threshold) == ("oks", 0.9)
        assert (protocol.rescoring, protocol.min_joint_score) == ("product", 0.2)
    gluoncv = get_protocol("gluoncv", "coco")
    assert (gluoncv.boxes, gluoncv.cut_boxes, gluoncv.nms, gluoncv.min_joint_score) == ("gt", True, "none", 0.0)
    assert get_protocol("alphapose", "coco").nms == "parametric"
    assert get_protocol("alphapose", "halpe136").nms == "none"
    assert get_protocol("mmpose", "aic").boxes == get_protocol("mmpose", "posetrack18").boxes == "gt"
    assert get_protocol("mmpose", "posetrack18").box_threshold == 0.4
    assert get_protocol("mmpose", "crowdpose").boxes == "detections"


def test_every_model_has_a_protocol():
    assert {protocol_of(get_entry(name).source) for name in list_models()} == set(PRESETS)
    assert protocol_of("gluoncv") == "gluoncv"
    assert protocol_of("posezoo") == "plain"


def test_settings_from_text():
    changed = PRESETS["hrnet"].with_overrides(
        ["flip=false", " nms = soft-oks", "nms_threshold=0.5", "box_scale=1.5", "decode=heatmap-dark", "boxes=a/b.json"]
    )
    assert (changed.flip, changed.nms, changed.nms_threshold, changed.boxes) == (False, "soft-oks", 0.5, "a/b.json")
    assert (changed.box_scale, changed.decode, changed.rescoring) == (1.5, "heatmap-dark", "product")
    assert changed.describe("coco") == (
        "hrnet with another flip and nms and nms_threshold and box_scale and decode on coco: "
        "boxes b.json scoring 0 or more, crop 1.5 x box, no flip, decode heatmap-dark, "
        "soft OKS-NMS 0.5, at most 20 people, score box x mean of joints above 0.2, area as annotated"
    )
    back = changed.with_overrides(["box_scale=none", "decode=None", "nms=none", "flip_shift=true", "nms_threshold=1"])
    assert (back.box_scale, back.decode, back.nms, back.flip_shift, back.nms_threshold) == (None, None, "none", True, 1)
    same = PRESETS["hrnet"].with_overrides(["flip=true", "boxes=gt"])
    assert (same.name, same.on_ground_truth) == ("hrnet", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip", "'flip' is not key=value; the protocol has boxes"),
        ("flip=", "not key=value"),
        ("flp=true", "unknown protocol setting 'flp'; did you mean flip?"),
        ("name=x", "unknown protocol setting 'name'"),
        ("flip=maybe", "flip must be true or false, but is 'maybe'"),
        ("flip=1", "flip must be true or false, but is 1"),
        ("box_scale=big", "box_scale must be a number or none"),
        ("box_scale=true", "box_scale must be a number or none, but is True"),
        ("box_scale=0", "box_scale must be above 0"),
        ("box_scale=inf", "box_scale must be above 0"),
        ("nms=oksnms", "unknown nms of the protocol 'oksnms'; did you mean oks?"),
        ("rescoring=mean", "unknown rescoring"),
        ("nms_threshold=90", "nms_threshold must be in 0..1, but is 90"),
        ("nms_threshold=nan", "nms_threshold must be in 0..1"),
        ("decode=dark", "unknown decode of the protocol 'dark'"),
    ],
)
def test_wrong_settings_teach(text, message):
    with pytest.raises(PosezooError) as error:
        PRESETS["hrnet"].with_overrides([text])
    assert message in str(error.value)


def test_soft_suppression_needs_a_threshold():
    with pytest.raises(PosezooError, match="above 0"):
        Protocol(nms="soft-oks", nms_threshold=0.0)


def test_an_unknown_preset_or_dataset():
    with pytest.raises(PosezooError, match="unknown protocol 'mmpos'; did you mean mmpose"):
        get_protocol("mmpos", "coco")
    with pytest.raises(PosezooError, match="unknown dataset 'cocoa'"):
        get_protocol("mmpose", "cocoa")


def test_detections_have_to_be_named():
    with pytest.raises(PosezooError, match=r"COCO_val2017_detections_AP_H_56_person.json.*give --boxes FILE"):
        need_boxes(get_protocol("hrnet", "coco"), "coco")
    with pytest.raises(PosezooError, match="one prediction for each annotated person: boxes must be gt"):
        need_boxes(get_protocol("hrnet", "mpii").with_overrides(["boxes=found.json"]), "mpii")
    need_boxes(get_protocol("hrnet", "coco").with_overrides(["boxes=found.json"]), "coco")


def test_every_setting_is_in_the_line():
    base = Protocol(flip=True, flip_shift=False, box_scale=1.25, decode="heatmap", boxes="found.json", nms="oks")
    other = {
        "boxes": "gt",
        "box_threshold": 0.3,
        "box_scale": 1.3,
        "flip": False,
        "flip_shift": True,
        "decode": sorted(CODECS)[-1],
        "nms": "box",
        "nms_threshold": 0.3,
        "rescoring": "joints",
        "min_joint_score": 0.05,
        "name": "other",
    }
    on_truth = dataclasses.replace(base, boxes="gt")
    cut = dataclasses.replace(on_truth, cut_boxes=True)
    assert len({each.describe() for each in (on_truth, cut, dataclasses.replace(cut, cut_pixel=True))}) == 3
    assert {*other, "cut_boxes", "cut_pixel"} == {field.name for field in dataclasses.fields(Protocol)}
    for key, value in other.items():
        assert dataclasses.replace(base, **{key: value}).describe() != base.describe(), key
