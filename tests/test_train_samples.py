"""Training on samples: what is drawn, validation, and every dataset of the zoos learnt by heart."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from posezoo.data.catalog import get_dataset  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.evaluate.protocol import get_protocol  # noqa: E402
from posezoo.evaluate.run import run_evaluation  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from train_fixtures import CPU, Given, _one_thread, batch_of, fit, people, recipe_of  # noqa: E402


class Colours(nn.Module):
    """A network whose even joints are where its input is red, whose odd joints are where it is blue."""

    def __init__(self, joints: int, stride: int = 4):
        super().__init__()
        self.joints, self.stride = joints, stride

    def forward(self, images: Tensor) -> Tensor:
        light = images - images[:, 1:2]
        maps = nn.functional.avg_pool2d(light.clamp(min=0)[:, [0, 2]], self.stride)
        near = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
        spread = (near[:, None] * near)[None, None]
        maps = nn.functional.conv2d(maps.flatten(0, 1)[:, None], spread, padding=3).view_as(maps)
        maps = maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        return maps[:, torch.arange(self.joints) % 2]


# ---- samples


def test_samples_follow_from_seed_epoch_and_row(people: Callable[[str], Path]) -> None:
    folder = people("coco17")
    source = {"annotations": "people.json", "images": "."}
    recipe = recipe_of(folder, train=[source, {**source, "share": 2.5}], data={"validate": source})
    recipe = recipe.model_copy(update={"augment": type(recipe.augment)(colour=1, occlusion=1)})
    task = PoseTask(recipe)
    assert len(task.dataset) == 12 and task.notes
    np.testing.assert_allclose(task.order_weights, [1] * 6 + [2.5] * 6)
    batch = batch_of(task)
    assert batch["source"].dtype == torch.int64 and batch["source"].tolist() == [0] * 6 + [1] * 6
    assert batch["crop"].dtype == torch.uint8 and batch["crop"].shape == (12, 3, 64, 64)
    again = batch_of(PoseTask(recipe))
    assert all(torch.equal(again[key], value) for key, value in batch.items())
    assert not torch.equal(task.dataset[1, 3]["crop"], batch["crop"][3])
    assert not torch.equal(batch["crop"][9], batch["crop"][3])  # the same person, another row


def test_crops_are_cut_on_the_grid_of_the_codec(people: Callable[[str], Path]) -> None:
    legacy, unbiased = (
        batch_of(PoseTask(recipe_of(people("coco17"), target={"refine": name}))) for name in ("dark", "dark-udp")
    )
    factor = 63 / 64
    moved = (legacy["crop_xy"] - 32) * factor + 31.5
    torch.testing.assert_close(unbiased["crop_xy"], moved, atol=1e-3, rtol=0)


# ---- validation


def of_dataset(folder: Path, dataset: str = "coco", **more: Any) -> dict[str, Any]:
    return {"dataset": dataset, "annotations": str(folder / "people.json"), "images": str(folder), **more}


def test_validation_is_the_evaluation_of_posezoo(
    people: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posezoo.evaluate import pipeline

    folder, reads, plain = people("coco17"), [], pipeline.open_labelled
    monkeypatch.setattr(pipeline, "open_labelled", lambda path, wh: reads.append(path) or plain(path, wh))
    pixels = {"mean": (0, 0, 0), "std": (1, 1, 1), "size_wh": (192, 256)}
    figures = {}
    for name, source in (("coco", of_dataset(folder)), (None, {"annotations": "people.json", "images": "."})):
        task = PoseTask(recipe_of(folder, data={"validate": source}, input=pixels, target={"refine": "dark"}))
        assert task.metric == "AP"
        reads.clear()
        figures[name] = task.validate(Colours(17).eval(), CPU)
        assert len(reads) == 3  # pictures, of six people
    assert figures["coco"]["AP"] > 0.7
    assert figures["coco"] == figures[None]
    report = run_evaluation(
        task._judge.trainee, "coco", folder, folder / "people.json", get_protocol("plain", "coco"), tmp_path  # type: ignore[union-attr]
    )  # fmt: skip
    assert report is not None and report.metrics == figures["coco"]


def test_a_network_of_more_joints_is_judged_by_name(people: Callable[[str], Path]) -> None:
    pixels = {"mean": (0, 0, 0), "std": (1, 1, 1), "size_wh": (192, 256)}
    halpe, coco = people("halpe26"), people("coco17")
    task = PoseTask(recipe_of(halpe, skeleton="halpe26", data={"validate": of_dataset(coco)}, input=pixels))
    assert task.joints == 26
    assert task.validate(Colours(26).eval(), CPU)["AP"] > 0.8  # the first 17 are COCO's


def test_without_a_validation_source_there_are_no_figures(people: Callable[[str], Path]) -> None:
    task = PoseTask(recipe_of(people("coco17")))
    assert task.metric == "AP" and task.validate(Colours(17), CPU) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"dataset": "mpii", "split": "vall"}, "unknown split of mpii 'vall'; did you mean val"),
        ({"dataset": "coco", "annotations": "people.json"}, "give the images' folder too"),
        ({"dataset": "coco", "annotations": "none.json", "images": "."}, "none.json"),
        ({"dataset": "mpii", "annotations": "people.json", "images": "."}, "people.json"),
        ({"dataset": "coco", "annotations": "people.json", "images": "nowhere"}, "3 of 3 pictures are missing"),
    ],
)
def test_what_is_wrong_with_validation_is_said_before_the_run(
    people: Callable[[str], Path], source: dict[str, Any], message: str
) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        PoseTask(recipe_of(people("coco17"), data={"validate": source}))
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_without_the_datasets_joints(people: Callable[[str], Path]) -> None:
    with pytest.raises(PosezooError, match=r"gives coco17, which has no .*head.*this dataset wants halpe26"):
        PoseTask(recipe_of(people("coco17"), data={"validate": of_dataset(people("halpe26"), "halpe26")}))


# ---- every dataset of the zoos, by its samples


# annotations and folder of pictures
SAMPLES: dict[str, tuple[str, str]] = {
    "coco": ("coco/test_coco.json", "coco"),
    "ochuman": ("ochuman/test_ochuman.json", "ochuman"),
    "crowdpose": ("crowdpose/test_crowdpose.json", "crowdpose"),
    "aic": ("aic/test_aic.json", "aic"),
    "mhp": ("mhp/test_mhp.json", "mhp"),
    "mpii": ("mpii/test_mpii.json", "mpii"),
    "mpii_trb": ("mpii/test_mpii_trb.json", "mpii"),
    "posetrack18": ("posetrack18/annotations/test_posetrack18_val.json", "posetrack18"),
    "jhmdb": ("jhmdb/test_jhmdb_sub1.json", "jhmdb"),
    "halpe26": ("halpe/test_halpe.json", "coco"),
    "halpe68": ("halpe/test_halpe.json", "coco"),
    "halpe136": ("halpe/test_halpe.json", "coco"),
    "wholebody133": ("coco/test_coco_wholebody.json", "coco"),
    "hand21": ("onehand10k/test_onehand10k.json", "onehand10k"),
}


PERCENT = ("mpii", "posetrack18")


SURE = {"sigma": 2.0, "refine": "dark"}


SMALL = "mobile_pose_mobilenetv3_small"


FINE, FINER = (64, 96), (96, 128)  # crops


# what learns the samples by heart, on crops of which size, in how many steps at which rate, and how well at least
COURSES: dict[str, tuple[str, dict[str, Any], tuple[int, int], int, float, float]] = {
    "coco": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "ochuman": ("pose_hrnet_w32", SURE, FINE, 50, 1e-3, 0.95),
    "crowdpose": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "aic": (SMALL, SURE, FINE, 180, 6e-3, 0.85),
    "mhp": ("fastpose_resnet50", {**SURE, "loss": "ohkm"}, FINE, 50, 1e-3, 0.95),
    "mpii": ("hourglass_s2", SURE, FINE, 80, 1e-3, 95),
    "mpii_trb": (SMALL, SURE, FINER, 120, 6e-3, 0.95),
    "posetrack18": (SMALL, SURE, FINE, 150, 6e-3, 90),
    "jhmdb": ("simple_pose_resnet18_v1b", SURE, FINE, 80, 1e-3, 0.95),
    "halpe26": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "halpe68": (SMALL, {**SURE, "codec": "combined-26"}, FINER, 300, 8e-3, 0.9),
    "halpe136": (SMALL, {**SURE, "codec": "combined-26"}, FINER, 300, 8e-3, 0.9),
    "wholebody133": (SMALL, {**SURE, "codec": "combined-23"}, FINER, 300, 8e-3, 0.9),
    "hand21": ("fastpose_resnet50_dcn", {"codec": "integral-sigmoid"}, FINE, 50, 1e-3, 0.95),
}


@pytest.fixture
def sample_task(shared: Path, tmp_path: Path) -> Callable[..., PoseTask]:
    """The task of a dataset's samples, to learn from and to be judged by."""

    def make(name: str, target: dict[str, Any], size_wh: tuple[int, int] = FINE) -> PoseTask:
        file, folder = (shared / "samples" / part for part in SAMPLES[name])
        if name in ("mpii", "mpii_trb"):
            file = with_heads(file, tmp_path / "heads.json")
        source = {"dataset": name, "annotations": str(file), "images": str(folder)}
        skeleton, size = get_dataset(name).skeleton, {"size_wh": size_wh}
        return PoseTask(
            recipe_of(tmp_path, train=source, skeleton=skeleton, data={"validate": source}, target=target, input=size)
        )

    return make


def with_heads(file: Path, target: Path) -> Path:
    """The samples of MPII and MPII-TRB have no head boxes, the unit of their metrics."""
    content = json.loads(file.read_text())
    for entry in content if isinstance(content, list) else content["annotations"]:
        entry["headbox"] = [0, 0, 60, 80]
    target.write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("name", SAMPLES)
def test_every_dataset_is_judged_by_its_own_metric(sample_task: Callable[..., PoseTask], name: str) -> None:
    task = sample_task(name, {})
    batch = batch_of(task, 2)
    assert batch["crop"].float().std() > 10 and (batch["weights"] > 0).any()
    loss, _ = task.loss(Given(torch.zeros(2, task.joints, 24, 16)), batch)
    assert loss.item() > 0.1
    figures = task.validate(Colours(task.joints).eval(), CPU)
    full = 100 if name in PERCENT else 1
    assert 0 <= figures[task.metric] < 0.5 * full


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSES)
def test_the_samples_are_learnt_by_heart(sample_task: Callable[..., PoseTask], name: str) -> None:
    arch, target, size_wh, steps, rate, least = COURSES[name]
    task = sample_task(name, target, size_wh)
    model, losses = fit(task, arch, steps, rate)
    assert losses[-1] < 0.2 * losses[0]
    assert task.validate(model, CPU)[task.metric] >= least
