"""The pipeline on tensors: its crops are OpenCV's, its joints are those of the numpy pipeline."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from posezoo import crop
from posezoo.codecs import get_codec, list_codecs
from posezoo.crop import box_to_affine, crop_images, invert_affine, transform_points
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator, NetworkSpec
from posezoo.media.images import read_image
from posezoo.skeletons import get_skeleton
from test_codecs import blobs
from tiny_networks import GREY, METADATA, joints_of, picture

torch = pytest.importorskip("torch")

from posezoo import crop_torch  # noqa: E402
from posezoo.codecs.combined_torch import average_flip, decode  # noqa: E402
from posezoo.constant_torch import _kept, constant  # noqa: E402
from posezoo.deploy import on_device  # noqa: E402
from posezoo.deploy.on_device import OnDevice  # noqa: E402
from posezoo.deploy.runtimes import TorchRuntime  # noqa: E402

SIZE = (96, 128)
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXACT = int(cv2.__version__.split(".")[0]) >= 5  # before, OpenCV rounded its sample positions to 1/32 pixel


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """As hard as a picture can be: every pixel is its own."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def boxes_of(images: list[np.ndarray], people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the box of so many people a picture; some far too large, some outside."""
    rng = np.random.default_rng(seed)
    image_of = np.repeat(np.arange(len(images)), people)
    limits = np.array([images[i].shape[1::-1] for i in image_of])
    centers, sides = rng.uniform(-0.3, 1.3, limits.shape) * limits, rng.uniform(0.02, 1.5, limits.shape) * limits
    return image_of, np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def cv2_crops(images: list[np.ndarray], image_of: np.ndarray, to_crop: np.ndarray, size_wh=SIZE) -> np.ndarray:
    return np.concatenate([crop_images(images[i], to_crop[[n]], size_wh) for n, i in enumerate(image_of)])


def twin_crops(images: list[np.ndarray], image_of: np.ndarray, to_crop: np.ndarray, size_wh=SIZE) -> np.ndarray:
    packed = crop_torch.pack(images)
    return crop_torch.crop_images(packed, image_of, invert_affine(to_crop), size_wh).numpy()


# ---- crops


@pytest.mark.parametrize("grid", ["legacy", "unbiased"])
@pytest.mark.parametrize("real", [True, False])
def test_crops_are_those_of_opencv(real: bool, grid: crop.Grid) -> None:
    paths = sorted(EXAMPLES.glob("*.[pj]*g"))
    images = [read_image(path) for path in paths] if real else [noise(0, 211, 160), noise(1, 40, 300), noise(2, 1, 1)]
    assert len(images) >= 3
    image_of, boxes = boxes_of(images, 5)
    angles = np.random.default_rng(1).uniform(-60, 60, len(boxes)) * (np.arange(len(boxes)) % 2)
    to_crop = box_to_affine(boxes, SIZE, 1.25, angles, grid)
    difference = np.abs(twin_crops(images, image_of, to_crop).astype(int) - cv2_crops(images, image_of, to_crop))
    assert difference.max() <= (1 if EXACT else 9)
    assert (difference > 0).mean() < (1e-3 if EXACT else 0.5)
    assert twin_crops(images, image_of, to_crop).std() > 20


def test_crops_do_not_depend_on_the_order_or_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise(0, 50, 70), noise(1, 90, 30)]
    image_of, boxes = boxes_of(images, 4)
    to_crop = box_to_affine(boxes, SIZE)
    whole = twin_crops(images, image_of, to_crop)
    monkeypatch.setattr(crop_torch, "CHUNK_PIXELS", 2 * SIZE[0] * SIZE[1] + 1)
    order = np.random.default_rng(0).permutation(len(image_of))
    np.testing.assert_array_equal(twin_crops(images, image_of[order], to_crop[order]), whole[order])


def test_a_picture_larger_than_opencv_takes_is_sharp_at_its_far_end() -> None:
    image = np.tile(noise(0, 8, 100), (1, 500, 1))  # 50,000 pixels wide
    to_crop = box_to_affine([[49_000.25, -60, 49_100.25, 70]], SIZE)
    wanted = crop_images(image, to_crop, SIZE).astype(int)
    assert wanted.any()
    assert np.abs(twin_crops([image], np.zeros(1, int), to_crop) - wanted).max() <= (1 if EXACT else 9)


def test_nothing_to_cut_or_nothing_to_cut_from_is_black_or_empty() -> None:
    empty = np.zeros((0, 5, 3), np.uint8)
    to_crop = box_to_affine([[0, 0, 10, 10], [0, 0, 10, 10], [1e6, 1e6, 2e6, 2e6]], SIZE)
    crops = twin_crops([noise(0, 9, 9), empty], np.array([1, 0, 0]), to_crop)
    assert not crops[0].any() and crops[1].any() and not crops[2].any()
    assert twin_crops([], np.zeros(0, int), np.zeros((0, 2, 3))).shape == (0, SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(PosezooError, match=r"image 1 must be \(H, W, 3\) uint8"):
        crop_torch.pack([noise(0, 2, 2), bad])


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalise_is_the_same_in_every_type_and_layout(channels) -> None:
    crops = noise(0, 3 * 16, 12).reshape(3, 16, 12, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = crop.normalise(crops, mean, std, channels)
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype, close in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
            out = torch.full(wanted.shape, torch.nan, dtype=dtype).to(memory_format=layout)
            made = crop_torch.normalise(torch.from_numpy(crops), mean, std, channels, dtype, layout)
            written = crop_torch.normalise(torch.from_numpy(crops), mean, std, channels, out=out)
            assert written is out and torch.equal(written, made)
            assert made.dtype == dtype and made.is_contiguous(memory_format=layout)
            np.testing.assert_allclose(made.float().numpy(), wanted, atol=close)
    with pytest.raises(PosezooError, match="channel order 'rbg'"):
        crop_torch.normalise(torch.from_numpy(crops), mean, std, "rbg")  # type: ignore[arg-type]


# ---- codecs


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("name", list_codecs())
def test_flipped_outputs_are_averaged_as_in_numpy(name: str, shift: bool) -> None:
    codec, mirror = get_codec(name), get_skeleton("halpe26").mirror_index
    maps, flipped = (blobs(seed, people=3, joints=26, height=32, width=24) for seed in (0, 1))
    if name.startswith("combined"):
        codec = dataclasses.replace(codec, heatmap_joints=20)
    wanted = codec.average_flip(maps, flipped, mirror, shift)
    made = average_flip(codec, torch.from_numpy(maps), torch.from_numpy(flipped), mirror, shift)
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), wanted, atol=1e-5, rtol=1e-4)
    wanted_xy, wanted_scores = codec.decode(wanted, SIZE)
    made_xy, made_scores = decode(codec, made, SIZE)
    np.testing.assert_allclose(made_xy.numpy(), wanted_xy, atol=1e-2)
    np.testing.assert_allclose(made_scores.numpy(), wanted_scores, atol=1e-5)


def test_a_constant_is_kept_where_a_copy_would_wait() -> None:
    with torch.inference_mode():
        kept = _kept(torch.device("cpu"), np.float32, (1.0, 2.5))
        assert kept is _kept(torch.device("cpu"), np.float32, (1.0, 2.5)) and not kept.is_inference()
    assert kept.tolist() == constant(torch.device("cpu"), np.float32, (1.0, 2.5)).tolist() == [1.0, 2.5]


# ---- the pipeline


class Colours(torch.nn.Module):
    """`tiny_networks.pose_network` in torch: even joints are where red is, odd ones where blue is."""

    def __init__(self, joints: int = 17):
        super().__init__()
        sees = torch.zeros(joints, 3, 1, 1)
        sees[0::2], sees[1::2] = torch.tensor([1.0, -1, -1])[:, None, None], torch.tensor([-1.0, -1, 1])[:, None, None]
        bell = cv2.getGaussianKernel(9, 1.5).astype(np.float32)
        self.see = torch.nn.Parameter(sees)
        self.blur = torch.nn.Parameter(torch.from_numpy(bell @ bell.T).repeat(joints, 1, 1, 1))
        self.batches: list[int] = []

    def forward(self, x):
        self.batches.append(len(x))
        seen = torch.nn.functional.avg_pool2d(torch.nn.functional.conv2d(x, self.see).relu(), 4)
        return {"heatmaps": torch.nn.functional.conv2d(seen, self.blur, padding=4, groups=len(self.blur)), "rest": None}


def colours(joints: int = 17) -> TorchRuntime:
    return TorchRuntime(Colours(joints).eval(), "cpu")


def spec_of(**changes) -> NetworkSpec:
    return dataclasses.replace(NetworkSpec.of({"name": "tiny", **METADATA}), **changes)


PEOPLE = [(2, 2), (6, 3), (8, 1)]


def scene() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Three pictures, one of them without people, in no order of size."""
    images = [picture(640, 480, PEOPLE), np.full((31, 17, 3), GREY, np.uint8), picture(320, 240, PEOPLE[:2], 32)]
    squares = [(0, 64, p) for p in PEOPLE] + [(2, 32, p) for p in PEOPLE[:2]]
    boxes = [[(x - 1) * u, (y - 1) * u, (x + 2) * u, (y + 2) * u] for _, u, (x, y) in squares]
    return images, np.array([image for image, _, _ in squares]), np.array(boxes, float)


@pytest.mark.parametrize("batch_size", [1, 2, 8, 11])
def test_joints_are_where_the_colours_are(batch_size: int) -> None:
    images, image_of, boxes = scene()
    spec, runtime = spec_of(), colours()
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale)
    crop_xy, scores = OnDevice(spec, runtime, batch_size=batch_size)(images, image_of, to_crop)
    assert crop_xy.dtype == scores.dtype == np.float32 and crop_xy.shape == (5, 17, 2) and scores.shape == (5, 17)
    found = transform_points(invert_affine(to_crop), crop_xy)
    for row, (unit, person) in enumerate([(64, p) for p in PEOPLE] + [(32, p) for p in PEOPLE[:2]]):
        even, odd = joints_of(*person, unit)
        assert np.abs(found[row, 0::2] - even).max() < 6 and np.abs(found[row, 1::2] - odd).max() < 6
    assert (scores > 0.3).all()
    sizes = {1: [1] * 5, 2: [2, 2, 1], 8: [8], 11: [8]}
    assert runtime.module.batches == sizes[batch_size]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"codec": get_codec("heatmap-quarter"), "flip_shift": True, "channels": "bgr"},
        {"codec": get_codec("heatmap-dark-udp"), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.9, 2.0)},
        {"codec": get_codec("integral-sigmoid")},
        {"codec": dataclasses.replace(get_codec("combined-26"), heatmap_joints=9)},
    ],
)
def test_joints_are_those_of_the_numpy_pipeline(changes: dict, flip: bool) -> None:
    images, image_of, boxes = scene()
    spec, runtime = spec_of(**changes), colours()
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    wanted_xy, wanted_scores = in_numpy(spec, runtime, flip, images, image_of, to_crop)
    crop_xy, scores = OnDevice(spec, runtime, flip, 4)(images, image_of, to_crop)
    np.testing.assert_allclose(crop_xy, wanted_xy, atol=0.1)
    np.testing.assert_allclose(scores, wanted_scores, atol=5e-3)


def in_numpy(spec, runtime, flip, images, image_of, to_crop) -> tuple[np.ndarray, np.ndarray]:
    crops = cv2_crops(images, image_of, to_crop, spec.input_size_wh)
    planes = crop.normalise(crops, spec.mean, spec.std, spec.channels)
    maps = TorchRuntime(lambda batch: runtime.module(batch)["heatmaps"], "cpu")(planes)[0]
    if flip:
        mirrored = TorchRuntime(lambda batch: runtime.module(batch)["heatmaps"], "cpu")(planes[..., ::-1])[0]
        maps = spec.codec.average_flip(maps, mirrored, spec.skeleton.mirror_index, spec.flip_shift)
    return spec.codec.decode(maps, spec.input_size_wh)


@pytest.mark.parametrize("flip", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_embedded_network_finds_the_same_on_real_pictures(flip: bool) -> None:
    estimator = Estimator("embedded", runtime="torch", device="cpu", flip=flip, batch_size=8)
    images = [read_image(path) for path in sorted(EXAMPLES.glob("*.[pj]*g"))[:3]]
    image_of, boxes = boxes_of(images, 2, seed=3)
    spec = estimator.spec
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    own = [boxes[image_of == i] for i in range(len(images))]
    wanted = estimator(images, own)
    crop_xy, scores = OnDevice(spec, estimator.runtime, flip, 8)(images, image_of, to_crop)
    wanted_xy = transform_points(to_crop, np.concatenate([poses.keypoints_xy for poses in wanted]))
    apart = np.linalg.norm(crop_xy - wanted_xy, axis=2)
    same_peak = apart < 4  # crop pixels; a peak elsewhere is another of two equal ones
    assert same_peak.mean() > 0.99 and apart[same_peak].max() < 0.1
    np.testing.assert_allclose(scores, np.concatenate([poses.scores for poses in wanted]), atol=5e-3)


def test_pictures_are_uploaded_once_however_many_batches_they_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _, boxes = scene()
    packed: list[int] = []
    pack = crop_torch.pack
    monkeypatch.setattr(on_device, "pack", lambda some, pinned: packed.append(len(some)) or pack(some, pinned))
    image_of = np.array([0, 0, 0, 0, 2])
    to_crop = box_to_affine(boxes, (192, 256))
    OnDevice(spec_of(), colours(), batch_size=2)(images, image_of, to_crop)
    assert packed == [1, 1]  # the first picture for two batches, then the third for the last


def test_nobody_costs_nothing() -> None:
    runtime = colours()
    crop_xy, scores = OnDevice(spec_of(), runtime, flip=True)([], [], np.zeros((0, 2, 3)))
    assert crop_xy.shape == (0, 17, 2) and scores.shape == (0, 17) and runtime.module.batches == []


def test_weights_of_half_the_size_get_crops_of_their_type() -> None:
    images, image_of, boxes = scene()
    to_crop = box_to_affine(boxes, (192, 256))
    full_xy, _ = OnDevice(spec_of(), colours())(images, image_of, to_crop)
    half = TorchRuntime(Colours().bfloat16().eval(), "cpu", precision="bf16")
    half_xy, scores = OnDevice(spec_of(), half)(images, image_of, to_crop)
    assert half_xy.dtype == scores.dtype == np.float32
    assert np.abs(half_xy - full_xy).max() < 4  # a bfloat16 has 8 bits: neighbours of a flat peak are equal


def test_a_network_that_normalises_and_decodes_itself_is_left_to_it() -> None:
    images, image_of, boxes = scene()
    spec = spec_of()
    to_crop = box_to_affine(boxes, spec.input_size_wh)
    plain = OnDevice(spec, colours())

    class Whole(torch.nn.Module):
        def forward(self, crops):
            assert crops.dtype == torch.uint8 and crops.shape[1:] == (256, 192, 3)
            planes = crop_torch.normalise(crops, spec.mean, spec.std)
            crop_xy, scores = decode(spec.codec, Colours()(planes)["heatmaps"], spec.input_size_wh)
            return torch.cat([crop_xy, scores[..., None]], dim=2)

    whole = OnDevice(spec_of(input="crops", output="joints"), TorchRuntime(Whole().eval(), "cpu"))
    for ours, theirs in zip(whole(images, image_of, to_crop), plain(images, image_of, to_crop), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    with pytest.raises(PosezooError, match="tiny decodes its maps itself"):
        OnDevice(spec_of(output="joints"), colours(), flip=True)


def test_a_network_with_other_joints_than_its_skeleton_is_refused() -> None:
    images, image_of, boxes = scene()
    with pytest.raises(PosezooError, match="tiny gives 16 joints, but its skeleton coco17 has 17"):
        OnDevice(spec_of(), colours(16))(images, image_of, box_to_affine(boxes, (192, 256)))
    with pytest.raises(PosezooError, match="batch_size must be 1 or more"):
        OnDevice(spec_of(), colours(), batch_size=0)


def test_a_batch_that_does_not_fit_says_what_to_do() -> None:
    class Large(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    images, image_of, boxes = scene()
    with pytest.raises(PosezooError, match="does not hold a batch of 8: --batch-size less"):
        OnDevice(spec_of(), TorchRuntime(Large(), "cpu"), batch_size=8)(images, image_of, box_to_affine(boxes, SIZE))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a graph can be captured here")
def test_where_no_graph_can_be_captured_the_network_is_called() -> None:
    images, image_of, boxes = scene()
    to_crop = box_to_affine(boxes, (192, 256))
    with_graphs = OnDevice(spec_of(), colours(), graphs=True)
    found = with_graphs(images, image_of, to_crop)
    assert not with_graphs.graphs
    np.testing.assert_array_equal(found[0], OnDevice(spec_of(), colours())(images, image_of, to_crop)[0])


def test_calls_from_many_threads_do_not_mix() -> None:
    images, image_of, boxes = scene()
    to_crop = box_to_affine(boxes, (192, 256))
    pipeline = OnDevice(spec_of(), colours(), batch_size=2)
    wanted = pipeline(images, image_of, to_crop)[0]
    found: dict[int, np.ndarray] = {}

    def call(number: int) -> None:
        order = np.roll(np.arange(len(image_of)), number)
        found[number] = pipeline(images, image_of[order], to_crop[order])[0][np.argsort(order)]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_allclose(found[number], wanted, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_a_graphics_card_gives_the_same(graphs: bool, flip: bool) -> None:
    estimator = Estimator("embedded", runtime="torch", device="cpu", flip=flip)
    spec = estimator.spec
    images = [read_image(path) for path in sorted(EXAMPLES.glob("*.[pj]*g"))[:4]]
    image_of, boxes = boxes_of(images, 12, seed=3)
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    wanted_xy, _ = OnDevice(spec, estimator.runtime, flip, 8)(images, image_of, to_crop)
    runtime = TorchRuntime(estimator.runtime.module.cuda(), "cuda")
    pipeline = OnDevice(spec, runtime, flip, 32, graphs=graphs)
    pending = [pipeline.submit(images, image_of, to_crop) for _ in range(3)]
    assert pipeline.graphs == graphs
    for crop_xy, scores in (one.result() for one in pending):
        apart = np.linalg.norm(crop_xy - wanted_xy, axis=2)
        assert (apart < 0.5).mean() > 0.98 and np.isfinite(scores).all()  # TF32 convolutions move a few peaks
