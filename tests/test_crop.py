"""Crops: the affine and the pixels of the HRNet and MMPose code, and what must hold for any box."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posezoo.crop import (
    box_to_affine,
    box_to_center_scale,
    center_scale_to_affine,
    crop_images,
    invert_affine,
    normalise,
    transform_points,
)
from posezoo.errors import PosezooError

SIZE = (192, 256)
PIXEL_STD = 200.0  # HRNet states its regions in units of this many pixels


def fixture(parity, name):
    return json.loads((parity / "ops" / f"{name}.json").read_text())


def array(entry):
    return np.array(entry["data"]).reshape(entry["shape"])


def sampled(pixels):
    from fill import sample_index

    return pixels.reshape(-1)[sample_index(pixels.size)].astype(int)


def affine_of(case, rotation, grid):
    center, region = array(case["center"]), array(case["scale"]) * PIXEL_STD
    return center_scale_to_affine(center[None], region[None], case["output_size"], rotation, grid)


def test_center_and_region_equal_hrnet(parity):
    wanted = fixture(parity, "hrnet_xywh2cs")
    boxes = np.array(wanted["boxes_xywh"], float)
    boxes[:, 2:] += boxes[:, :2]
    centers, regions = box_to_center_scale(boxes, SIZE, 1.25)
    np.testing.assert_allclose(centers, [array(c) for c in wanted["center"]], rtol=1e-6)
    np.testing.assert_allclose(regions / PIXEL_STD, [array(s) for s in wanted["scale"]], rtol=1e-6)


@pytest.mark.parametrize("zoo", ["hrnet", "mmpose"])
def test_legacy_affine_equals_the_reference(parity, zoo):
    cases = [c for c in fixture(parity, f"{zoo}_affine")["cases"] if c.get("kind") != "get_warp_matrix"]
    assert len(cases) == 10
    for case in cases:
        affine = affine_of(case, case["rot"], "legacy")
        got = (invert_affine(affine) if case["inv"] else affine)[0]
        np.testing.assert_allclose(got, array(case["matrix"]), atol=2e-4, rtol=0)


def test_unbiased_affine_equals_mmpose(parity):
    cases = [c for c in fixture(parity, "mmpose_affine")["cases"] if c["kind"] == "get_warp_matrix"]
    assert len(cases) == 5
    for case in cases:
        got = affine_of(case, -case["rot"], "unbiased")[0]  # that function counts angles the other way
        np.testing.assert_allclose(got, array(case["matrix"]), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("zoo", "key", "grid"),
    [
        ("hrnet", "transform_preds_48x64", "legacy"),
        ("mmpose", "transform_preds", "legacy"),
        ("mmpose", "transform_preds_udp", "unbiased"),
    ],
)
def test_points_come_back_where_the_reference_puts_them(parity, zoo, key, grid):
    wanted = fixture(parity, f"{zoo}_affine")
    points = array(wanted["points"])
    cases = fixture(parity, "hrnet_xywh2cs")
    for center, scale, result in zip(cases["center"], cases["scale"], wanted[key], strict=True):
        region = array(scale)[None] * PIXEL_STD
        to_heatmap = center_scale_to_affine(array(center)[None], region, (48, 64), 0.0, grid)
        got = transform_points(invert_affine(to_heatmap), points[None])[0]
        np.testing.assert_allclose(got, array(result), atol=1e-3, rtol=0)


def test_crops_equal_hrnet(parity):
    from fill import make_image

    wanted = fixture(parity, "hrnet_crop")
    image = make_image(240, 320)
    np.testing.assert_array_equal(sampled(image), wanted["image_check"]["values"])
    for case in wanted["cases"]:
        crop = crop_images(image, affine_of(case, case["rot"], "legacy"), case["output_size"])[0]
        # versions of OpenCV differ by up to 2 grey levels; the fixture holds two of them
        references = [case["crop"], case["crop_opencv_4.8.1"]]
        assert min(np.abs(sampled(crop) - r["values"]).max() for r in references) <= 1
        assert min(abs(crop.sum(dtype=np.int64) - r["sum"]) for r in references) <= 100


def test_crops_from_boxes_equal_mmpose_on_both_grids(parity):
    from fill import make_image

    wanted = fixture(parity, "mmpose1_topdown_affine")
    image = make_image(240, 320)
    assert {case["use_udp"] for case in wanted["cases"]} == {False, True}
    for case in wanted["cases"]:
        affine = box_to_affine([case["box"]], SIZE, 1.25, 0.0, "unbiased" if case["use_udp"] else "legacy")
        np.testing.assert_allclose(affine[0], array(case["matrix"]), atol=2e-4, rtol=0)
        crop = crop_images(image, affine, SIZE)[0]
        assert np.abs(sampled(crop) - case["crop"]["values"]).max() <= 2


sides = st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e5))


@given(
    left=st.floats(-1e4, 1e5),
    top=st.floats(-1e4, 1e5),
    width=sides,
    height=sides,
    rotation=st.floats(-360, 360),
    grid=st.sampled_from(["legacy", "unbiased"]),
    size=st.sampled_from([(192, 256), (256, 256), (288, 384), (2, 3)]),
)
def test_there_and_back_within_a_thousandth_of_a_pixel(left, top, width, height, rotation, grid, size):
    affine = box_to_affine([[left, top, left + width, top + height]], size, 1.25, rotation, grid)
    assert np.isfinite(affine).all()
    inside = np.random.default_rng(0).uniform(-0.5, 1.5, (1, 20, 2)) * [width, height] + [left, top]
    back = transform_points(invert_affine(affine), transform_points(affine, inside))
    assert np.abs(back - inside).max() < 1e-3
    crop_points = np.random.default_rng(1).uniform(-10, 400, (1, 20, 2))
    there = transform_points(affine, transform_points(invert_affine(affine), crop_points))
    assert np.abs(there - crop_points).max() < 1e-3


@given(
    left=st.floats(-500, 500),
    top=st.floats(-500, 500),
    width=st.floats(1, 900),
    height=st.floats(1, 900),
    rotation=st.floats(-180, 180),
)
def test_the_box_lies_in_the_crop_and_fills_it(left, top, width, height, rotation):
    box = np.array([left, top, left + width, top + height])
    affine = box_to_affine(box[None], SIZE, 1.0)
    corners = transform_points(affine, [[box[:2], box[2:]]])[0]
    assert corners.min() > -1e-6 and np.all(corners.max(axis=0) < np.array(SIZE) + 1e-6)
    assert np.isclose(np.diff(corners, axis=0)[0] / SIZE, 1).any()
    turned = box_to_affine(box[None], SIZE, 1.0, rotation)
    middle = [[[left + width / 2, top + height / 2]]]
    np.testing.assert_allclose(transform_points(turned, middle)[0, 0], [96, 128], atol=1e-6)


@pytest.mark.parametrize("grid", ["legacy", "unbiased"])
def test_a_positive_angle_turns_anticlockwise(grid):
    affine = box_to_affine([[0, 0, 100, 100]], (100, 100), 1.0, 90.0, grid)
    right_of_middle = transform_points(affine, [[[75.0, 50.0]]])[0, 0]
    assert right_of_middle[1] < 26 and abs(right_of_middle[0] - 50) < 1


def test_one_angle_for_each_person():
    boxes = np.array([[0, 0, 10, 20], [5, 5, 50, 60]])
    both = box_to_affine(boxes, SIZE, 1.25, [0, 30])
    np.testing.assert_allclose(both[0], box_to_affine(boxes[:1], SIZE)[0])
    np.testing.assert_allclose(both[1], box_to_affine(boxes[1:], SIZE, 1.25, 30.0)[0])


def test_nobody_flows_through():
    affine = box_to_affine(np.zeros((0, 4)), SIZE)
    assert affine.shape == (0, 2, 3)
    assert invert_affine(affine).shape == (0, 2, 3)
    assert transform_points(affine, np.zeros((0, 17, 2))).shape == (0, 17, 2)
    crops = crop_images(np.zeros((10, 10, 3), np.uint8), affine, SIZE)
    assert crops.shape == (0, 256, 192, 3)
    assert normalise(crops, (0, 0, 0), (1, 1, 1)).shape == (0, 3, 256, 192)


def test_a_box_without_size_gives_a_crop_of_its_pixel():
    image = np.full((20, 20, 3), 7, np.uint8)
    affine = box_to_affine([[10, 10, 10, 10], [3, 4, 3, 9]], SIZE)
    assert np.isfinite(invert_affine(affine)).all()
    assert np.all(crop_images(image, affine, SIZE)[0] == 7)


@pytest.mark.parametrize("box", [[-1e9, -1e9, -1e9 + 5, -1e9 + 5], [1e9, 0, 1e9 + 1, 1], [50, 50, 60, 60]])
def test_a_box_outside_the_image_is_black(box):
    image = np.full((20, 20, 3), 255, np.uint8)
    assert crop_images(image, box_to_affine([box], SIZE), SIZE).max() == 0


def test_crops_can_be_written_into_a_given_array():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    affine = box_to_affine([[5, 5, 40, 45], [0, 0, 60, 50]], (32, 48))
    out = np.full((2, 48, 32, 3), 99, np.uint8)
    assert crop_images(image, affine, (32, 48), out=out) is out
    np.testing.assert_array_equal(out, crop_images(image, affine, (32, 48)))
    planes = np.full((2, 3, 48, 32), 99, np.float32)
    assert normalise(out, (0.5,) * 3, (0.2,) * 3, out=planes) is planes
    np.testing.assert_array_equal(planes, normalise(out, (0.5,) * 3, (0.2,) * 3))
    with pytest.raises(PosezooError, match="contiguous uint8"):
        crop_images(image, affine, (32, 48), out=out[:1])


@pytest.mark.parametrize("shape", [(40, 40000, 3), (40000, 40, 3)])
def test_an_image_beyond_sixteen_bit_coordinates_is_cropped_in_place(shape):
    image = np.zeros(shape, np.uint8)
    long = int(np.argmax(shape[:2]))
    where = [slice(None)] * 2
    where[long] = slice(39000, 39040)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image[tuple(where)] = noise
    shift = np.array([39000, 0] if long == 1 else [0, 39000])
    box = np.array([5.0, 5.0, 30.0, 35.0])
    got = crop_images(image, box_to_affine([box + np.tile(shift, 2)], (48, 64), 1.0, 20.0), (48, 64))
    wanted = crop_images(noise, box_to_affine([box], (48, 64), 1.0, 20.0), (48, 64))
    assert np.abs(got.astype(int) - wanted).max() <= 4


def test_a_box_beyond_sixteen_bit_coordinates_is_thinned():
    image = np.zeros((8, 70000, 3), np.uint8)
    image[:, 35000:] = 200
    crop = crop_images(image, box_to_affine([[0, 0, 70000, 8]], (70, 8), 1.0), (70, 8))[0]
    assert crop[4, :34].max() == 0 and crop[4, 36:69].min() == 200


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalise_is_the_formula_in_the_order_of_the_network(channels):
    crops = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    ordered = crops if channels == "rgb" else crops[..., ::-1]
    wanted = ((ordered / 255 - mean) / std).transpose(0, 3, 1, 2)
    got = normalise(crops, mean, std, channels)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_wrong_names_are_errors_that_teach():
    with pytest.raises(PosezooError, match="did you mean legacy"):
        box_to_affine([[0, 0, 1, 1]], SIZE, grid="legcy")
    with pytest.raises(PosezooError, match="channel order 'rbg'"):
        normalise(np.zeros((1, 2, 2, 3), np.uint8), (0, 0, 0), (1, 1, 1), "rbg")


def test_a_fourth_channel_is_only_faster(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (61, 53, 3), dtype=np.uint8)
    affine = box_to_affine([[-20, 5, 40, 45], [0, 0, 60, 50], [10, 60, 11, 61]], (32, 48), 1.25, [0, 20, -70])
    with_fourth = crop_images(image, affine, (32, 48))
    monkeypatch.setattr("posezoo.crop._WORTH_A_FOURTH", 0)
    # OpenCV 5 gives the same values; of earlier ones each path rounds in its own way
    assert np.abs(with_fourth.astype(int) - crop_images(image, affine, (32, 48))).max() <= 1
