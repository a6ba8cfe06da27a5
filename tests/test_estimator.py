"""The pipeline joined: with networks whose right answer is known, every step must be right for the joints to be."""

from __future__ import annotations

import doctest
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.estimator import LOOK_AHEAD, Estimator
from posezoo.media import Picture, write_image
from posezoo.predict import MIN_SCORE
from posezoo.skeletons import get_skeleton
from posezoo.suppress import person_scores
from posezoo.types import Boxes, Poses
from tiny_networks import METADATA, detector_network, joints_of, picture, pose_network

PEOPLE = [(2, 2), (6, 3), (8, 1)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    return pose_network(folder / "pose.onnx"), detector_network(folder / "detector.onnx")


@pytest.fixture(scope="module")
def estimator(files: tuple[Path, Path]) -> Estimator:
    return Estimator(files[0], detector=files[1], device="cpu", threads=1)


def assert_right(poses: Poses, people: list[tuple[int, int]], unit: int = 64, atol: float = 6.0) -> None:
    """The people, in any order, have their joints where the colours are (a heatmap cell is 5 image pixels wide)."""
    assert len(poses) == len(people)
    expected = np.array([joints_of(*person, unit)[0] for person in people])
    order = [int(np.abs(expected - xy[0]).sum(axis=1).argmin()) for xy in poses.keypoints_xy]
    assert sorted(order) == list(range(len(people)))
    for row, n in enumerate(order):
        even, odd = joints_of(*people[n], unit)
        assert np.abs(poses.keypoints_xy[row, 0::2] - even).max() < atol
        assert np.abs(poses.keypoints_xy[row, 1::2] - odd).max() < atol


def test_joints_are_where_the_colours_are(estimator: Estimator) -> None:
    poses = estimator(picture(640, 480, PEOPLE))
    assert_right(poses, PEOPLE)
    assert poses.skeleton.name == "coco17" and poses.scores.shape == (3, 17)
    assert (poses.scores > 0.3).all() and (poses.scores <= 1).all()
    assert np.allclose(sorted(poses.boxes_xyxy.tolist())[0], [64, 64, 256, 256])


def test_scale_and_batches_do_not_matter(files: tuple[Path, Path]) -> None:
    for batch_size in (1, 2, 32):
        small = Estimator(files[0], detector=files[1], batch_size=batch_size)
        images = [picture(640, 480, PEOPLE), picture(320, 240, PEOPLE, 32), picture(640, 480, [])]
        first, second, third = small(images)
        assert_right(first, PEOPLE)
        assert_right(second, PEOPLE, 32, atol=3)
        assert len(third) == 0 and third.keypoints_xy.shape == (0, 17, 2)


@pytest.mark.parametrize(("shift", "moved"), [(False, 0.0), (True, 2.5)])
def test_flip_finds_the_same_place_and_shifts_where_the_network_says_so(
    files: tuple[Path, Path], tmp_path: Path, shift: bool, moved: float
) -> None:
    blue = pose_network(tmp_path / "blue.onnx", metadata={**METADATA, "flip_shift": shift}, all_blue=True)
    image = picture(640, 480, [(4, 3)])
    plain = Estimator(blue, detector=files[1])(image)
    flipped = Estimator(blue, detector=files[1], flip=True)(image)
    difference = flipped.keypoints_xy - plain.keypoints_xy
    assert np.abs(difference - (moved, 0)).max() < 0.7
    assert np.abs(flipped.scores - plain.scores).max() < 0.05


def test_flip_exchanges_left_and_right(files: tuple[Path, Path]) -> None:
    """A left joint of the mirrored crop is a right one. Here partners see different colours: both heights halve."""
    image = picture(640, 480, [(4, 3)])
    plain = Estimator(files[0], detector=files[1])(image)
    flipped = Estimator(files[0], detector=files[1], flip=True)(image)
    assert np.allclose(flipped.scores[:, 0], plain.scores[:, 0], atol=0.05)
    assert np.allclose(flipped.scores[:, 1::2], plain.scores[:, 1::2] / 2, atol=0.05)


def test_one_image_a_list_a_stack_and_an_iterator(estimator: Estimator, tmp_path: Path) -> None:
    image = picture(640, 480, [(2, 2)])
    write_image(tmp_path / "a.png", image)
    for one in (image, tmp_path / "a.png", str(tmp_path / "a.png"), Picture(image, "x")):
        assert isinstance(estimator(one), Poses)
    for many in ([image, tmp_path / "a.png"], (image, image), np.stack([image, image])):
        found = estimator(many)
        assert isinstance(found, list)
        assert [len(poses) for poses in found] == [1, 1]
    assert estimator([]) == []
    lazy = estimator(iter([image]))
    assert isinstance(lazy, Iterator) and len(next(lazy)) == 1


def test_a_stream_is_in_order_and_looks_only_a_little_ahead(estimator: Estimator) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield picture(320, 256, [(c, 2) for c in range(2, 2 + (taken - 1) % 3 * 3, 3)], 32)

    stream = estimator.stream(endless())
    assert [len(next(stream)) for _ in range(20)] == [0, 1, 2] * 6 + [0, 1]
    assert taken <= 20 + LOOK_AHEAD


def test_what_was_read_before_an_image_that_fails_is_given(estimator: Estimator, tmp_path: Path) -> None:
    def camera() -> Iterator[Any]:
        yield from [picture(64, 64, [])] * 2
        raise RuntimeError("unplugged")

    for images, error in [
        (camera(), RuntimeError),
        (iter([picture(64, 64, [])] * 2 + [tmp_path / "gone.jpg"]), PosezooError),
    ]:
        found = []
        with pytest.raises(error):
            for poses in estimator.stream(images):
                found.append(poses)
        assert len(found) == 2


def test_given_boxes_are_used_in_their_order(estimator: Estimator) -> None:
    image = picture(640, 480, PEOPLE)
    boxes = np.array([[c * 64 - 64, r * 64 - 64, c * 64 + 128, r * 64 + 128] for c, r in PEOPLE], float)
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 1]):
        poses = estimator(image, boxes[order])
        assert np.allclose(poses.boxes_xyxy, boxes[order]) and (poses.box_scores == 1).all()
        for xy, n in zip(poses.keypoints_xy, order, strict=True):
            assert np.abs(xy[0] - joints_of(*PEOPLE[n])[0]).max() < 6
    assert len(estimator(image, [])) == 0
    assert len(estimator(image, Boxes(boxes, np.array([0.5, 0.6, 0.7])))) == 3
    found = estimator([image, image, image], [boxes, None, boxes[:1]])
    assert [len(poses) for poses in found] == [3, 3, 1]


def test_no_person_and_a_hundred(estimator: Estimator) -> None:
    assert len(estimator(picture(640, 480, []))) == 0
    image = picture(640, 480, [(4, 3)])
    boxes = np.tile([[192.0, 128, 384, 320]], (100, 1))
    poses = estimator(image, boxes)
    assert len(poses) == 100 and np.ptp(poses.keypoints_xy, axis=0).max() == 0


def test_two_boxes_round_one_person_give_one_pose(files: tuple[Path, Path]) -> None:
    class Twice:
        def __call__(self, images_rgb: object, names: object = None) -> list[Boxes]:
            return [Boxes(np.array([[190, 126, 384, 320], [192, 128, 384, 320]]), np.array([0.6, 0.9]))]

    poses = Estimator(files[0], detector=Twice())(picture(640, 480, [(4, 3)]))
    assert len(poses) == 1 and poses.box_scores.tolist() == pytest.approx([0.9])


def test_joints_that_are_not_seen_do_not_make_one_person_two() -> None:
    skeleton = get_skeleton("coco17")
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 200, (17, 2))
    wandering, scores = one.copy(), np.full((2, 17), 0.8)
    wandering[11:] += rng.uniform(-150, 150, (6, 2))
    scores[:, 11:] = 0.1
    boxes = np.array([[0, 0, 200, 200], [5, 5, 200, 200]], float)

    def left(second: np.ndarray) -> int:
        return len(Estimator._suppress(Poses(np.stack([one, second]), scores, boxes, np.array([0.9, 0.8]), skeleton)))

    assert left(wandering) == 1
    assert left(np.where(np.arange(17)[:, None] < 6, one + 40, one)) == 2, "another head and other shoulders are seen"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 2)])
def test_tiny_images(files: tuple[Path, Path], shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), (255, 0, 0), np.uint8)
    assert len(Estimator(files[0], detector=files[1])(image)) == 0
    poses = Estimator(files[0], detector="whole")(image)
    assert len(poses) == 1 and np.isfinite(poses.keypoints_xy).all()


def test_boxes_far_outside_and_without_size(estimator: Estimator) -> None:
    boxes = np.array([[-900, -900, -800, -800], [10, 10, 10, 10], [0, 0, 1e5, 1e5], [5000, 0, 5001, 1]], float)
    poses = estimator(picture(640, 480, [(4, 3)]), boxes)
    assert len(poses) == 4 and np.isfinite(poses.keypoints_xy).all()
    assert poses.scores[0].max() == 0


def test_the_channel_order_is_the_networks(tmp_path: Path, files: tuple[Path, Path]) -> None:
    reads_bgr = pose_network(tmp_path / "bgr.onnx", metadata={**METADATA, "channels": "bgr"})
    image = picture(640, 480, [(4, 3)])
    poses = Estimator(reads_bgr, detector=files[1])(image)
    even, odd = joints_of(4, 3)
    assert np.abs(poses.keypoints_xy[0, 0] - odd).max() < 6 and np.abs(poses.keypoints_xy[0, 1] - even).max() < 6


def test_boxes_from_a_file_go_by_path(files: tuple[Path, Path], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(640, 480, [(4, 3)]))
    (tmp_path / "boxes.json").write_text('{"a.png": [[192, 128, 384, 320, 0.5]]}')
    by_file = Estimator(files[0], detector=tmp_path / "boxes.json")
    poses = by_file(tmp_path / "a.png")
    assert_right(poses, [(4, 3)])
    assert poses.box_scores.tolist() == [0.5]
    with pytest.raises(PosezooError, match="found by file name"):
        by_file(picture(640, 480, []))


def test_what_cannot_be_estimated(estimator: Estimator, tmp_path: Path) -> None:
    image = picture(64, 64, [])
    for wrong, message in [
        (np.zeros((5, 5), np.uint8), "image 0: an image must be"),
        ([image, np.zeros((5, 5, 3), np.float32)], r"image 1: .*float32; floats in 0..1"),
        (tmp_path / "missing.jpg", "no such file"),
        (3, "image 0: an image must be a path"),
    ]:
        with pytest.raises(PosezooError, match=message):
            estimator(wrong)  # type: ignore[call-overload]
    for boxes, message in [
        ([[0, 0, 5]], r"boxes_xyxy must have shape \(any, 4\)"),
        ([[0, 0, 5, np.nan]], "box 0 is not finite"),
        ([[9, 0, 5, 5]], "box 0 has a negative size"),
    ]:
        with pytest.raises(PosezooError, match=message):
            estimator(image, boxes)
    with pytest.raises(PosezooError, match="2 images were given, but boxes for 1"):
        estimator([image, image], [None])
    with pytest.raises(PosezooError, match="boxes_xyxy ends before the images do"):
        list(estimator.stream(iter([image, image]), iter([None])))


def test_without_a_detector_boxes_must_be_given(files: tuple[Path, Path]) -> None:
    bare = Estimator(files[0], detector=None)
    assert len(bare(picture(64, 64, []), [[0, 0, 9, 9]])) == 1
    with pytest.raises(PosezooError, match="give boxes_xyxy"):
        bare(picture(64, 64, []))


def test_files_and_options_that_do_not_work(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=r"has no 'posezoo' metadata .*-m NAME --weights"):
        Estimator(pose_network(tmp_path / "bare.onnx", metadata=None))
    with pytest.raises(PosezooError, match="metadata is not JSON"):
        Estimator(pose_network(tmp_path / "bad.onnx", metadata="{"))
    without = {k: v for k, v in METADATA.items() if k not in ("codec", "mean")}
    with pytest.raises(PosezooError, match="does not say its codec, mean"):
        Estimator(pose_network(tmp_path / "part.onnx", metadata=without))
    with pytest.raises(PosezooError, match="unknown codec 'heatmap-quater'; did you mean heatmap-quarter"):
        Estimator(pose_network(tmp_path / "codec.onnx", metadata={**METADATA, "codec": "heatmap-quater"}))
    with pytest.raises(PosezooError, match="gives 5 joints, but its skeleton coco17 has 17"):
        Estimator(pose_network(tmp_path / "five.onnx", joints=5), detector="whole")(picture(64, 64, []))
    with pytest.raises(PosezooError, match=r"no such file: .*none\.onnx"):
        Estimator(tmp_path / "none.onnx")
    with pytest.raises(PosezooError, match="'simple_pose_resnet18'; did you mean simple_pose_resnet18_v1b"):
        Estimator("simple_pose_resnet18")
    with pytest.raises(PosezooError, match="finds people, not their joints"):
        Estimator("embedded-detector")
    for options, message in [
        ({"runtime": "onyx"}, r"unknown runtime 'onyx'; did you mean onnx\?"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"runtime": "torch"}, "the torch runtime cannot run it"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"threads": 0}, "threads must be 1 or more"),
        ({"max_megapixels": -1}, "max-megapixels must be a number above 0, but is -1"),
        ({"max_megapixels": "x"}, "max-megapixels must be a number above 0, but is x"),
        ({"weights": files[0]}, "has its weights inside"),
    ]:
        with pytest.raises(PosezooError, match=message):
            Estimator(files[0], detector="whole", **options)  # type: ignore[arg-type]


def test_cuda_is_refused_where_there_is_none(files: tuple[Path, Path]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has CUDA")
    with pytest.raises(PosezooError, match="has no CUDA"):
        Estimator(files[0], detector="whole", device="cuda")


def test_a_zoo_model_runs_with_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from posezoo import get_model

    name = "mobile_pose_mobilenetv3_small"
    torch.manual_seed(0)
    model = get_model(name)
    safetensors.save_file(model.state_dict(), tmp_path / "w.safetensors")
    image = picture(256, 256, [(2, 2)], 32)
    by_torch = Estimator(name, weights=tmp_path / "w.safetensors", detector="whole", device="cpu")
    assert by_torch.runtime.name == "torch"
    poses = by_torch(image)
    batch = np.random.default_rng(0).standard_normal((2, 3, 256, 192)).astype(np.float32)
    with torch.inference_mode():
        assert np.allclose(by_torch.runtime(batch)[0], model(torch.from_numpy(batch)).numpy(), atol=1e-5)
    assert len(poses) == 1 and np.isfinite(poses.keypoints_xy).all()
    assert by_torch.spec.input_size_wh == (192, 256) and by_torch.spec.skeleton is poses.skeleton


def test_the_packaged_pair_finds_the_astronaut() -> None:
    picture_file = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
    poses = Estimator(device="cpu")(picture_file)
    shown = poses[person_scores(poses) >= MIN_SCORE]
    assert len(shown) == 1, "several boxes found her"
    best = poses[int(poses.scores.mean(axis=1).argmax())]
    joint = poses.skeleton.index
    nose, left, right = (best.keypoints_xy[0, joint(name)] for name in ("nose", "left_shoulder", "right_shoulder"))
    assert np.abs(nose - (224, 118)).max() < 25
    assert left[0] - right[0] > 120  # she faces us: her left is on our right


def test_the_example_of_the_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    examples = doctest.DocTestFinder(recurse=False).find(Estimator, "Estimator", globs={"Estimator": Estimator})
    done = [doctest.DocTestRunner().run(example) for example in examples]
    assert sum(each.attempted for each in done) == 2 and sum(each.failed for each in done) == 0


def test_numbers_of_numpy_are_whole_numbers(files: tuple[Path, Path]) -> None:
    made = Estimator(files[0], detector="whole", batch_size=np.int64(4), threads=np.int64(1))  # type: ignore[arg-type]
    assert made.batch_size == 4 and len(made(picture(64, 64, []))) == 1


# ---- a detector of one's own


def test_any_callable_is_a_detector(files: tuple[Path, Path]) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    for detector in (lambda images: [[[0, 0, 40, 60]]], lambda images, names=None: [Boxes([[0, 0, 40, 60]])]):
        found = Estimator(files[0], detector=detector)(image)
        assert found.boxes_xyxy.tolist() == [[0, 0, 40, 60]]
    assert len(Estimator(files[0], detector=lambda images: [None])(image)) == 0


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ([], "the detector gave boxes for 0 of 1 images"),
        (None, "what the detector gives: .*NoneType"),
        ([[[0, 0, 9]]], r"what the detector gives: boxes_xyxy must have shape \(any, 4\)"),
        ([Boxes.empty()] * 2, "the detector gave boxes for 2 of 1 images"),
    ],
)
def test_what_a_detector_must_give(files: tuple[Path, Path], gives: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        Estimator(files[0], detector=lambda images: gives)(np.zeros((60, 80, 3), np.uint8))


def test_a_single_path_is_no_stream_of_letters(files: tuple[Path, Path]) -> None:
    with pytest.raises(PosezooError, match="stream wants a list or an iterator of images"):
        next(Estimator(files[0], detector="whole").stream("photo.png"))


def test_the_score_of_a_person_is_that_of_the_files(files: tuple[Path, Path]) -> None:
    found = Estimator(files[0], detector="whole")(np.full((60, 80, 3), (255, 0, 0), np.uint8))
    assert found.person_scores.shape == (1,) and found.person_scores == pytest.approx(person_scores(found))
    assert repr(found).startswith("Poses(1 person,")


def test_boxes_of_a_file_have_a_pose_each(files: tuple[Path, Path], tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    write_image(image, picture(640, 480, PEOPLE))
    given = [[64, 64, 256, 256, 0.3], [60, 60, 260, 260, 0.9], [64, 64, 256, 256, 0.3]]
    (tmp_path / "boxes.json").write_text(json.dumps({"a.png": given}))
    estimator = Estimator(files[0], detector=tmp_path / "boxes.json")
    assert estimator(image).boxes_xyxy.tolist() == [row[:4] for row in given]
    estimator.merge = True
    assert estimator(image).boxes_xyxy.tolist() == [given[1][:4]]
