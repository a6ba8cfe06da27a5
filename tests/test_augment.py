"""Augmentation: HRNet's own numbers, joints that stay on the pixels they mark, and boxes as a detector finds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posezoo.codecs import CODECS, HeatmapCodec
from posezoo.crop import box_to_center_scale
from posezoo.data.augment import Augment, appearance, choose, cut, half_body, mirror, sample, view
from posezoo.data.mixed import read_sources
from posezoo.errors import PosezooError
from posezoo.media.images import read_image
from posezoo.skeletons import get_skeleton
from posezoo.train.preview import describe, draw_tiles, preview_dataset
from posezoo.train.recipe import DataPart, InputPart, Source

COCO = get_skeleton("coco17")
NOTHING = {"flip": 0, "scale": 0, "rotation": 0, "half_body": 0}


SIZE_WH = (96, 128)


def person(rng: np.random.Generator, box: tuple[float, ...] = (60, 40, 140, 200)) -> tuple[np.ndarray, ...]:
    """Box, joints well within it, weights."""
    low, high = np.array(box[:2]), np.array(box[2:])
    xy = low + rng.uniform(0.1, 0.9, (17, 2)) * (high - low)
    return np.array(box, np.float32), xy.astype(np.float32), np.ones(17, np.float32)


def hrnet(parity: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    fixture = json.loads((parity / "ops" / "hrnet_augment.json").read_text())
    joints, visible = (np.reshape(fixture[key]["data"], fixture[key]["shape"]) for key in ("joints", "vis"))
    return fixture, joints[:, :2].astype(np.float32), visible[:, 0].astype(np.float32)


def test_half_body_is_hrnets(parity: Path) -> None:
    fixture, xy, weights = hrnet(parity)
    for case in fixture["half_body"]:
        wanted_centre, wanted_scale = (np.array(value["data"]) for value in case["result"])
        centre, extent = half_body(np.random.RandomState(case["np_seed"]), xy, weights, COCO)
        np.testing.assert_allclose(centre, wanted_centre, rtol=1e-6)
        region = box_to_center_scale(np.concatenate([centre - extent / 2, centre + extent / 2]), (192, 256), 1.5)[1]
        np.testing.assert_allclose(region[0] / 200, wanted_scale, rtol=1e-6)


@pytest.mark.parametrize("box_scale", [1.0, 1.25, 1.5])
def test_half_body_has_hrnets_margin_whatever_that_of_the_crop(parity: Path, box_scale: float) -> None:
    fixture, xy, weights = hrnet(parity)
    settings = Augment(**{**NOTHING, "half_body": 1})
    boxes = [
        view(np.random.default_rng(seed), settings, np.zeros(4, np.float32), xy, weights, COCO, box_scale)[0]
        for seed in range(40)
    ]
    centres, regions = box_to_center_scale(boxes, (192, 256), box_scale)
    found = np.hstack([centres, regions / 200])
    wanted = np.array([np.concatenate([v["data"] for v in case["result"]]) for case in fixture["half_body"]])
    distance = np.abs(found[:, None] - wanted).max(-1)
    assert (distance.min(1) < 1e-4).all() and len(np.unique(distance.argmin(1))) == 2  # each half is among them
    lower = np.abs(found - wanted[0]).max(1) < 1e-4
    assert 0.2 < lower.mean() < 0.45  # 0.31 of them


def test_mirror_is_hrnets(parity: Path) -> None:
    fixture, xy, weights = hrnet(parity)
    _, flipped, shown = mirror(np.zeros((1, 320, 3), np.uint8), xy, weights, COCO)
    np.testing.assert_array_equal(shown, np.reshape(fixture["flip_vis"]["data"], (17, 3))[:, 0])
    wanted = np.reshape(fixture["flip_joints"]["data"], (17, 3))[:, :2]
    np.testing.assert_allclose(flipped[shown > 0], wanted[shown > 0], rtol=1e-5)


def test_half_body_of_whom_it_has_none() -> None:
    rng = np.random.default_rng(0)
    _, xy, weights = person(rng)
    few = weights * 0
    few[:2] = 1
    assert half_body(rng, xy, few * 0, COCO) is None
    assert half_body(rng, xy, few, COCO) is not None  # two joints of the upper half, none of the lower
    few[1] = 0
    assert half_body(rng, xy, few, COCO) is None
    assert half_body(rng, xy * 0 + 5, weights, COCO) is None  # all in one place
    hand = get_skeleton("hand21")
    assert half_body(rng, rng.uniform(0, 9, (21, 2)).astype(np.float32), np.ones(21, np.float32), hand) is None
    exactly = np.repeat(np.float32([1, 0]), [8, 9])  # HRNet: more than eight
    settings = Augment(**{**NOTHING, "half_body": 1})
    assert choose(rng, settings, np.array([0, 0, 9, 9], np.float32), xy, exactly, COCO).of == "label"


def test_scale_and_turn_are_hrnets_normal_numbers_cut_at_one_and_two_deviations() -> None:
    box, xy, weights = person(np.random.default_rng(0))
    settings = Augment(scale=0.35, rotation=1, rotation_deg=45, half_body=0, flip=0.5)
    views = [view(np.random.default_rng(n), settings, box, xy, weights, COCO) for n in range(4000)]
    grown = np.array([v[0][2] - v[0][0] for v in views]) / 80 - 1
    turns = np.array([v[1] for v in views])
    assert np.abs(grown).max() == pytest.approx(0.35, abs=1e-5) and np.abs(turns).max() == pytest.approx(90)
    # of a normal number 0.3173 is beyond one deviation, 0.0455 beyond two
    assert np.mean(np.abs(grown) > 0.3499) == pytest.approx(0.3173, abs=0.03)
    assert np.mean(np.abs(turns) > 89.99) == pytest.approx(0.0455, abs=0.012)
    assert np.mean(np.abs(turns) < 45) == pytest.approx(0.6827, abs=0.03)
    assert np.mean([v[2] for v in views]) == pytest.approx(0.5, abs=0.03)


def centre_of(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]).astype(np.float64) / 2


def test_a_sure_shift_is_of_the_box_as_it_is_shown() -> None:
    box, xy, weights = person(np.random.default_rng(0))
    settings = Augment(**{**NOTHING, "scale": 0.3, "shift": 0.1})
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rng.random()  # of half a body
        side = np.array([80, 160]) * (1 + 0.3 * np.clip(rng.standard_normal(), -1, 1))
        wanted = np.array([100, 120]) + 0.1 * rng.uniform(-1, 1, 2) * side
        rng.random()  # of a turn
        found = np.random.default_rng(seed)
        shown = choose(found, settings, box, xy, weights, COCO)
        np.testing.assert_allclose(centre_of(shown.box_xyxy), wanted, rtol=1e-6)
        assert shown.flip == (rng.random() < 0) and found.random() == rng.random()  # no number more was drawn


def test_shift_is_mmposes() -> None:
    """Of three labels in ten, uniform in a fifth of their own width and height, before anything else is done to them.

    That is `center += 0.4 * (np.random.rand(2) - 0.5) * [w, h]`, with a probability of 0.3.
    """
    box, xy, weights = person(np.random.default_rng(0))
    settings = Augment(half_body=0.5, scale=0.5, shift=0.2, shift_probability=0.3, shift_of="box")
    still = settings.model_copy(update={"shift": 0.0})
    moved = []
    for seed in range(4000):
        shown = choose(np.random.default_rng(seed), settings, box, xy, weights, COCO)
        if shown.of == "label":
            moved.append((centre_of(shown.box_xyxy) - [100, 120]) / [80, 160])
        else:  # what is around half a body takes the place of the label
            at_rest = choose(np.random.default_rng(seed), still, box, xy, weights, COCO)
            np.testing.assert_array_equal(shown.box_xyxy, at_rest.box_xyxy)
    away = np.array([one for one in moved if np.abs(one).max() > 1e-6])
    assert len(away) / len(moved) == pytest.approx(0.3, abs=0.03)
    assert np.abs(away).max() == pytest.approx(0.2, abs=0.002)
    assert np.abs(away).max() < 0.2001 and np.abs(away.mean(0)).max() < 0.02
    assert away.std(0) == pytest.approx(0.4 / 12**0.5, abs=0.005)  # of a uniform number


def test_a_shift_that_never_comes() -> None:
    box, xy, weights = person(np.random.default_rng(0))
    for of in ("view", "box"):
        settings = Augment(**NOTHING, shift=0.2, shift_probability=0, shift_of=of)
        for seed in range(5):
            shown = choose(np.random.default_rng(seed), settings, box, xy, weights, COCO)
            np.testing.assert_array_equal(shown.box_xyxy, box)


@pytest.mark.parametrize("name", ["coco17", "halpe136", "wholebody133", "hand21", "trb40"])
def test_mirrored_twice_is_as_before(name: str) -> None:
    skeleton, rng = get_skeleton(name), np.random.default_rng(0)
    crop = rng.integers(0, 256, (16, 12, 3), dtype=np.uint8)
    labels = rng.uniform(0, 12, (len(skeleton), 2)).astype(np.float32), rng.random(len(skeleton)).astype(np.float32)
    once = mirror(crop, *labels, skeleton)
    twice = mirror(*once, skeleton)
    for found, wanted in zip(twice, (crop, *labels), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    for left, right in skeleton.mirror:
        assert once[1][skeleton.index(left), 0] == pytest.approx(11 - labels[0][skeleton.index(right), 0], abs=1e-5)


EACH = {
    "none": {},
    "flip": {"flip": 1},
    "scale": {"scale": 0.35},
    "rotation": {"rotation": 1},
    "shift": {"shift": 0.2},
    "some shifts": {"shift": 0.2, "shift_probability": 0.5, "shift_of": "box", "scale": 0.35},
    "half body": {"half_body": 1},
    "proposals": {"proposals": 1},
    "cut": {"cut": 1},
    "appearance": {"colour": 0.5, "grey": 0.5},
    "all": {"flip": 0.5, "scale": 0.35, "rotation": 0.6, "shift": 0.1, "half_body": 0.5, "proposals": 0.5, "cut": 0.5},
}


HAPPENS = {
    "flip": ["flip"],
    "rotation": ["turn"],
    "half body": ["half body"],
    "proposals": ["proposal"],
    "cut": ["cut"],
    "all": ["flip", "turn", "half body", "proposal", "cut"],
}


@pytest.mark.parametrize("grid", ["legacy", "unbiased"])
@pytest.mark.parametrize("what", EACH)
def test_joints_stay_on_the_pixels_they_mark(what: str, grid: str) -> None:
    """A bright spot is painted where one joint is, and looked for in the crop where the joint is then said to be."""
    settings, found, said = Augment(**{**NOTHING, **EACH[what]}), 0, ""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        box, xy, weights = person(rng)
        joint = int(rng.integers(17))
        rows, columns = np.mgrid[:240, :200]
        near = np.exp(-((columns - xy[joint, 0]) ** 2 + (rows - xy[joint, 1]) ** 2) / 18)
        image = np.repeat((250 * near)[..., None], 3, axis=2).astype(np.uint8)
        made = sample(rng, settings, image, box, xy, weights, COCO, SIZE_WH, grid=grid)
        assert made.crop.shape == (128, 96, 3) and made.crop.dtype == np.uint8
        assert made.crop_xy.dtype == made.weights.dtype == np.float32
        said += describe(made)
        at = COCO.mirror_index[joint] if made.view.flip else joint
        x, y = made.crop_xy[at]
        if made.weights[at] == 0 or not (8 < x < 88 and 8 < y < 120):
            continue
        light = made.crop.mean(2)
        light = np.where(light > 0.6 * light.max(), light - light.min(), 0)  # appearance may lift the dark
        mean = [float((light * axis).sum() / light.sum()) for axis in np.mgrid[:128, :96][::-1]]
        np.testing.assert_allclose(mean, [x, y], atol=1.0)
        found += 1
    assert found >= 10
    assert all(word in said for word in HAPPENS.get(what, ()))


def test_a_sample_depends_on_its_generator_alone() -> None:
    rng = np.random.default_rng(0)
    box, xy, weights = person(rng)
    image = rng.integers(0, 256, (240, 200, 3), dtype=np.uint8)
    before = image.copy(), box.copy(), xy.copy(), weights.copy()
    settings = Augment(
        half_body=0.5, proposals=0.5, cut=0.5, shift=0.1, colour=0.5, blur=0.5, grey=0.3, occlusion=0.5
    )  # fmt: skip
    made = [sample(np.random.default_rng(s), settings, image, box, xy, weights, COCO, SIZE_WH) for s in (0, 1, 2, 3, 1)]
    np.testing.assert_array_equal(made[1].crop, made[4].crop)
    np.testing.assert_array_equal(made[1].crop_xy, made[4].crop_xy)
    assert describe(made[1]) == describe(made[4])
    assert not np.array_equal(made[0].crop, made[1].crop)
    for now, then in zip((image, box, xy, weights), before, strict=True):
        np.testing.assert_array_equal(now, then)  # nobody wrote into the labels


def test_coarse_dropout_hides_rectangles_and_no_more() -> None:
    crop = np.full((64, 48, 3), 7, np.uint8)
    hidden = [np.mean(appearance(np.random.default_rng(s), Augment(occlusion=1), crop) != 7) for s in range(60)]
    assert 0 < np.mean(hidden) < 0.3 and max(hidden) < 0.5
    np.testing.assert_array_equal(appearance(np.random.default_rng(0), Augment(occlusion=0), crop), crop)


EVERYTHING = Augment(
    half_body=1, half_body_joints=2, proposals=1, cut=1, shift=0.2, colour=1, blur=1, grey=0.5, occlusion=1
)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (9, 9)])
@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 1, 1), (5, 5, 4, 4), (-50, -50, -40, -30), (0, 0, 1e4, 1e4)])
def test_tiny_pictures_and_strange_boxes(size: tuple[int, int], box: tuple[float, ...]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        xy = rng.uniform(0, 1, (17, 2)).astype(np.float32)
        for weights in (np.ones(17, np.float32), np.zeros(17, np.float32)):
            made = sample(rng, EVERYTHING, image, np.array(box, np.float32), xy, weights, COCO, SIZE_WH)
            assert made.crop.shape == (128, 96, 3) and np.isfinite(made.crop_xy).all()
            assert (made.weights > 0).sum() <= (weights > 0).sum()
    small = appearance(np.random.default_rng(0), EVERYTHING, image)
    assert small.shape == image.shape


def test_cut_keeps_the_labels_of_what_is_left() -> None:
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        box, xy, weights = person(rng)
        image = np.zeros((240, 200, 3), np.uint8)
        shown, new_box, new_xy, new_weights = cut(rng, Augment(cut=1), image, box, xy, weights)
        kept = new_weights > 0
        assert kept.sum() >= 3
        seen.add((shown.shape[0] < 240, shown.shape[1] < 200))
        assert (new_xy[kept] >= 0).all() and (new_xy[kept] < np.array(shown.shape[1::-1])).all()
        assert (new_box[2:] <= np.array(shown.shape[1::-1])).all() and (new_box[2:] > new_box[:2]).all()
    assert {(True, False), (False, True)} <= seen


# ---- the sheet


def source_folder(folder: Path) -> DataPart:
    """Two pictures of a person each, a disc of the side's colour on the right wrist."""
    entries, images = [], []
    for n in range(2):
        box, xy, _ = person(np.random.default_rng(n))
        picture = np.full((240, 200, 3), 128, np.uint8)
        cv2.circle(picture, [int(v) for v in xy[COCO.index("right_wrist")]], 5, (0, 0, 255), -1)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
        flat = np.column_stack([xy, np.full(17, 2)]).reshape(-1).tolist()
        images.append({"id": n, "file_name": f"{n}.png", "width": 200, "height": 240})
        bbox = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
        entries.append({"id": 10 + n, "image_id": n, "category_id": 1, "bbox": bbox, "area": 5000, "keypoints": flat})
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "person"}]}
    (folder / "people.json").write_text(json.dumps(content))
    source = Source(annotations=Path("people.json"), images=Path("."))
    return DataPart(root=folder, train=(source,))


@pytest.mark.parametrize("codec", ["heatmap-quarter", "heatmap-dark-udp", "integral-sigmoid"])
def test_a_sheet_shows_targets_where_the_joints_are(tmp_path: Path, codec: str) -> None:
    data = source_folder(tmp_path)
    mixed = read_sources(data, data.train)
    wrist = COCO.index("right_wrist")
    alone = np.zeros_like(mixed.people.weights)
    alone[:, wrist] = 1
    mixed = replace(mixed, people=replace(mixed.people, weights=alone))
    given = InputPart(size_wh=(96, 128))
    tiles = draw_tiles(mixed, Augment(**NOTHING), given, CODECS[codec], people=3, seed=0)
    assert len(tiles) == 3 and tiles[0].shape == (32 + 256, 2 * 192, 3)
    order = np.random.default_rng(0).choice(2, 2, replace=False, p=[0.5, 0.5])
    for tile, row in zip(tiles, [*order, order[0]], strict=True):
        people = mixed.people
        made = sample(
            np.random.default_rng((0, 0, row)), Augment(**NOTHING), read_image(people.images[row]),
            people.boxes_xyxy[row], people.keypoints_xy[row], people.weights[row], COCO, (96, 128), 1.25,
            CODECS[codec].grid,
        )  # fmt: skip
        right = tile[32:, 192:].astype(np.float64)
        heat = right[..., 0] - right[..., 2]  # the right is orange, the ground grey
        heat = np.where(heat > 0.5 * heat.max(), heat, 0)
        mean = np.array([(heat * axis).sum() / heat.sum() for axis in np.mgrid[:256, :192][::-1]])
        np.testing.assert_allclose(mean, 2 * made.crop_xy[wrist] + 0.5, atol=4.5)  # a heatmap pixel is 8 of these


def test_a_flipped_sample_shows_the_right_in_its_colour(tmp_path: Path) -> None:
    data = source_folder(tmp_path)
    mixed = read_sources(data, data.train)
    settings = Augment(**{**NOTHING, "flip": 1})
    people = mixed.people
    made = sample(
        np.random.default_rng(0), settings, read_image(people.images[0]), people.boxes_xyxy[0], people.keypoints_xy[0],
        people.weights[0], COCO, (192, 256),
    )  # fmt: skip
    # the disc was on the right wrist, and in the mirror it is on the left one
    x, y = made.crop_xy[COCO.index("left_wrist")].round().astype(int)
    assert made.crop[y, x].tolist() == [255, 0, 0]
    assert describe(made) == "flip, 17 joints"


def test_the_sheet_of_a_dataset(shared: Path, tmp_path: Path) -> None:
    out = preview_dataset("coco", shared / "samples", tmp_path / "sheet.png", people=2)
    sheet = read_image(out)
    assert sheet.shape == (2 * (32 + 256 + 6) + 6, 2 * 192 + 12, 3) and sheet.std() > 20
    with pytest.raises(PosezooError, match="has no files of aic"):
        preview_dataset("aic", tmp_path, tmp_path / "sheet.png")


def test_the_sheet_of_a_recipe_is_what_training_sees(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from posezoo.train.pose import PoseTask
    from posezoo.train.preview import preview
    from posezoo.train.recipe import ModelPart, Recipe

    data = source_folder(tmp_path)
    recipe = Recipe(
        name="tiny", model=ModelPart(arch="simple_pose_resnet18_v1b"), data=data, input=InputPart(size_wh=(192, 256)),
        augment=Augment(proposals=0.5, cut=0.5, colour=0.5, occlusion=0.5),
    )  # fmt: skip
    mixed = read_sources(data, data.train)
    tiles = draw_tiles(mixed, recipe.augment, recipe.input, HeatmapCodec(), people=1, seed=recipe.run.seed)
    row = int(np.random.default_rng(recipe.run.seed).choice(2, 1, replace=False, p=[0.5, 0.5])[0])
    crop = PoseTask(recipe).dataset[0, row]["crop"].numpy().transpose(1, 2, 0)
    # the skeleton covers some of the crop; the rest is the same to the bit
    assert (tiles[0][32:, :192] == crop).all(-1).mean() > 0.7
    assert (
        read_image(preview(recipe, tmp_path / "a.png", people=5)).shape
        == read_image(preview(recipe, tmp_path / "b.png", people=5, seed=0)).shape
    )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_sheet_of_a_detector(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from posezoo.train.preview import preview
    from posezoo.train.recipe import ModelPart, MosaicPart, Recipe

    recipe = Recipe(
        name="tiny", task="detect", model=ModelPart(arch="person_detector_1.0"), data=source_folder(tmp_path),
        mosaic=MosaicPart(canvas=96),
    )  # fmt: skip
    sheet = read_image(preview(recipe, tmp_path / "sheet.png", people=4))
    assert (sheet == (255, 197, 49)).all(-1).any()
