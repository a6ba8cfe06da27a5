"""The integral and the combined codec: AlphaPose's own numbers, its crops, the torch twin, and the loss's gradient."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.codecs import CombinedCodec, HeatmapCodec, IntegralCodec, get_codec
from posezoo.codecs.heatmap import flip_back, peaks
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
from test_codecs import MIRROR, SIZE, array, blobs, fixture, maps, sampled

INTEGRALS = ["integral-sigmoid", "integral-softmax"]
MEAN = (0.406, 0.457, 0.480)  # AlphaPose's, of red, green, blue
STD = (1.0, 1.0, 1.0)
PART = CombinedCodec(HeatmapCodec(), IntegralCodec(norm="sigmoid"), heatmap_joints=5)


def alphapose(parity):
    return json.loads((parity / "alphapose" / "heatmap_to_coord.json").read_text())


def in_image(crop_xy, box):
    """Crop pixels in an image of which the box was the crop, as AlphaPose takes it back."""
    corners = np.array(box, np.float64).reshape(2, 2)
    affine = center_scale_to_affine([corners.mean(0)], [corners[1] - corners[0]], SIZE)
    return transform_points(invert_affine(affine), crop_xy)


def mirrored(made):
    """Maps that `flip_back` without a shift turns into `made`."""
    return np.ascontiguousarray(made[:, MIRROR, :, ::-1])


# ---- decode, against AlphaPose


@pytest.mark.parametrize("name", INTEGRALS)
@pytest.mark.parametrize("flip", [False, True])
def test_integral_equals_alphapose(parity, name, flip):
    wanted, codec = alphapose(parity), get_codec(name)
    made = codec.average_flip(maps(), mirrored(maps(6)), MIRROR, shift=False) if flip else maps()
    crop_xy, scores = codec.decode(made)
    cases = [c for c in wanted["regress"] if c["flip"] == flip and c["norm_type"] == codec.norm]
    assert [c["image"] for c in cases] == [0, 1]
    for n, case in enumerate(cases):
        got = in_image(crop_xy[n : n + 1], wanted["bbox"][n])[0]
        np.testing.assert_allclose(got, array(case["coords"]), atol=1e-4, rtol=0)
        np.testing.assert_allclose(scores[n], array(case["scores"])[:, 0], atol=2e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_heatmap_quarter_is_alphaposes_decode(parity, flip):
    wanted, codec = alphapose(parity), get_codec("heatmap-quarter")
    made = codec.average_flip(maps(), mirrored(maps(6)), MIRROR, shift=False) if flip else maps()
    crop_xy, scores = codec.decode(made)
    for n, case in enumerate([c for c in wanted["simple"] if c["flip"] == flip]):
        got = in_image(crop_xy[n : n + 1], wanted["bbox"][n])[0]
        np.testing.assert_allclose(got, array(case["coords"]), atol=1e-4, rtol=0)
        np.testing.assert_allclose(scores[n], np.clip(array(case["maxvals"])[:, 0], 0, 1), atol=1e-7)
    np.testing.assert_array_equal(peaks(maps())[0][0], array(wanted["get_max_pred_image0"]))


def test_flip_back_equals_alphaposes_without_its_shift(parity):
    wanted = alphapose(parity)["flip_heatmap"]["noshift"]
    np.testing.assert_array_equal(sampled(flip_back(maps(6), MIRROR, False)), np.float32(wanted["values"]))


def test_heatmap_quarter_is_gluoncvs_alpha_pose_decode(parity):
    wanted = fixture(parity, "gluoncv_heatmap_to_coord_alpha_pose")
    crop_xy, scores = get_codec("heatmap-quarter").decode(maps())
    to_crop = box_to_affine(wanted["boxes"], SIZE, box_scale=1.0)
    got = transform_points(invert_affine(to_crop), crop_xy)
    np.testing.assert_allclose(got, array(wanted["coords"]), atol=1e-4, rtol=0)
    np.testing.assert_allclose(scores, np.clip(array(wanted["conf"])[..., 0], 0, 1), atol=1e-7)


# ---- encode and the loss, against AlphaPose


@pytest.mark.parametrize("name", INTEGRALS)
def test_integral_targets_equal_alphapose(parity, name):
    wanted = fixture(parity, "alphapose_targets")
    joints, visible = array(wanted["joints"])[None], array(wanted["vis"])[None, :, 0]
    targets, weights = get_codec(name).encode(joints, visible, SIZE)
    np.testing.assert_allclose(targets.reshape(-1), array(wanted["integral_target"]), atol=1e-6)
    np.testing.assert_array_equal(np.repeat(weights[0], 2), array(wanted["integral_weight"]))


def test_heatmap_targets_equal_alphapose(parity):
    wanted = fixture(parity, "alphapose_targets")
    joints, visible = array(wanted["joints"])[None], array(wanted["vis"])[None, :, 0]
    targets, weights = get_codec("heatmap-quarter").encode(joints, visible, SIZE)
    np.testing.assert_allclose(sampled(targets), wanted["target"]["values"], atol=1e-6)
    np.testing.assert_allclose(targets[0].sum((1, 2)), array(wanted["per_joint_sum"]), rtol=1e-5)
    np.testing.assert_array_equal(weights[0], array(wanted["weight"])[:, 0, 0])


@pytest.mark.parametrize("norm", ["softmax", "sigmoid"])
def test_the_loss_and_its_gradient_equal_alphapose(parity, norm):
    torch = pytest.importorskip("torch")
    from posezoo.train.losses import integral_l1

    wanted = fixture(parity, f"alphapose_l1_joint_regression_{norm}")
    heatmaps = torch.from_numpy(4 * maps()).requires_grad_()
    targets, weights = (torch.from_numpy(array(wanted[k]).reshape(2, 17, 2)).float() for k in ("gt", "weight"))
    loss = integral_l1(IntegralCodec(norm=norm), heatmaps, targets, weights)
    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-6)
    loss.backward()
    gradient = heatmaps.grad.numpy()
    values = np.array(wanted["grad"]["values"])
    np.testing.assert_allclose(sampled(gradient), values, atol=1e-4 * values.std(), rtol=1e-4)
    assert np.abs(gradient).sum(dtype=np.float64) == pytest.approx(wanted["grad"]["abs_sum"], rel=1e-5)


def test_one_weight_a_joint_and_nobody():
    torch = pytest.importorskip("torch")
    from posezoo.train.losses import integral_l1

    codec, heatmaps = IntegralCodec(), torch.from_numpy(blobs(0))
    targets, weights = torch.zeros(2, 5, 2), torch.tensor([[1.0, 0, 0.5, 1, 0]] * 2)
    once = integral_l1(codec, heatmaps, targets, weights)
    twice = integral_l1(codec, heatmaps, targets, weights[..., None].expand(-1, -1, 2))
    assert once.item() == pytest.approx(twice.item()) and once.item() > 0
    nobody = torch.zeros(0, 5, 32, 24, requires_grad=True)
    loss = integral_l1(codec, nobody, targets[:0], weights[:0])
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("norm", ["softmax", "sigmoid"])
def test_descending_the_loss_finds_the_joint(norm):
    torch = pytest.importorskip("torch")
    from posezoo.train.losses import integral_l1

    codec = IntegralCodec(norm=norm)
    heatmaps = torch.zeros(1, 2, 16, 12, requires_grad=True)
    wanted = np.array([[[10.0, 48.0], [36.0, 20.0]]])
    targets, weights = (torch.from_numpy(v) for v in codec.encode(wanted, np.ones((1, 2)), (48, 64)))
    optimizer = torch.optim.Adam([heatmaps], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        integral_l1(codec, heatmaps, targets, weights).backward()
        optimizer.step()
    assert np.abs(codec.decode(heatmaps.detach().numpy())[0] - wanted).max() < 2


# ---- AlphaPose's crops


def test_the_crop_equals_alphapose(parity):
    from fill import make_image

    wanted = fixture(parity, "alphapose_simple_transform")
    boxes = np.array(wanted["boxes_xyxy"], np.float64)
    centers, regions = box_to_center_scale(boxes, SIZE, box_scale=1.25)
    np.testing.assert_allclose(centers, [array(c) for c in wanted["center"]], atol=1e-4)
    np.testing.assert_allclose(regions, [array(s) for s in wanted["scale"]], atol=1e-4)
    crops = crop_images(make_image(240, 320), box_to_affine(boxes, SIZE, box_scale=1.25), SIZE)
    planes = normalise(crops, MEAN, STD, "rgb")
    for plane, case in zip(planes, wanted["cases"], strict=True):
        np.testing.assert_allclose(sampled(plane), case["input"]["values"], atol=2.01 / 255)  # OpenCV 4 and 5 differ
        assert np.abs(plane).sum(dtype=np.float64) == pytest.approx(case["input"]["abs_sum"], rel=1e-3)


def test_the_affine_equals_alphapose(parity):
    for case in fixture(parity, "alphapose_affine")["cases"]:
        region = [array(case["center"])], [array(case["scale"])]
        affine = center_scale_to_affine(*region, case["output_size"], case["rot"])
        got = invert_affine(affine) if case["inv"] else affine
        np.testing.assert_allclose(got[0], array(case["matrix"]), atol=1e-5)


def test_the_crop_of_gluoncvs_alpha_pose_is_ours_of_its_box_where_that_has_a_picture(parity):
    """It widens the box by its own rule, clips it to the image and blackens what lies outside; the rest is the same."""
    from fill import make_image

    values, boxes = fixture(parity, "gluoncv_alpha_pose_cropper")["result"]
    boxes, image = array(boxes), make_image(240, 320)
    planes = []
    for x1, y1, x2, y2 in boxes.astype(int):
        person = np.zeros_like(image)
        person[y1:y2, x1:x2] = image[y1:y2, x1:x2]
        crops = crop_images(person, box_to_affine([[x1, y1, x2, y2]], SIZE, box_scale=1.0), SIZE)
        planes.append(normalise(crops, MEAN, STD, "rgb"))
    difference = np.abs(sampled(np.concatenate(planes)) - values["values"]) * 255
    assert np.percentile(difference, 90) <= 1.01 and difference.max() < 13


# ---- what must hold anywhere

inside = st.tuples(st.floats(40, 150), st.floats(40, 215))


@settings(max_examples=25, deadline=None)
@given(joints=st.lists(inside, min_size=1, max_size=6), name=st.sampled_from(INTEGRALS), flip=st.booleans())
def test_what_was_encoded_is_decoded(joints, name, flip):
    """A network that wholly learned its target puts a bell round the place; its mean is the joint."""
    codec, wanted = get_codec(name), np.array(joints)[None]
    targets, weights = codec.encode(wanted, np.ones(wanted.shape[:2]), SIZE)
    assert np.all(weights == 1)
    x, y = (((targets[..., axis] + 0.5) * size)[..., None] for axis, size in ((0, 48), (1, 64)))
    row, column = np.exp(-((np.arange(64) - y) ** 2) / 8), np.exp(-((np.arange(48) - x) ** 2) / 8)
    bell = np.maximum(0.9 * row[..., :, None] * column[..., None, :], 1e-9)
    made = np.log(bell) if codec.norm == "softmax" else np.log(bell / (1 - bell))
    if flip:
        made = codec.average_flip(made, made[..., ::-1], np.arange(len(joints)), shift=False)
    crop_xy, scores = codec.decode(made, SIZE)
    np.testing.assert_allclose(crop_xy, wanted, atol=0.02)
    assert np.all(scores == 1) if codec.norm == "softmax" else np.all((scores > 0.7) & (scores < 0.9001))


@pytest.mark.parametrize("name", INTEGRALS)
def test_flip_is_the_mean_of_both_places_and_scores(name):
    codec, made, other = get_codec(name), 9 * blobs(1, joints=17), 5 * blobs(2, joints=17)
    for shift in (False, True):
        back = flip_back(other, MIRROR, shift)
        got = codec.decode(codec.average_flip(made, other, MIRROR, shift))
        for value, one, two in zip(got, codec.decode(made), codec.decode(back), strict=True):
            np.testing.assert_allclose(value, (one + two) / 2, atol=2e-4)


def test_the_combined_codec_reads_each_part_as_its_codec_does():
    made, other = (4 * blobs(seed, joints=17, height=64, width=48) for seed in (1, 2))
    crop_xy, scores = PART.decode(made)
    flipped = PART.average_flip(made, other, MIRROR, shift=True)
    for codec, part in ((PART.heatmap, slice(5)), (PART.integral, slice(5, None))):
        part_xy, part_scores = codec.decode(made[:, part])
        np.testing.assert_array_equal(crop_xy[:, part], part_xy)
        np.testing.assert_array_equal(scores[:, part], part_scores)
        whole = codec.average_flip(made, other, MIRROR, shift=True)
        np.testing.assert_array_equal(flipped[:, part], whole[:, part])
    rng = np.random.default_rng(0)
    joints, visible = rng.uniform(0, 190, (2, 17, 2)), rng.choice([0, 1], (2, 17))
    (heatmaps, places), weights = PART.encode(joints, visible, SIZE)
    assert heatmaps.shape == (2, 5, 64, 48) and places.shape == (2, 12, 2)
    np.testing.assert_array_equal(heatmaps, PART.heatmap.encode(joints[:, :5], visible[:, :5], SIZE)[0])
    np.testing.assert_array_equal(places, PART.integral.encode(joints[:, 5:], visible[:, 5:], SIZE)[0])
    np.testing.assert_array_equal(weights, visible)


@pytest.mark.parametrize("codec", [*map(get_codec, INTEGRALS), PART])
def test_nobody_and_no_joint_flow_through(codec):
    for people, joints in ((0, 17), (3, 0)):
        empty = np.zeros((people, joints, 64, 48), np.float32)
        crop_xy, scores = codec.decode(empty, SIZE)
        assert crop_xy.shape == (people, joints, 2) and scores.shape == (people, joints)
        assert codec.average_flip(empty, empty, np.arange(joints), True).shape == empty.shape
        _, weights = codec.encode(np.zeros((people, joints, 2)), np.zeros((people, joints)), SIZE)
        assert weights.shape == (people, joints)


@pytest.mark.parametrize("name", INTEGRALS)
def test_a_broken_map_spoils_no_other(name):
    made = blobs(1, joints=17)
    wanted_xy, wanted_scores = get_codec(name).decode(made)
    made[0, 4, 7, 9], made[1, 2] = np.nan, np.nan
    crop_xy, scores = get_codec(name).decode(made)
    broken = np.zeros((2, 17), bool)
    broken[[0, 1], [4, 2]] = True
    assert not crop_xy[broken].any() and not scores[broken].any()
    np.testing.assert_allclose(crop_xy[~broken], wanted_xy[~broken], atol=1e-4)
    np.testing.assert_array_equal(scores[~broken], wanted_scores[~broken])


@pytest.mark.parametrize("name", INTEGRALS)
@pytest.mark.parametrize("level", [-1e4, -20.0, 0.0, 3.0])
def test_a_flat_map_is_the_middle_of_the_crop(name, level):
    made = np.full((1, 1, 64, 48), level, np.float32)
    crop_xy, scores = get_codec(name).decode(made)
    if name == "integral-sigmoid" and level == -1e4:  # its sigmoid is 0 everywhere
        np.testing.assert_array_equal(crop_xy, 0)
        assert scores == 0
    else:
        np.testing.assert_allclose(crop_xy, [[[94, 126]]], atol=1e-4)


@pytest.mark.parametrize("name", INTEGRALS)
def test_a_joint_without_a_place_has_no_weight(name):
    targets, weights = get_codec(name).encode([[[np.nan, 20], [192, 0], [np.inf, 9]]], [[1, 0.5, 1]], SIZE)
    np.testing.assert_array_equal(weights, [[0, 0.5, 0]])
    np.testing.assert_array_equal(targets, [[[0, 0], [0.5, -0.5], [0, 0]]])


def test_numbers_are_checked():
    with pytest.raises(PosezooError, match="did you mean softmax"):
        IntegralCodec(norm="soft-max")
    with pytest.raises(PosezooError, match="stride >= 1"):
        IntegralCodec(stride=0)
    with pytest.raises(PosezooError, match="number of joints, not -1"):
        CombinedCodec(HeatmapCodec(), IntegralCodec(), -1)
    with pytest.raises(PosezooError, match="one grid and one stride"):
        CombinedCodec(HeatmapCodec(grid="unbiased"), IntegralCodec(), 26)


def test_the_estimator_takes_the_stride_from_the_output(tmp_path):
    pytest.importorskip("onnx")
    from posezoo.estimator import Estimator
    from tiny_networks import joints_of, picture, pose_network

    class Coarse:
        """The network's heatmaps at half their size."""

        def __init__(self, inner):
            self.inner = inner

        def __call__(self, planes):
            fine = self.inner(planes)[0]
            people, joints, height, width = fine.shape
            return [fine.reshape(people, joints, height // 2, 2, width // 2, 2).mean((3, 5))]

    estimator = Estimator(pose_network(tmp_path / "pose.onnx"), detector=None, device="cpu", threads=1)
    estimator.runtime = Coarse(estimator.runtime)
    poses = estimator(picture(640, 480, [(4, 3)]), [[192, 128, 384, 320]])
    even, odd = joints_of(4, 3)
    assert np.abs(poses.keypoints_xy[0, 0::2] - even).max() < 10  # a pixel of these maps is 10 of the image
    assert np.abs(poses.keypoints_xy[0, 1::2] - odd).max() < 10


# ---- the torch twin

TWINS = {**{name: get_codec(name) for name in INTEGRALS}, "combined": PART, "heatmap": HeatmapCodec()}


@pytest.mark.parametrize("name", sorted(TWINS))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_twin_gives_the_same(name):
    torch = pytest.importorskip("torch")
    from posezoo.codecs import combined_torch

    codec = TWINS[name]
    made = 6 * blobs(0, people=4, joints=9, height=64, width=48)
    made[1, 7, 3, 3], made[2, 8] = np.nan, -np.inf
    for size_wh in (None, (384, 512)):
        for got, wanted in zip(
            combined_torch.decode(codec, torch.from_numpy(made), size_wh), codec.decode(made, size_wh), strict=True
        ):
            joints = slice(7 if name == "heatmap" else 9)  # its twin need not agree on the broken maps
            np.testing.assert_allclose(got.numpy()[:, joints], wanted[:, joints], atol=2e-4, rtol=1e-5)
    rng = np.random.default_rng(0)
    joints, visible = rng.uniform(-60, 320, (5, 9, 2)).astype(np.float32), rng.choice([0, 0.5, 1], (5, 9))
    joints[0, 0], joints[1, 7] = np.nan, np.inf
    targets, weights = codec.encode(joints, visible, SIZE)
    others, other_weights = combined_torch.encode(codec, torch.from_numpy(joints), torch.from_numpy(visible), SIZE)
    pairs = zip(others, targets, strict=True) if isinstance(targets, tuple) else [(others, targets)]
    for other, target in pairs:
        np.testing.assert_allclose(other.numpy(), target, atol=2e-6)
    np.testing.assert_array_equal(other_weights.numpy(), weights)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_the_twin_takes_nobody_and_half_precision(name):
    torch = pytest.importorskip("torch")
    from posezoo.codecs import combined_torch

    crop_xy, scores = combined_torch.decode(TWINS[name], torch.zeros(0, 9, 64, 48))
    assert crop_xy.shape == (0, 9, 2) and scores.shape == (0, 9)
    made = torch.from_numpy(4 * blobs(1, joints=9)).half()
    half_xy, _ = combined_torch.decode(TWINS[name], made)
    assert half_xy.dtype == torch.float32
    np.testing.assert_allclose(half_xy.numpy(), TWINS[name].decode(made.numpy())[0], atol=2e-4, rtol=1e-5)


def test_a_codec_without_a_twin_is_named():
    torch = pytest.importorskip("torch")
    from posezoo.codecs import combined_torch

    with pytest.raises(PosezooError, match="object has no torch twin"):
        combined_torch.decode(object(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(PosezooError, match="object has no torch twin"):
        combined_torch.encode(object(), torch.zeros(1, 1, 2), torch.zeros(1, 1), SIZE)


@pytest.mark.parametrize("name", ["combined", *INTEGRALS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor", "ignore:torch.tensor results")
def test_the_twin_runs_in_an_exported_graph(name, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from posezoo.codecs import combined_torch

    class Decode(torch.nn.Module):
        def forward(self, heatmaps):
            return combined_torch.decode(TWINS[name], heatmaps, (96, 128))

    path = tmp_path / "decode.onnx"
    example, axes = torch.from_numpy(blobs(0, joints=9)), {"heatmaps": {0: "people"}}
    torch.onnx.export(Decode().eval(), (example,), str(path), input_names=["heatmaps"], dynamic_axes=axes, dynamo=False)
    made = 5 * blobs(5, people=7, joints=9)
    crop_xy, scores = onnxruntime.InferenceSession(str(path)).run(None, {"heatmaps": made})
    wanted_xy, wanted_scores = TWINS[name].decode(made, (96, 128))
    np.testing.assert_allclose(crop_xy, wanted_xy, atol=2e-4, rtol=1e-5)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
