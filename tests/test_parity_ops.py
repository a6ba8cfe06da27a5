"""Single operations against the zoos' own: the checks of `benchmarks/parity.py` agree, and would notice if not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from parity_ops import CHECKS, Result
from parity_ops_read import distance, make, map_result, place_result, same_result, worst


@pytest.fixture(scope="module")
def fill(parity: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill_of_the_fixtures", parity / "fill.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(parity: Path, name: str) -> dict[str, Any]:
    found = list(parity.glob(f"*/{name}.json"))
    if not found:
        pytest.skip(f"the fixtures have no {name}.json")
    return json.loads(found[0].read_text())


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_ours_equals_the_zoo(parity, fill, name):
    results = CHECKS[name](read(parity, name), fill)
    assert results
    assert [r for r in results if not r.agrees] == []
    assert len({(r.what, r.ours) for r in results}) == len(results)


def changed(fixture: Any, path: str, by: float) -> Any:
    """The fixture with the number at `path` increased; "/" divides keys and indices."""
    *steps, last = path.split("/")
    here = fixture
    for step in steps:
        here = here[step if isinstance(here, dict) else int(step)]
    here[last if isinstance(here, dict) else int(last)] += by
    return fixture


# the smallest change of each kind that should not pass for rounding, or for another version of OpenCV
VISIBLE = [
    ("alphapose_affine", "cases/3/matrix/data/2", 0.01),
    ("alphapose_deform_conv", "cases/4/output/data/20", 0.01),
    ("alphapose_l1_joint_regression_sigmoid", "loss", 0.01),
    ("alphapose_l1_joint_regression_softmax", "grad/values/2", 1e-6),
    ("alphapose_pose_nms", "cases/0/bbox_scores/2/data/0", 0.001),
    ("alphapose_pose_nms", "cases/1/pick_ids/0", 1),
    ("alphapose_pose_nms", "cases/2/pose_preds/0/data/4", 0.01),
    ("alphapose_pose_nms", "cases/4/bboxes/1/2", 0.01),
    ("alphapose_pose_nms", "cases/5/pose_scores/0/data/4", 0.001),
    ("alphapose_simple_transform", "cases/1/input/values/30", 0.02),
    ("alphapose_simple_transform", "cases/1/bbox_out/2", 0.01),
    ("alphapose_targets", "integral_target/data/4", 0.001),
    ("alphapose_targets", "integral_weight/data/4", -0.5),
    ("gluoncv_detector_to_simple_pose", "per_box/2/values/7", 0.05),
    ("gluoncv_get_final_preds", "center/1/data/0", 0.01),
    ("gluoncv_get_final_preds", "flip_shift/values/9", 0.001),
    ("gluoncv_heatmap_to_coord", "coords/data/12", 0.01),
    ("gluoncv_heatmap_to_coord_alpha_pose", "coords/data/12", 0.01),
    ("gluoncv_layers", "avg_down/AvgPool2D(2,2,ceil_mode,count_include_pad=False)/data/3", 0.001),
    ("gluoncv_layers", "deconv/output/data/3", 0.001),
    ("gluoncv_layers", "gluon_contrib_PixelShuffle2D(2)/data/3", 1.0),
    ("heatmap_to_coord", "regress/4/coords/data/9", 0.01),
    ("heatmap_to_coord", "regress/10/scores/data/9", 0.01),
    ("heatmap_to_coord", "simple/1/coords/data/9", 0.01),
    ("hrnet_affine", "transform_preds_48x64/2/data/5", 0.01),
    ("hrnet_augment", "flip_joints/data/0", 1.0),
    ("hrnet_augment", "half_body/2/result/1/data/0", 0.001),
    ("hrnet_coco_rescore", "soft/1/2/score", 0.001),
    ("hrnet_coco_rescore", "hard/0/1/first_xy/0", 0.01),
    ("hrnet_flip", "average_shift/values/100", 0.001),
    ("hrnet_generate_target", "256x192_s2/per_joint_argmax/data/3", 1),
    ("hrnet_generate_target", "256x192_s2/per_joint_sum/data/3", 0.01),
    ("hrnet_generate_target", "384x288_s3/weight/data/2", 1.0),
    ("hrnet_get_final_preds", "final_preds_post_False/data/40", 0.01),
    ("hrnet_get_final_preds", "max_preds/data/9", 1.0),
    ("hrnet_loss_accuracy", "accuracy/0/data/3", 0.5),
    ("hrnet_loss_accuracy", "accuracy/1", 0.1),
    ("hrnet_loss_accuracy", "accuracy_rolled/acc/data/4", 0.5),
    ("hrnet_loss_accuracy", "accuracy_rolled/cnt", 1),
    ("hrnet_loss_accuracy", "accuracy_rolled/pred/data/2", 1.0),
    ("hrnet_loss_accuracy", "mse_weighted", 1e-6),
    ("hrnet_mpii_db", "annotation/0/center/1", 0.1),
    ("hrnet_mpii_db", "db/0/joints_3d/data/4", 0.01),
    ("hrnet_mpii_db", "db/0/joints_3d_vis/data/45", 1),
    ("hrnet_mpii_db", "db/0/scale/data/0", 0.001),
    ("hrnet_mpii_db", "db/1/center/data/0", 0.01),
    ("hrnet_mpii_pckh", "jnt_missing/data/4", 1),
    ("hrnet_mpii_pckh", "pred_0based/data/30", 200.0),
    ("hrnet_mpii_pckh", "result/Mean@0.1", 0.01),
    ("hrnet_nms", "soft_oks_nms_0.5/data/7", 1),
    ("hrnet_nms", "oks_iou_0_vis0.2/data/1", 0.001),
    ("hrnet_nms", "box_nms_0.6/0", 1),
    ("hrnet_xywh2cs", "scale/0/data/0", 0.0001),
    ("metrics_examples", "examples/aic@0.02/metrics/AR .5", 0.001),
    ("metrics_examples", "examples/coco@0.02/metrics/AP (M)", 0.001),
    ("metrics_examples", "examples/crowdpose@0.02/metrics/AP(M)", 0.001),
    ("metrics_examples", "examples/halpe136@0.02/metrics/AP .75", 0.001),
    ("metrics_examples", "examples/jhmdb@0.02/metrics/Ank tPCK", 0.001),
    ("metrics_examples", "examples/jhmdb@0.02/predictions/1/keypoints/0", 300.0),
    ("metrics_examples", "examples/mhp@0.02/metrics/AP", 0.001),
    ("metrics_examples", "examples/ochuman@0.02/metrics/AP (M)", 1.0),
    ("metrics_examples", "examples/posetrack18@0.02/metrics/Shou AP", 0.01),
    ("metrics_examples", "examples/wholebody133@0.02/metrics/AR", 0.001),
    ("mmpose1_codecs", "cases/2/decode_keypoints/1/data/22", 0.01),
    ("mmpose1_codecs", "cases/1/encode/sum", 5.0),
    ("mmpose1_topdown_affine", "cases/6/crop/values/11", 6),
    ("mmpose1_topdown_affine", "cases/0/matrix/data/2", 0.01),
    ("mmpose_affine", "cases/2/matrix/data/0", 0.0001),
    ("mmpose_decode", "cases/3/preds/data/25", 0.01),
    ("mmpose_decode", "cases/5/maxvals/data/8", 0.01),
    ("mmpose_decode", "gaussian_blur_17/values/0", 0.001),
    ("mmpose_flip", "shifted/values/8", 0.001),
    ("mmpose_nms", "crowdpose14_vis0.2/1", 1),
    ("mmpose_pck", "auc", 0.001),
    ("mmpose_pck", "epe", 0.001),
    ("mmpose_pck", "nme", 0.001),
    ("mmpose_pck", "normalize/data/5", 20.0),
    ("mmpose_pck", "pck/0.2/0/data/3", 0.1),
    (
        "mmpose_pck",
        "pose_pck_accuracy(make_heatmaps(2,17,64,48), make_heatmaps(2,17,64,48,seed=6))/2/data/0",
        -1,
    ),
    ("mmpose_targets", "cases/2/target/sum", 5.0),
    ("yolo_maxpool_stride1", "k5/data/3", 0.01),
    ("yolo_predict_transform", "output/data/1", 0.1),
    ("yolo_predict_transform", "output/data/4", 0.001),
    ("yolo_prep_frame", "dim/0", 1),
    ("yolo_prep_frame", "letterbox/sum", 50_000),
    ("yolo_prep_frame", "letterbox/values/3", 3),
    ("yolo_prep_frame", "row_206_first_60/data/7", 3),
    ("yolo_prep_frame", "tensor/values/5", 0.01),
    ("yolo_write_results", "output/data/9", 0.01),
    ("yolo_write_results", "output/data/13", 0.001),
    ("yolo_write_results", "prediction_data_first5/data/0", 0.5),
]


@pytest.mark.parametrize(("name", "path", "by"), VISIBLE)
def test_one_other_number_is_noticed(parity, fill, name, path, by):
    results = CHECKS[name](changed(read(parity, name), path, by), fill)
    assert not all(r.agrees for r in results)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("alphapose_l1_joint_regression_softmax", "input", "3*make_heatmaps(2,17,64,48)"),
        ("alphapose_targets", "sigma", 3),
        ("gluoncv_layers", "input", "arange(96).reshape(2,8,2,3)"),
        ("heatmap_to_coord", "heatmaps_flip", "make_heatmaps(2,17,64,48,seed=7)"),
        ("hrnet_coco_rescore", "in_vis_thre", 0.6),
        ("hrnet_crop", "image", "make_image(240,320,seed=5)"),
        ("hrnet_flip", "flip_pairs", [[1, 2]]),
        ("hrnet_get_final_preds", "heatmaps", "make_heatmaps(2,17,64,48,seed=9)"),
        ("hrnet_loss_accuracy", "note", "generate_target 256x192_s2, make_heatmaps(2,17,64,48,seed=9)"),
        ("hrnet_loss_accuracy", "note", "generate_target 256x192_s3, make_heatmaps(2,17,64,48)"),
        ("hrnet_nms", "people", "make_people(12,17,seed=5)"),
        ("mmpose1_flip", "flip_indices", list(range(17))),
        ("yolo_predict_transform", "anchors", [[10, 13], [16, 30], [33, 24]]),
        ("yolo_prep_frame", "image", "make_image(240,320,seed=5)"),
        ("yolo_write_results", "function", "conf 0.1, 80 classes, nms_conf 0.5"),
        ("yolo_write_results", "function", "conf 0.3, 80 classes, nms_conf 0.6"),
    ],
)
def test_inputs_are_those_that_the_fixture_names(parity, fill, name, key, value):
    results = CHECKS[name]({**read(parity, name), key: value}, fill)
    assert not all(r.agrees for r in results)


def test_sizes_are_those_of_the_fixture(fill):
    """Three people of five joints on larger maps; what is wanted, one joint at a time."""
    text, (people, joints, height, width) = "make_heatmaps(3,5,96,72,seed=7)", (3, 5, 96, 72)
    maps = make(text, fill)
    centers, scales = np.array([[60, 170], [150, 90], [20, 40]]), np.array([[1.4, 1.9], [0.6, 0.8], [2.4, 3.2]])
    peaks, plain, quarter = np.zeros((3, people, joints, 2))
    for n, k in np.ndindex(people, joints):
        y, x = np.unravel_index(maps[n, k].argmax(), (height, width))
        if maps[n, k, y, x] <= 0:
            x = y = 0
        peaks[n, k] = plain[n, k] = quarter[n, k] = x, y
        if 1 < x < width - 1 and 1 < y < height - 1:
            m = maps[n, k]
            quarter[n, k] += 0.25 * np.sign([m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]])
    pixel = scales[:, None, :1] * 200 / width

    def entry(values):
        return {"shape": list(values.shape), "data": values.ravel().tolist()}

    fixture = {
        "heatmaps": text,
        "center": entry(centers),
        "scale": entry(scales),
        "max_preds": entry(peaks),
        "maxvals": entry(maps.max(axis=(2, 3))[..., None]),
        "final_preds_post_False": entry((plain - [width / 2, height / 2]) * pixel + centers[:, None]),
        "final_preds_post_True": entry((quarter - [width / 2, height / 2]) * pixel + centers[:, None]),
    }
    results = CHECKS["hrnet_get_final_preds"](fixture, fill)
    assert [r for r in results if not r.agrees] == []


# ---- what a comparison is


def test_nothing_to_compare_and_no_number_are_no_agreement():
    assert distance([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert distance([1.0, 2.0], [1.0]) == distance([], []) == distance([np.nan], [1.0]) == np.inf
    assert not Result("", "", float("nan"), 1.0).agrees
    assert Result("", "", 1.0, 1.0).agrees
    assert same_result("", "", [1, 2], [1, 2]).agrees and not same_result("", "", [2, 1], [1, 2]).agrees


def test_maps_differ_in_units_of_their_spread(fill):
    wanted = np.random.default_rng(0).normal(0, 0.01, (4, 50))
    off = wanted + 0.02 * wanted.std()
    whole = {"shape": [4, 50], "data": wanted.ravel().tolist()}
    samples = wanted.ravel()[fill.sample_index(200, 64)].tolist()
    sampled = {"shape": [4, 50], "sum": float(wanted.sum()), "values": samples}
    for entry in (whole, sampled):
        assert map_result("", "", wanted, entry, fill).error == pytest.approx(0, abs=1e-12)
        assert map_result("", "", off, entry, fill).error == pytest.approx(0.02, rel=0.3)
        assert map_result("", "", wanted.T, entry, fill).error == np.inf
    unsampled = wanted.copy()
    unsampled.ravel()[np.setdiff1d(np.arange(200), fill.sample_index(200, 64))[0]] += 1
    assert not map_result("", "", unsampled, sampled, fill).agrees


def test_places_far_away_have_the_tolerance_of_float32():
    assert place_result("", "", [10.0], [10.0005]).agrees is False
    assert place_result("", "", [3000.0], [3000.0005]).agrees is True


def test_the_case_that_fails_is_the_result():
    good, bad = Result("", "", 1.0, 2.0), Result("", "", 0.1, 0.01)
    assert worst([good, bad]) is bad and worst([bad, good]) is bad


@pytest.mark.parametrize("text", ["nothing", "heatmaps(2,3)", "make_heatmaps"])
def test_a_fixture_without_a_call_is_an_error(fill, text):
    with pytest.raises(ValueError, match=r"no call of fill\.py"):
        make(text, fill)


def test_calls_are_read_with_their_factor_and_names(fill):
    maps = make("4*make_heatmaps(1, 4, 8, 6, seed=9), float32", fill)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, 4 * fill.make_heatmaps(1, 4, 8, 6, seed=9))
