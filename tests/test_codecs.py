"""Heatmap codecs: the numbers of the zoos' own code, the torch twin, and what must hold for any map."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.codecs import CODECS, CombinedCodec, codec_name, get_codec, list_codecs
from posezoo.codecs.heatmap import HeatmapCodec, average_flip, blur_matrix, flip_back, peaks
from posezoo.crop import center_scale_to_affine, invert_affine, transform_points
from posezoo.errors import PosezooError, UnknownNameError

SIZE = (192, 256)
HEATMAPS = sorted(name for name, codec in CODECS.items() if isinstance(codec, HeatmapCodec))
NOWHERE = 3  # the joint of the fixtures' maps that is negative everywhere: other zoos put it at -1, HRNet and we at 0
REST = [k for k in range(17) if k != NOWHERE]


def fixture(parity, name):
    return json.loads((parity / "ops" / f"{name}.json").read_text())


def array(entry):
    return np.array(entry["data"]).reshape(entry["shape"])


def sampled(values):
    from fill import sample_index

    return values.reshape(-1)[sample_index(values.size)]


def maps(seed=2):
    from fill import make_heatmaps

    return make_heatmaps(2, 17, 64, 48, seed=seed)


def to_image(wanted, crop_xy, pixel_std=200.0, grid="legacy"):
    """Crop pixels through the inverse affine of the fixture's own centre and scale."""
    centers, scales = (array(wanted[k])[:2] if isinstance(wanted[k], dict) else None for k in ("center", "scale"))
    affine = center_scale_to_affine(centers, scales * pixel_std, SIZE, 0.0, grid)
    return transform_points(invert_affine(affine), crop_xy)


def blobs(seed, people=2, joints=5, height=32, width=24, noise=0.02):
    rng = np.random.default_rng(seed)
    center = rng.uniform(-2, 1, (people, joints, 2)) + rng.uniform(0, 1, (people, joints, 2)) * [width, height]
    x, y = np.arange(width), np.arange(height)[:, None]
    spread = rng.uniform(1, 3, (people, joints, 1, 1))
    distance = (x - center[..., :1, None]) ** 2 + (y - center[..., 1:, None]) ** 2
    height_of = rng.uniform(0, 1, (people, joints, 1, 1))
    made = height_of * np.exp(-distance / (2 * spread**2)) + noise * rng.standard_normal(distance.shape)
    made[0, 0] = -np.abs(made[0, 0]) - 1e-3
    return made.astype(np.float32)


# ---- decode, against the zoos


def test_peaks_equal_hrnet(parity):
    wanted = fixture(parity, "hrnet_get_final_preds")
    pixels, values = peaks(maps())
    np.testing.assert_array_equal(pixels, array(wanted["max_preds"]))
    np.testing.assert_array_equal(values[..., None], array(wanted["maxvals"]).astype(np.float32))


@pytest.mark.parametrize(("name", "key"), [("heatmap-quarter", "True"), ("heatmap", "False")])
def test_decode_equals_hrnet(parity, name, key):
    wanted = fixture(parity, "hrnet_get_final_preds")
    crop_xy, scores = get_codec(name).decode(maps())
    got = to_image(wanted, crop_xy)
    np.testing.assert_allclose(got, array(wanted[f"final_preds_post_{key}"]), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(scores, np.clip(array(wanted["maxvals"])[..., 0].astype(np.float32), 0, 1))


@pytest.mark.parametrize(
    ("case", "codec"),
    [
        (0, get_codec("heatmap")),
        (1, get_codec("heatmap-quarter")),
        (2, get_codec("heatmap-dark")),
        (3, HeatmapCodec(refine="dark", sigma=3, blur_kernel=17)),
        (4, get_codec("heatmap-megvii")),
        (5, get_codec("heatmap-dark-udp")),
    ],
)
def test_decode_equals_mmpose(parity, case, codec):
    wanted = fixture(parity, "mmpose_decode")
    crop_xy, scores = codec.decode(maps())
    got = to_image(wanted, crop_xy, grid=codec.grid)[:, REST]
    reference = wanted["cases"][case]
    np.testing.assert_allclose(got, array(reference["preds"])[:, REST], atol=2e-4, rtol=0)
    np.testing.assert_allclose(scores[:, REST], array(reference["maxvals"])[:, REST, 0], atol=1e-6)
    np.testing.assert_array_equal(crop_xy[:, NOWHERE], 0)


@pytest.mark.parametrize("kernel", [11, 17])
def test_the_blur_equals_opencv(parity, kernel):
    wanted = fixture(parity, "mmpose_decode")[f"gaussian_blur_{kernel}"]
    blurred = blur_matrix(64, kernel, "zero") @ maps() @ blur_matrix(48, kernel, "zero").T
    blurred *= maps().max(axis=(2, 3), keepdims=True) / blurred.max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(sampled(blurred), wanted["values"], atol=1e-6)


@pytest.mark.parametrize(
    ("case", "name"),
    [(0, "heatmap-quarter"), (1, "heatmap-dark"), (2, "heatmap-dark-udp"), (3, "heatmap-megvii")],
)
def test_decode_equals_mmpose_1(parity, case, name):
    wanted = fixture(parity, "mmpose1_codecs")["cases"][case]
    crop_xy, scores = get_codec(name).decode(maps())
    reference = np.concatenate([array(k) for k in wanted["decode_keypoints"]])
    pixels, values = peaks(maps())
    compared = values > 0
    if name == "heatmap-quarter":
        # beside an edge it still moves along the edge, where HRNet and we leave the joint alone
        compared &= np.all((pixels > 1) & (pixels < [46, 62]) | (pixels == 0) | (pixels == [47, 63]), axis=2)
    if name == "heatmap-dark-udp":
        # it encodes with (size - 1) / (map - 1) but decodes with size / (map - 1); ours is the inverse of the encoding
        reference = reference * (np.array(SIZE) - 1) / SIZE
        # its blur has zeros outside the map, that of the UDP code and ours mirrors the map there
        compared &= np.all((pixels > 6) & (pixels < np.array([48, 64]) - 7), axis=2)
    assert compared.sum() > 15
    np.testing.assert_allclose(crop_xy[compared], reference[compared], atol=2e-4, rtol=0)
    raw = np.concatenate([array(k) for k in wanted["decode_scores"]])
    np.testing.assert_allclose(scores[:, REST], np.clip(raw[:, REST], 0, 1), atol=1e-6)


def test_plain_argmax_equals_gluoncv(parity):
    wanted = fixture(parity, "gluoncv_heatmap_to_coord")
    crop_xy, scores = get_codec("heatmap").decode(maps())
    boxes = np.array(wanted["upscaled_1.25"])[:2, None]  # it stretches the enlarged box over the crop
    got = crop_xy / SIZE * (boxes[..., 2:] - boxes[..., :2]) + boxes[..., :2]
    np.testing.assert_allclose(got, array(wanted["coords"]), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(scores[:, REST], array(wanted["maxvals"])[:, REST, 0].astype(np.float32))


def test_quarter_offset_equals_gluoncv(parity):
    wanted = fixture(parity, "gluoncv_get_final_preds")
    both = {k: {"data": [v for c in wanted[k][:2] for v in c["data"]], "shape": [2, 2]} for k in ("center", "scale")}
    got = to_image(both, get_codec("heatmap-quarter").decode(maps())[0], pixel_std=1.0)
    np.testing.assert_allclose(got, array(wanted["final_preds"]), atol=1e-4, rtol=0)


# ---- flip, against the zoos

MIRROR = [0, *(k + (1 if k % 2 else -1) for k in range(1, 17))]


def test_flip_equals_hrnet(parity):
    wanted = fixture(parity, "hrnet_flip")
    codec = get_codec("heatmap-quarter")
    for key, got in {
        "flip_back": flip_back(maps(6), MIRROR, shift=False),
        "shifted": codec.flip_back(maps(6), MIRROR, shift=True),
        "average_shift": average_flip(maps(), maps(6), MIRROR, shift=True),
        "average_noshift": codec.average_flip(maps(), maps(6), MIRROR, shift=False),
    }.items():
        np.testing.assert_array_equal(sampled(got), np.float32(wanted[key]["values"]), err_msg=key)
    crop_xy, _ = codec.decode(average_flip(maps(), maps(6), MIRROR, shift=True))
    np.testing.assert_allclose(to_image(wanted, crop_xy), array(wanted["final_preds_shift"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "plain", "shifted"),
    [
        ("mmpose_flip", "flip_back", "shifted"),
        ("mmpose1_flip", "noshift", "shift"),
        ("gluoncv_get_final_preds", None, "flip_shift"),
    ],
)
def test_flip_equals_the_other_zoos(parity, name, plain, shifted):
    wanted = fixture(parity, name)
    if plain:
        np.testing.assert_array_equal(sampled(flip_back(maps(6), MIRROR, False)), np.float32(wanted[plain]["values"]))
    np.testing.assert_array_equal(sampled(flip_back(maps(6), MIRROR, True)), np.float32(wanted[shifted]["values"]))


def test_flipping_back_twice_changes_nothing():
    made = blobs(0, joints=17)
    np.testing.assert_array_equal(flip_back(flip_back(made, MIRROR, False), MIRROR, False), made)
    assert flip_back(made, MIRROR, True).flags.c_contiguous


# ---- encode, against the zoos


def check_targets(targets, weights, wanted, atol=2e-6):
    np.testing.assert_allclose(
        sampled(targets[0]),
        wanted[next(k for k in ("target", "encode") if k in wanted)]["values"],
        atol=atol,
        rtol=1e-5,
    )
    weight = array(wanted["weight"])[:, 0] if "weight" in wanted else array(wanted["weights"])[0]
    np.testing.assert_array_equal(weights[0], weight)
    sums = targets[0].sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(sums, array(wanted["per_joint_sum"]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(targets[0].reshape(17, -1).argmax(axis=1), array(wanted["per_joint_argmax"]))


@pytest.mark.parametrize(("key", "size", "sigma"), [("256x192_s2", (192, 256), 2), ("384x288_s3", (288, 384), 3)])
def test_targets_equal_hrnet(parity, key, size, sigma):
    wanted = fixture(parity, "hrnet_generate_target")
    joints, visible = array(wanted["joints"])[None, :, :2], array(wanted["vis"])[None, :, 0]
    targets, weights = HeatmapCodec(sigma=sigma).encode(joints, visible, size)
    check_targets(targets, weights, wanted[key])


@pytest.mark.parametrize(
    ("case", "name"),
    [(0, "heatmap-quarter"), (1, "heatmap-dark"), (2, "heatmap-dark-udp"), (4, "heatmap-megvii")],
)
def test_targets_equal_mmpose(parity, case, name):
    wanted = fixture(parity, "mmpose_targets")
    joints, visible = array(wanted["joints"])[None, :, :2], array(wanted["vis"])[None, :, 0]
    check_targets(*get_codec(name).encode(joints, visible, SIZE), wanted["cases"][case])


@pytest.mark.parametrize(
    ("case", "name"),
    [(0, "heatmap-quarter"), (1, "heatmap-dark"), (2, "heatmap-dark-udp"), (3, "heatmap-megvii")],
)
def test_targets_equal_mmpose_1(parity, case, name):
    wanted = fixture(parity, "mmpose1_codecs")
    targets, weights = get_codec(name).encode(array(wanted["keypoints"]), array(wanted["visible"]), SIZE)
    check_targets(targets, weights, wanted["cases"][case])


# ---- what must hold anywhere


def full_map_dark(heatmaps, kernel):
    """DARK as the paper has it: one joint at a time, over the blurred map, with OpenCV's blur."""
    import cv2

    people, joints, height, width = heatmaps.shape
    result = np.zeros((people, joints, 2))
    pad = kernel // 2
    for n, k in np.ndindex(people, joints):
        heatmap = heatmaps[n, k]
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        if heatmap[y, x] <= 0:
            continue
        result[n, k] = x, y
        if not (1 < x < width - 2 and 1 < y < height - 2):
            continue
        blurred = cv2.GaussianBlur(np.pad(heatmap, pad), (kernel, kernel), 0)[pad:-pad, pad:-pad].astype(np.float64)
        log = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10))
        gradient = np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]) / 2
        dxx = (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2]) / 4
        dyy = (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]) / 4
        dxy = (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]) / 4
        if dxx * dyy - dxy**2 != 0:
            result[n, k] -= np.linalg.solve([[dxx, dxy], [dxy, dyy]], gradient)
    return result


@pytest.mark.parametrize("kernel", [11, 17])
def test_dark_at_the_peaks_equals_dark_over_the_whole_map(kernel):
    made = blobs(3, people=6, joints=10)
    crop_xy, _ = HeatmapCodec(refine="dark", blur_kernel=kernel, stride=1).decode(made)
    np.testing.assert_allclose(crop_xy, full_map_dark(made, kernel), atol=1e-4, rtol=1e-4)


def test_dark_where_the_blurred_map_meets_its_floor():
    lonely = np.full((1, 2, 32, 24), -1.0, np.float32)
    lonely[:, :, 10, 12] = 40.0
    lonely[:, 1, 10, 13] = 30.0
    codec = HeatmapCodec(refine="dark", stride=1)
    np.testing.assert_allclose(codec.decode(lonely)[0], full_map_dark(lonely, 11), atol=1e-4)


joints_inside = st.tuples(st.floats(30, 160), st.floats(30, 220))


@settings(max_examples=40)
@given(joints=st.lists(joints_inside, min_size=1, max_size=6), name=st.sampled_from(HEATMAPS))
def test_what_was_encoded_is_decoded(joints, name):
    """Exact targets come back exactly; rounded ones to within what rounding and the quarter offset allow."""
    codec = get_codec(name)
    wanted = np.array(joints)[None]
    targets, weights = codec.encode(wanted, np.ones(wanted.shape[:2]), SIZE)
    assert np.all(weights == 1)
    if name == "heatmap-megvii":
        targets = targets / 255
    crop_xy, scores = codec.decode(targets)
    # UDP cuts its targets at three sigma of the rounded place, which moves the blurred peak a little
    within = {"heatmap-dark": 1e-2, "heatmap-dark-udp": 0.2, "heatmap-megvii": 4.01}.get(name, 2.01)
    assert np.abs(crop_xy - wanted).max() <= within
    assert np.all(scores > 0.5)


@pytest.mark.parametrize("name", HEATMAPS)
def test_nobody_and_no_joint_flow_through(name):
    codec = get_codec(name)
    crop_xy, scores = codec.decode(np.zeros((0, 17, 64, 48), np.float32))
    assert crop_xy.shape == (0, 17, 2) and scores.shape == (0, 17)
    crop_xy, scores = codec.decode(np.zeros((3, 0, 64, 48), np.float32))
    assert crop_xy.shape == (3, 0, 2) and scores.shape == (3, 0)
    targets, weights = codec.encode(np.zeros((0, 17, 2)), np.zeros((0, 17)), SIZE)
    assert targets.shape == (0, 17, 64, 48) and weights.shape == (0, 17)
    assert codec.average_flip(np.zeros((0, 17, 64, 48)), np.zeros((0, 17, 64, 48)), MIRROR, True).shape[0] == 0


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 3e38])
def test_flat_and_broken_maps_give_finite_joints(name, value):
    with np.errstate(all="ignore"):
        crop_xy, scores = get_codec(name).decode(np.full((1, 2, 64, 48), value, np.float32))
    assert np.isfinite(crop_xy).all()
    assert np.all((scores >= 0) & (scores <= 1))


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 4), (5, 5)])
def test_tiny_maps_are_legal(name, shape):
    made = np.random.default_rng(0).random((2, 3, *shape)).astype(np.float32)
    crop_xy, _ = get_codec(name).decode(made)
    assert crop_xy.shape == (2, 3, 2) and np.isfinite(crop_xy).all()


def test_scores_are_clipped_but_peaks_are_raw():
    made = np.zeros((1, 1, 8, 8), np.float32)
    made[0, 0, 4, 5] = 1.7
    assert get_codec("heatmap").decode(made)[1][0, 0] == 1
    assert peaks(made)[1][0, 0] == np.float32(1.7)


def test_soft_visibility_stays_a_weight_and_hidden_joints_have_no_target():
    targets, weights = HeatmapCodec().encode([[[96, 128], [96, 128], [96, 128]]], [[1, 0.25, 0]], SIZE)
    np.testing.assert_array_equal(weights, [[1, 0.25, 0]])
    assert targets[0, 0].max() == targets[0, 1].max() == 1
    assert targets[0, 2].max() == 0


@pytest.mark.parametrize("name", HEATMAPS)
def test_a_joint_without_a_place_has_no_target(name):
    targets, weights = get_codec(name).encode([[[np.nan, 20], [96, 128], [np.inf, 9]]], [[1, 1, 0]], SIZE)
    np.testing.assert_array_equal(weights, [[0, 1, 0]])
    assert np.isfinite(targets).all() and targets[0, [0, 2]].max() == 0 < targets[0, 1].max()


def test_names_and_numbers_are_checked():
    assert list_codecs() == sorted(CODECS)
    with pytest.raises(PosezooError, match="did you mean heatmap-quarter"):
        get_codec("heatmap-quater")
    with pytest.raises(PosezooError, match="did you mean dark"):
        HeatmapCodec(refine="darc")
    with pytest.raises(PosezooError, match="crop grid"):
        HeatmapCodec(grid="udp")
    with pytest.raises(PosezooError, match="odd blur_kernel"):
        HeatmapCodec(blur_kernel=10)
    with pytest.raises(PosezooError, match="190x256 has no heatmap of stride 4"):
        HeatmapCodec().encode(np.zeros((1, 2, 2)), np.ones((1, 2)), (190, 256))


def test_other_strides_scale_the_crop():
    made = blobs(0)
    coarse, _ = get_codec("heatmap-quarter").decode(made)
    fine, _ = replace(get_codec("heatmap-quarter"), stride=2).decode(made)
    np.testing.assert_allclose(coarse, fine * 2)


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_crops_size_says_the_stride(name, stride):
    made = blobs(0, joints=30)
    codec = get_codec(name)
    if isinstance(codec, CombinedCodec):
        parts = replace(codec.heatmap, stride=stride), replace(codec.integral, stride=stride)
        other = CombinedCodec(*parts, codec.heatmap_joints)
    else:
        other = replace(codec, stride=stride)
    found, _ = codec.decode(made, (24 * stride, 32 * stride))
    np.testing.assert_array_equal(found, other.decode(made)[0])


@pytest.mark.parametrize(
    "name",
    [*list_codecs(), "heatmap-dark-blur17", "heatmap-dark-udp-blur17", "combined-26-dark", "combined-23-dark-blur17"],
)
def test_a_codec_is_known_by_a_name_that_says_how_it_reads(name: str) -> None:
    assert codec_name(get_codec(name)) == name


def test_what_a_codec_writes_is_not_in_its_name() -> None:
    trained = replace(CODECS["heatmap-dark"], sigma=3.0, blur_kernel=17, stride=2)
    assert codec_name(trained) == "heatmap-dark-blur17"
    assert codec_name(replace(CODECS["heatmap-quarter"], sigma=3.0, blur_kernel=17)) == "heatmap-quarter"
    assert codec_name(HeatmapCodec(refine="quarter", grid="unbiased")) is None


@pytest.mark.parametrize(
    "name", ["heatmap-blur17", "heatmap-dark-blur16", "heatmap-dark-blur", "combined-26-quarter", ""]
)
def test_a_codec_that_there_is_none_of(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown codec '{name}'"):
        get_codec(name)
