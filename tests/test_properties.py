"""What holds for any box, map, pose, result, track and picture, tried on examples that hypothesis makes up.

By default a few examples, always the same; `make test-slow` tries many more, and others each time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from format_results import assert_same, write
from posezoo.codecs import CODECS, CombinedCodec, HeatmapCodec
from posezoo.crop import box_to_affine, crop_images, invert_affine, transform_points
from posezoo.errors import PosezooError
from posezoo.formats import FORMATS, Result, read_results
from posezoo.media.headers import FORMATS as PICTURES
from posezoo.media.headers import read_header, sniff
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.suppress import oks_nms, parametric_nms, soft_oks_nms
from posezoo.track import NO_ID, Tracker
from posezoo.types import Poses

AT_LENGTH: dict[str, Callable[[], None]] = {}
HAS_TORCH = find_spec("torch") is not None
COCO = get_skeleton("coco17")

seeds = st.integers(0, 2**32 - 1)
grids = st.sampled_from(["legacy", "unbiased"])


def holds(examples: int, **drawn: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """A test of a few examples; `test_at_length` tries 25 times as many."""
    common: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        AT_LENGTH[check.__name__.removeprefix("test_")] = settings(max_examples=25 * examples, **common)(
            given(**drawn)(check)
        )
        return settings(max_examples=examples, derandomize=True, **common)(given(**drawn)(check))

    return decorate


# ---- crops

places = st.floats(-1e4, 1e5)
sides = st.sampled_from([0.0, 1e-6, 1e-3]) | st.floats(1e-6, 1.0) | st.floats(1.0, 1e5)


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """(1, 4), some without size."""
    left, top = draw(places), draw(places)
    return np.array([[left, top, left + draw(sides), top + draw(sides)]])


@holds(
    30, box=boxes(), size=st.tuples(st.integers(2, 600), st.integers(2, 600)), angle=st.floats(-720, 720), grid=grids
)
def test_an_affine_and_its_inverse_undo_each_other(box, size, angle, grid):
    affine = box_to_affine(box, size, 1.25, angle, grid)
    inverse = invert_affine(affine)
    assert np.isfinite(affine).all() and np.isfinite(inverse).all()
    corners = np.array([[[0, 0], [size[0], 0], [0, size[1]], [size[0], size[1]]]], float)
    np.testing.assert_allclose(transform_points(affine, transform_points(inverse, corners)), corners, atol=1e-3)
    middle = (np.array(size) - (grid == "unbiased")) / 2
    center = (box[:, :2] + box[:, 2:])[:, None] / 2
    np.testing.assert_allclose(transform_points(affine, center)[0, 0], middle, atol=1e-3)


@holds(30, box=boxes(), grid=grids, small=st.floats(0.05, 4), more=st.floats(1.01, 8), angle=st.floats(-180, 180))
def test_a_larger_box_scale_shows_more_and_smaller(box, grid, small, more, angle):
    near = box_to_affine(box, (48, 64), small, angle, grid)
    far = box_to_affine(box, (48, 64), small * more, angle, grid)
    np.testing.assert_allclose(near[:, :, :2], far[:, :, :2] * more, rtol=1e-9, atol=1e-300)


@holds(
    30,
    image=hnp.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 9), st.just(3))),
    shift=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_a_crop_of_whole_pixels_is_a_part_of_the_image(image, shift, size):
    (x, y), (width, height) = shift, size
    found = crop_images(image, [[[1, 0, -x], [0, 1, -y]]], size)[0]
    canvas = np.zeros((80, 80, 3), np.uint8)
    canvas[30 : 30 + image.shape[0], 30 : 30 + image.shape[1]] = image
    np.testing.assert_array_equal(found, canvas[30 + y : 30 + y + height, 30 + x : 30 + x + width])


def slow_crop(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel: the four pixels round each place, weighed by nearness; black outside."""
    inverse = invert_affine(affine[None])[0]
    height, width = image.shape[:2]
    crop = np.zeros((size[1], size[0], 3))
    for row in range(size[1]):
        for column in range(size[0]):
            x, y = inverse[:, :2] @ [column, row] + inverse[:, 2]
            left, top = int(np.floor(x)), int(np.floor(y))
            for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
                if 0 <= left + i < width and 0 <= top + j < height:
                    crop[row, column] += image[top + j, left + i] * (1 - abs(x - left - i)) * (1 - abs(y - top - j))
    return crop


@holds(
    20,
    seed=seeds,
    image_wh=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    sides=st.tuples(st.floats(2, 50), st.floats(2, 50)),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    angle=st.sampled_from([0.0, 30.0, -90.0]),
    grid=grids,
)
def test_a_crop_is_the_slow_one(seed, image_wh, corner, sides, size, angle, grid):
    image = np.random.default_rng(seed).integers(0, 256, (image_wh[1], image_wh[0], 3), np.uint8)
    affine = box_to_affine([[*corner, corner[0] + sides[0], corner[1] + sides[1]]], size, 1.25, angle, grid)
    apart = np.abs(crop_images(image, affine, size)[0] - slow_crop(image, affine[0], size))
    # OpenCV places pixels to within a 32nd of one, on each axis, which in noise is up to 255 / 32 grey levels
    assert apart.max() <= 2 * 255 / 32 + 1


@holds(20, box=boxes(), far=st.sampled_from([1e5, 1e7, -1e7, 1e12]), angle=st.floats(-180, 180), grid=grids)
def test_a_box_far_outside_is_black(box, far, angle, grid):
    image = np.full((20, 30, 3), 255, np.uint8)
    side = np.ptp(box.reshape(2, 2), axis=0).max()
    moved = box + (far + np.sign(far) * (4 * side + 2e5))
    assert not crop_images(image, box_to_affine(moved, (12, 16), 1.25, angle, grid), (12, 16)).any()


# ---- codecs

SIZE = (48, 64)
SHARP = {"none": 2.01, "quarter": 2.01, "dark": 0.1, "megvii": 4.01}


def codec_of(name: str) -> Any:
    codec = CODECS[name]
    return replace(codec, heatmap_joints=2) if isinstance(codec, CombinedCodec) else codec


codecs = st.sampled_from(sorted(CODECS))
heatmap_codecs = st.sampled_from([name for name, codec in CODECS.items() if isinstance(codec, HeatmapCodec)])


@holds(30, name=heatmap_codecs, joints=hnp.arrays(np.float64, (2, 3, 2), elements=st.floats(0, 1)))
def test_encoded_joints_are_decoded(name, joints):
    codec, size = codec_of(name), (96, 128)
    inside = joints * (np.array(size) - 1)
    targets, weights = codec.encode(inside, np.ones((2, 3)), size)
    assert (weights == 1).all()
    found, scores = codec.decode(targets / (255 if codec.refine == "megvii" else 1), size)
    # at the border a rounded joint may lie beyond the last pixel, and the blur of "megvii" draws peaks inwards
    assert np.abs(found - inside).max() <= 8.01
    well = ((inside > 30) & (inside < np.array(size) - 32)).all(axis=2)  # as far as the blur of DARK and a step see
    bound = SHARP[codec.refine] if codec.grid == "legacy" else 0.2  # UDP cuts its targets round the rounded place
    assert np.abs(found - inside)[well].max(initial=0) <= bound
    assert (scores > 0.4).all()


@st.composite
def maps(draw: st.DrawFn) -> np.ndarray:
    """(2, 4, 16, 12): flat, of one pixel, of two alike, or noise."""
    kind = draw(st.sampled_from(["flat", "pixel", "two", "noise", "below"]))
    rng = np.random.default_rng(draw(seeds))
    made = np.zeros((2, 4, 16, 12), np.float32)
    if kind == "flat":
        return made + np.float32(draw(st.floats(-100, 100, width=32)))
    if kind in ("noise", "below"):
        return rng.uniform(-1, 0 if kind == "below" else 1, made.shape).astype(np.float32)
    for _ in range(1 if kind == "pixel" else 2):
        rows, columns = rng.integers(0, 16, (2, 4)), rng.integers(0, 12, (2, 4))
        made[np.arange(2)[:, None], np.arange(4), rows, columns] = draw(st.sampled_from([1e-6, 0.5, 1, 200]))
    return made


def inside_crop(name: str) -> bool:
    """Whether the codec promises a joint within the crop: the steps of DARK are as long as the map makes them."""
    codec = CODECS[name]
    return not (isinstance(codec, HeatmapCodec) and codec.refine == "dark")


@holds(60, name=codecs, made=maps())
def test_decoded_joints_are_finite_and_inside(name, made):
    found, scores = codec_of(name).decode(made, SIZE)
    assert found.shape == (2, 4, 2) and np.isfinite(found).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    if inside_crop(name):
        assert (found >= 0).all() and (found <= np.array(SIZE)).all()
    order = np.random.default_rng(0).permutation(4)
    if not name.startswith("combined"):
        np.testing.assert_array_equal(codec_of(name).decode(made[:, order], SIZE)[0], found[:, order])


MIRROR = np.array([1, 0, 3, 2])


@holds(40, name=codecs, seed=seeds)
def test_averages_with_the_mirror_image(name, seed):
    codec = codec_of(name)
    one, other = np.random.default_rng(seed).uniform(0.05, 0.95, (2, 2, 4, 16, 12)).astype(np.float32)

    def mirrored(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values[:, MIRROR, :, ::-1])

    def decoded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dark = isinstance(codec, HeatmapCodec) and codec.refine == "dark"  # whose steps noise makes long
        return (replace(codec, refine="none") if dark else codec).decode(values, SIZE)

    # a crop whose mirror image says the same is as it was; and it does not matter which of two is called the mirror's
    for (xy, score), (again_xy, again_score) in (
        (decoded(codec.average_flip(one, mirrored(one), MIRROR, False)), decoded(one)),
        (
            decoded(mirrored(codec.average_flip(one, mirrored(other), MIRROR, False))),
            decoded(codec.average_flip(mirrored(other), one, MIRROR, False)),
        ),
    ):
        np.testing.assert_allclose(xy, again_xy, atol=5e-3)
        np.testing.assert_allclose(score, again_score, atol=1e-5)


@pytest.mark.skipif(not HAS_TORCH, reason="needs torch")
@holds(20, name=codecs, made=maps(), seed=seeds, shift=st.booleans())
def test_the_twin_on_tensors_says_the_same(name, made, seed, shift):
    import torch

    from posezoo.codecs import combined_torch as twin

    codec = codec_of(name)
    if not inside_crop(name):  # elsewhere a step is a quotient of two numbers that are nearly 0, and of no meaning
        made, _ = codec.encode(np.random.default_rng(seed).uniform(0, 47, (2, 4, 2)), np.ones((2, 4)), SIZE)
    if getattr(codec, "refine", None) == "megvii":  # peaks alike are not, once blurred: the last bit would decide
        made = made * np.linspace(1, 1.1, 16 * 12, dtype=np.float32).reshape(16, 12)
    tensor = torch.from_numpy(made)
    found, scores = codec.decode(made, SIZE)
    twin_found, twin_scores = twin.decode(codec, tensor, SIZE)
    np.testing.assert_allclose(twin_found.numpy(), found, atol=2e-2, rtol=1e-3)
    np.testing.assert_allclose(twin_scores.numpy(), scores, atol=1e-5)
    mean = codec.average_flip(made, made[::-1].copy(), MIRROR, shift)
    twin_mean = twin.average_flip(codec, tensor, tensor.flip(0), MIRROR, shift)
    np.testing.assert_allclose(twin_mean.numpy(), mean, atol=1e-3, rtol=1e-3)


# ---- suppression

SIGMAS = np.full(5, 0.1)


def crowd(count: int, seed: int, width: float = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Poses, their joints' scores, boxes, areas; no two score alike."""
    rng = np.random.default_rng(seed)
    poses = rng.uniform(0, width, (count, 1, 2)) + rng.normal(0, 10, (count, 5, 2))
    around = np.concatenate([poses.min(axis=1) - 5, poses.max(axis=1) + 5], axis=1).reshape(count, 4)
    return poses, rng.uniform(0.05, 1, (count, 5)), around, np.prod(around[:, 2:] - around[:, :2], axis=1)


def kept_by(which: str, poses: np.ndarray, scores: np.ndarray, around: np.ndarray, areas: np.ndarray) -> np.ndarray:
    if which == "parametric":
        return parametric_nms(poses, scores, around)[0]
    if which == "soft":
        return soft_oks_nms(poses, scores.mean(axis=1), areas, SIGMAS, 0.5, max_people=7)
    return oks_nms(poses, scores.mean(axis=1), areas, SIGMAS, 0.5)


ways = st.sampled_from(["greedy", "soft", "parametric"])


@holds(60, which=ways, count=st.integers(0, 15), seed=seeds)
def test_suppression_keeps_some_and_the_same_whatever_the_order(which, count, seed):
    people = crowd(count, seed)
    kept = kept_by(which, *people)
    assert kept.dtype == np.intp and len(set(kept.tolist())) == len(kept) and set(kept.tolist()) <= set(range(count))
    assert (len(kept) > 0) == (count > 0)
    again = kept_by(which, *(values[kept] for values in people))
    assert again.tolist() == list(range(len(kept)))
    order = np.random.default_rng(seed).permutation(count)
    np.testing.assert_array_equal(order[kept_by(which, *(values[order] for values in people))], kept)


@holds(20, count=st.integers(1, 10), seed=seeds)
def test_merged_poses_lie_among_those_they_are_made_of(count, seed):
    poses, scores, around, _ = crowd(count, seed)
    kept, merged, merged_scores = parametric_nms(poses, scores, around)
    assert (merged >= poses.min(axis=0) - 1e-9).all() and (merged <= poses.max(axis=0) + 1e-9).all()
    assert (np.linalg.norm(merged - poses[kept], axis=2) <= 15).all()
    assert ((merged_scores >= 0) & (merged_scores <= 1)).all()


@pytest.mark.parametrize("which", ["greedy", "soft", "parametric"])
@pytest.mark.parametrize("alike", [False, True])
def test_a_crowd_of_a_thousand(which, alike):
    people = crowd(1000, 0, 20_000)
    if alike:
        people = tuple(np.repeat(values[:10], 100, axis=0) for values in people)
    began = time.process_time()
    kept = kept_by(which, *people)
    assert time.process_time() - began < 10
    most = 7 if which == "soft" else 1000
    assert len(kept) == min(10, most) if alike else 0.9 * most < len(kept) <= most


# ---- formats


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    names = draw(st.lists(st.from_regex(r"\A[a-zé][a-z0-9_, ;\"-]{0,8}[a-z]\Z"), min_size=1, max_size=6, unique=True))
    return Skeleton("own", (*names, "nose", "left_wrist"), oks_sigmas=np.full(len(names) + 2, 0.1))


@holds(
    20,
    format=st.sampled_from([name for name in FORMATS if name != "parquet" or find_spec("pyarrow")]),
    skeleton=skeletons(),
    people=st.integers(0, 3),
    seed=seeds,
    tracked=st.booleans(),
)
def test_poses_of_any_skeleton_come_back_from_any_format(format, skeleton, people, seed, tracked):
    rng = np.random.default_rng(seed)
    joints = len(skeleton)
    corner = rng.uniform(-100, 4000, (people, 2))
    xy = rng.uniform(1, 5000, (people, joints, 2))
    scores = rng.uniform(0.01, 1, (people, joints))
    missing = rng.random((people, joints)) < 0.2
    xy[missing], scores[missing] = np.nan, 0
    around = np.hstack([corner, corner + rng.uniform(0, 900, (people, 2))])
    ids = rng.permutation(1 << 40 if people == 0 else 1000)[:people] if tracked and people else None
    poses = Poses(xy, scores, around, rng.uniform(0, 1, people), skeleton, ids)
    record = Result(poses, "a.jpg", None, None, (5000, 4000))
    chosen = FORMATS[format]
    with tempfile.TemporaryDirectory() as folder:
        try:
            (path,) = write(format, Path(folder) / "out", [record], skeleton)
        except PosezooError as err:
            assert "make two columns" in str(err) and format in ("csv", "parquet")
            return
        back = list(read_results(path, format, skeleton))
    if people or "images without people" in chosen.keeps:
        assert_same(*back, record, chosen)
    else:
        assert back == []


# ---- tracks


@holds(
    12,
    seed=seeds,
    gaps=st.lists(
        st.sampled_from([0.0, 0.04, 0.04, 0.04, 0.5, 1.9, 2.1, 100.0, 1e9, -3.0]) | st.none(), min_size=1, max_size=25
    ),
    reset_at=st.integers(0, 25),
)
def test_ids_are_one_persons_and_never_given_again(seed, gaps, reset_at):
    rng = np.random.default_rng(seed)
    tracker, now, passed = Tracker(COCO), 0.0, 0.0  # seconds, as the frames say and as they pass: never back
    centers = rng.uniform(0, 900, (6, 2))
    seen: dict[int, float] = {}
    over: set[int] = set()
    for frame, gap in enumerate(gaps):
        if frame == reset_at:
            tracker.reset()
            over |= set(seen)
        if gap is None and frame in (0, reset_at):  # without a time to begin with, none that follows tells how long ago
            gap = 0.04
        now += 0.04 if gap is None else gap
        before, passed = passed, passed + max(0.04 if gap is None else gap, 0.0)
        centers = np.where(rng.random((6, 1)) < 0.1, rng.uniform(0, 900, (6, 2)), centers + rng.normal(0, 5, (6, 2)))
        shown = centers[rng.permutation(6)[: rng.integers(0, 7)]]
        xy = shown[:, None] + rng.normal(0, 30, (len(shown), 17, 2))
        around = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1).reshape(-1, 4)
        poses = Poses(xy, rng.random((len(shown), 17)), around, rng.random(len(shown)), COCO)
        ids = tracker(poses, None, None if gap is None else now).track_ids.tolist()
        given_ids = [track_id for track_id in ids if track_id != NO_ID]
        assert len(set(given_ids)) == len(given_ids) and all(track_id > 0 for track_id in given_ids)
        assert over.isdisjoint(given_ids)
        for track_id in given_ids:
            if track_id in seen:
                assert before - seen[track_id] <= tracker.max_age_s + 1e-6  # of time in which there were frames
            else:
                assert track_id > max(seen, default=0)
        for track_id in given_ids:
            seen[track_id] = passed


# ---- headers of pictures

BEGINS = [
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8L",
    b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"BM\0\0\0\0\0\0\0\0", b"",
]  # fmt: skip


@holds(
    150,
    begin=st.sampled_from(BEGINS),
    rest=st.binary(max_size=60)
    | st.tuples(st.binary(min_size=1, max_size=6), st.integers(1, 50_000)).map(lambda t: t[0] * t[1]),
)
def test_any_bytes_are_a_header_or_an_error(begin, rest):
    data = begin + rest
    began = time.process_time()
    try:
        header = read_header(data)
    except PosezooError as err:
        assert "\n" not in str(err)
    else:
        assert header.format in PICTURES and header.format == sniff(data[:16])
        assert min(header.width, header.height) > 0 and header.orientation in range(1, 9)
    assert time.process_time() - began < 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", AT_LENGTH)
def test_at_length(name):
    AT_LENGTH[name]()
