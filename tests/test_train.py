"""Training: recipes, labels, augmentation, targets, and a run that can be broken off."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.data.augment import Augment, appearance, cut, mirror, view  # noqa: E402
from posezoo.data.coco_style import read_people, reconcile  # noqa: E402
from posezoo.data.mosaic import lay_out  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.evaluate.oks import box_ap, keypoint_ap  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train import run  # noqa: E402
from posezoo.train.detect import _cells, assign, overlaps  # noqa: E402
from posezoo.train.loop import make_task  # noqa: E402
from posezoo.train.optimise import learning_rate  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from tiny_runs import write_people, write_recipe  # noqa: E402

COCO = get_skeleton("coco17")


@pytest.fixture(scope="module")
def people_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.learning_rate=1", r"unknown key of \[optimiser\] 'learning_rate'.*lr"),
        ("augment.flips=1", r"unknown key of \[augment\] 'flips'; did you mean flip"),
        ("modle.arch='x'", "unknown key 'modle'; did you mean model"),
        ("data.validate.picture='x'", r"unknown key of \[data.validate\] 'picture'"),
        ("augment.flip=2", "augment.flip"),
        ("input.size_wh=[100, 64]", "multiples of 32"),
        ("input.std=[0, 1, 1]", "input.std.0: Input should be greater than 0"),
        ("optimiser.lr=inf", "optimiser.lr: Input should be a finite number"),
        ("mosaic.canvas=-32", "mosaic.canvas: Input should be greater than 0"),
        ("mosaic.rows=[0, 0]", r"mosaic: rows: one of them must be above 0, not \[0"),
        ("mosaic.scale=[2, 1]", "mosaic: scale: the smaller comes first"),
        ("run.seed=-1", "run.seed: Input should be greater than or equal to 0"),
        ("nonsense", "expected key=value"),
        ("name.x=1", "'name' is a value, not a table"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, override: str, message: str) -> None:
    path = write_recipe(tmp_path, tmp_path)
    with pytest.raises(PosezooError, match=message):
        load_recipe(path, [override])


def test_overrides_and_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, tmp_path)
    assert load_recipe(path, ["schedule.epochs=7", "name=other"]).schedule.epochs == 7
    run(path, ["augment.colour=0.25"], dry_run=True)
    assert json.loads(capsys.readouterr().out)["recipe"]["augment"]["colour"] == 0.25
    assert not (tmp_path / "run").exists()


def test_reconcile_believes_agreement_then_a_sure_teacher() -> None:
    human_xy = np.array([[10, 10], [50, 50], [70, 70], [90, 90], [0, 0], [0, 0]], np.float32)
    human = np.array([1, 1, 1, 1, 0, 0], np.float32)
    teacher_xy = np.array([[12, 10], [90, 10], [10, 90], [91, 91], [30, 30], [40, 40]], np.float32)
    teacher = np.array([0.5, 0.9, 0.3, 0.1, 0.6, 0.1], np.float32)
    xy, weights = reconcile(human_xy, human, teacher_xy, teacher, area=10_000.0, agreement=0.7)
    np.testing.assert_allclose(weights, [1, 0.9, 0, 0.7, 0.6, 0], atol=1e-6)
    np.testing.assert_allclose(xy[[0, 1, 3, 4]], [[11, 10], [90, 10], [90, 90], [30, 30]], atol=1e-5)
    assert (xy[[2, 5]] == 0).all()


def test_view_and_mirror_depend_on_the_generator_alone() -> None:
    rng = np.random.default_rng(1)
    xy, weights = rng.uniform(0, 100, (17, 2)).astype(np.float32), np.ones(17, np.float32)
    box = np.array([0, 0, 100, 200], np.float32)
    settings = Augment(shift=0.1, half_body=0.5)
    views = [view(np.random.default_rng(n), settings, box, xy, weights, COCO) for n in range(200)]
    again = view(np.random.default_rng(3), settings, box, xy, weights, COCO)
    np.testing.assert_array_equal(again[0], views[3][0])
    assert again[1:] == views[3][1:]
    assert 0.3 < np.mean([flip for *_, flip in views]) < 0.7
    assert settings.rotation_deg < max(abs(turn) for _, turn, _ in views) <= 2 * settings.rotation_deg
    crop = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    once = mirror(crop, xy, weights, COCO)
    np.testing.assert_allclose(once[1][COCO.index("left_wrist"), 0], 47 - xy[COCO.index("right_wrist"), 0])
    twice = mirror(*once, COCO)
    np.testing.assert_array_equal(twice[0], crop)
    np.testing.assert_allclose(twice[1], xy, atol=1e-5)


def test_appearance_keeps_the_shape() -> None:
    settings = Augment(colour=1, blur=1, grey=0.5, occlusion=1)
    crop = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    for seed in range(30):
        out = appearance(np.random.default_rng(seed), settings, crop)
        assert out.shape == crop.shape and out.dtype == np.uint8
    plain = Augment()
    np.testing.assert_array_equal(appearance(np.random.default_rng(0), plain, crop), crop)


def test_mosaic_boxes_stay_on_their_people() -> None:
    photograph = np.zeros((80, 120, 3), np.uint8)
    photograph[20:60, 30:50] = 255  # one "person"
    boxes = np.array([[30, 20, 50, 60]], np.float32)
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image, people = lay_out(rng, [(photograph, boxes)] * 4, 160, (0.5, 1.5), flip=0.5)
        assert image.shape == (160, 160, 3)
        for x1, y1, x2, y2 in people:
            inside = image[round(float(y1)) + 2 : round(float(y2)) - 2, round(float(x1)) + 2 : round(float(x2)) - 2]
            assert inside.size == 0 or inside.mean() > 230
            found += inside.size > 0
    assert found > 60
    image, people = lay_out(np.random.default_rng(0), [(photograph, np.zeros((0, 4), np.float32))], 64, (1, 1), 0)
    assert people.shape == (0, 4)


def test_assign_gives_every_person_cells_and_the_smaller_one_the_contested() -> None:
    centres, strides, sizes = _cells(320, 320, torch.device("cpu"))
    assert len(centres) == 40 * 40 + 20 * 20 + 10 * 10
    boxes = torch.tensor([[0.0, 0, 300, 300], [140, 140, 160, 160], [10, 10, 12, 12], [100, 40, 160, 140]])
    owner = assign(centres, strides, sizes, boxes)
    assert set(owner.tolist()) == {-1, 0, 1, 2, 3}
    nearest = ((centres - 150.0).abs().amax(1) + 1e3 * (strides != 8)).argmin()
    assert owner[nearest] == 1
    assert (strides[owner == 0] == 32).all() and (strides[owner == 1] == 8).all()
    assert (assign(centres, strides, sizes, boxes[:0]) == -1).all()


def test_overlaps_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]])
    b = torch.tensor([[1.0, 1, 3, 3], [2, 0, 3, 1]])
    giou, iou = overlaps(a, b)
    torch.testing.assert_close(iou, torch.tensor([1 / 7, 0.0]))
    torch.testing.assert_close(giou, torch.tensor([1 / 7 - 2 / 9, -1 / 3]))


@pytest.mark.parametrize("kind", ["cosine", "step"])
def test_learning_rate_warms_up_and_falls(tmp_path: Path, kind: str) -> None:
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), [f"schedule.kind={kind}", "schedule.warmup_steps=10"])
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 0.02


def test_steps_of_the_rate_are_shares_of_the_whole_run(tmp_path: Path) -> None:
    given = ["schedule.kind=step", "schedule.warmup_steps=30", 'schedule.milestones=["170/210", "200/210"]']
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), given)
    rates = [learning_rate(recipe, step, 2100) for step in (1699, 1700, 1999, 2000)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("epochs", "falls"), [(140, (90, 120)), (210, (170, 200)), (100, (60, 90)), (20, (8, 15))])
@pytest.mark.parametrize("steps", [585, 1170, 87, 43])
def test_the_rate_falls_with_the_first_step_of_an_epoch(
    tmp_path: Path, epochs: int, falls: tuple[int, int], steps: int
) -> None:
    shares = [f"{epoch}/{epochs}" for epoch in falls]
    given = ["schedule.kind=step", "schedule.warmup_steps=0", f"schedule.milestones={shares}"]
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), given)
    for number, epoch in enumerate(falls):
        rates = [learning_rate(recipe, epoch * steps + n, epochs * steps) for n in (-1, 0)]
        assert rates == pytest.approx([0.1**number, 0.1 ** (number + 1)])


def test_a_detector_run_writes_weights_that_load(tmp_path: Path, people_folder: Path) -> None:
    folder = run(write_recipe(tmp_path, people_folder, "detect"), ["schedule.epochs=1", "mosaic.rows=[1, 1]"])
    from posezoo.models.build import build
    from posezoo.zoo.weights import load_weights

    model = build("person_detector_1.0", 0).eval()
    load_weights(model, folder / "best.safetensors")
    with torch.no_grad():
        scores, boxes = model(torch.zeros(2, 3, 64, 96))
    assert scores.shape == (2, 8 * 12 + 4 * 6 + 2 * 3) and boxes.shape == (*scores.shape, 4)
    assert 0 <= float(scores.min()) and float(scores.max()) <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_the_detectors_loss_is_the_same_in_half_precision(
    tmp_path: Path, people_folder: Path, dtype: torch.dtype
) -> None:
    from posezoo.models.build import build

    task = make_task(load_recipe(write_recipe(tmp_path, people_folder, "detect")))
    samples = [task.dataset[0, row] for row in (0, 1)]
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    model = build("person_detector_1.0", 0)
    losses = []
    for half in (False, True):
        with torch.autocast("cpu", dtype, enabled=half):
            loss, _ = task.loss(model, batch)
        loss.backward()
        losses.append(loss)
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)


def test_annotations_of_another_kind(tmp_path: Path, people_folder: Path) -> None:
    with pytest.raises(PosezooError, match="has 17 keypoints, mpii16 has 16"):
        read_people(people_folder / "people.json", people_folder, get_skeleton("mpii16"))
    for text, message in (("[]", "not a COCO keypoint file"), ("{", "not valid JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(PosezooError, match=message):
            read_people(tmp_path / "x.json", tmp_path, COCO)
    with pytest.raises(PosezooError, match="cannot read"):
        read_people(tmp_path / "none.json", tmp_path, COCO)


@pytest.mark.parametrize("sigmas", ["own", "other"])
def test_average_precision_is_that_of_pycocotools(people_folder: Path, sigmas: str) -> None:
    pycoco, pyeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    import dataclasses

    rng = np.random.default_rng(7)
    skeleton = COCO if sigmas == "own" else dataclasses.replace(COCO, oks_sigmas=rng.uniform(0.02, 0.2, 17))
    truth = json.loads((people_folder / "people.json").read_text())
    results = []
    for n in range(30):
        entry = truth["annotations"][n % 6]
        keypoints = np.reshape(entry["keypoints"], (17, 3)) + np.column_stack(
            [rng.normal(0, 1 + n % 7, (17, 2)), np.zeros(17)]
        )
        results.append(
            {"image_id": entry["image_id"], "category_id": 1, "keypoints": keypoints.reshape(-1).tolist(),
             "score": float(rng.random()), "bbox": (np.array(entry["bbox"]) + rng.normal(0, 5, 4)).tolist()}
        )  # fmt: skip
    poses = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    boxes = [{k: v for k, v in r.items() if k != "keypoints"} for r in results]
    ours = list(keypoint_ap(people_folder / "people.json", poses, skeleton).values())
    for kind, found, mine in (("keypoints", poses, ours), ("bbox", boxes, list(box_ap(truth, boxes).values()))):
        annotated = pycoco.COCO()
        annotated.dataset = {"info": {}, **truth}
        annotated.createIndex()
        judge = pyeval.COCOeval(annotated, annotated.loadRes(found), kind)
        if kind == "keypoints":
            judge.params.kpt_oks_sigmas = skeleton.oks_sigmas
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        np.testing.assert_array_equal(np.array(mine), judge.stats)
    assert 0 < ours[0] < 1
    assert set(keypoint_ap(people_folder / "people.json", [], skeleton).values()) == {0.0}


def test_a_missing_picture_is_one_line_even_from_a_worker(tmp_path: Path, people_folder: Path) -> None:
    recipe = write_recipe(tmp_path, people_folder)
    with pytest.raises(PosezooError) as caught:
        run(recipe, [f"data.train.images='{(tmp_path / 'nowhere').as_posix()}'", "run.workers=1"])
    assert "nowhere" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert "Traceback" not in str(caught.value)


def test_a_photograph_cut_through_the_person_keeps_labels_in_place(people_folder: Path) -> None:
    people = read_people(people_folder / "people.json", people_folder, COCO)
    image = cv2.imread(str(people.images[0]))
    labels = people.boxes_xyxy[0], people.keypoints_xy[0], people.weights[0]
    shortened = 0
    for seed in range(60):
        out, box, xy, weights = cut(np.random.default_rng(seed), Augment(cut=1.0), image, *labels)
        height, width = out.shape[:2]
        shortened += out.shape != image.shape
        assert 0 <= box[0] < box[2] <= width + 1 and 0 <= box[1] < box[3] <= height + 1
        for (x, y), (u, v), weight in zip(xy, people.keypoints_xy[0], weights, strict=True):
            if weight:  # the same pixel, wherever the photograph now begins
                assert 0 <= x < width and 0 <= y < height
                np.testing.assert_array_equal(out[int(y), int(x)], image[int(v), int(u)])
    assert shortened > 30
    assert cut(np.random.default_rng(0), Augment(), image, *labels)[0] is image


def test_sources_count_as_often_as_the_recipe_says(tmp_path: Path, people_folder: Path) -> None:
    from posezoo.train.detect import DetectTask
    from posezoo.train.pose import PoseTask

    content = json.loads((people_folder / "people.json").read_text())
    for picture in content["images"][:2]:
        picture["source"] = "everyday"
    (tmp_path / "people.json").write_text(json.dumps(content))
    pictures = f"data.train.images='{people_folder.as_posix()}'"
    judged = f"data.validate.images='{people_folder.as_posix()}'"
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), [pictures, judged, "data.repeat.everyday=3"])
    assert len(DetectTask(recipe).dataset) == 3 * 2 + 4
    assert PoseTask(recipe).order_weights.tolist() == [3, 3, 1, 1, 1, 1]
    wrong = load_recipe(write_recipe(tmp_path, tmp_path), [pictures, judged, "data.repeat.evryday=3"])
    with pytest.raises(PosezooError, match="unknown source of pictures 'evryday'; did you mean everyday"):
        PoseTask(wrong)
