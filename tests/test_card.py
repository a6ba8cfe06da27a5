"""What a finished run leaves: weights that say what they are, a log, and a card with its figures."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors import safe_open  # noqa: E402

from posezoo.models.build import ARCHS, build  # noqa: E402
from posezoo.train import run  # noqa: E402
from posezoo.train.card import write_card  # noqa: E402
from posezoo.train.log import read_log  # noqa: E402
from posezoo.train.loop import make_task  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402
from tiny_runs import TINY, write_people, write_recipe  # noqa: E402


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, people: Path) -> Path:
    """Of a run of two epochs."""
    return run(write_recipe(tmp_path_factory.mktemp("run"), people), ["run.keep_best=2"])


def test_the_weights_say_what_they_are(folder: Path) -> None:
    with safe_open(folder / "best.safetensors", "pt") as file:
        facts = file.metadata()
    expected = {"recipe": "tiny", "arch": "mobile_pose_fpn_1.0", "skeleton": "coco17", "input_size_wh": "64 64",
                "codec": "heatmap-quarter", "mean": "0.485 0.456 0.406", "std": "0.229 0.224 0.225", "channels": "rgb",
                "box_scale": "1.25", "flip_shift": "true"}  # fmt: skip
    assert expected.items() <= facts.items() and facts["score"].startswith("AP ") and facts["epoch"] in "12"
    load_weights(build("mobile_pose_fpn_1.0", 17), folder / "epoch-1.safetensors")


def test_the_log_is_a_table_and_tensorboard_has_it_too(folder: Path) -> None:
    with (folder / "log.csv").open() as file:
        assert next(csv.reader(file)) == ["step", "phase", "name", "value"]
    names = {row[2] for row in read_log(folder) if row[1] == "train"}
    assert names >= {"loss", "oks", "lr", "images_per_s", "data_wait", "eta_s"}
    assert list((folder / "tensorboard").glob("events*"))


def test_the_card_tells_what_came_of_what(folder: Path, people: Path) -> None:
    card = (folder / "card.md").read_text()
    digest = hashlib.sha256((people / "people.json").read_bytes()).hexdigest()
    weights = hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()
    told = (
        "epoch-1.safetensors",
        "annotated boxes, no flip",
        "torch ",
        "command",
        '"lr": 0.003',
        "| joints count | all alike |",
    )
    for fact in (digest, weights, *told, "learnt by heart"):
        assert fact in card, fact
    for use in ("training", "validation"):
        assert f"| {use} | COCO-style | {people / 'people.json'} | {digest} | 6 | 6 |" in card
    shown = {row[2]: row[3] for row in read_log(folder) if row[1] == "validate" and row[0] == 4}
    assert f"| AP | {shown['AP']:.4f} |" in card
    assert shown["APL"] == -1 and "| APL |" not in card  # nobody is large
    curves = cv2.imread(str(folder / "curves.png"))
    assert curves.shape == (660, 1040, 3) and (curves < 200).any()


def test_a_run_that_is_done_can_only_tell_again(folder: Path) -> None:
    before, card = torch.load(folder / "last.pt", weights_only=True)["model"], (folder / "card.md").read_text()
    run(folder.parent / "recipe.toml", ["run.keep_best=2"], resume=True)
    assert (folder / "card.md").read_text() == card
    (folder / "card.md").unlink()
    run(folder.parent / "recipe.toml", ["run.keep_best=2"], resume=True)
    again = torch.load(folder / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(before[key], again[key]) for key in before)
    assert " in 2 sittings" in (folder / "card.md").read_text()


def test_without_anything_to_validate_on_the_newest_weights_are_the_best(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHS, "tiny", TINY["tiny"])
    path = write_recipe(tmp_path, people, arch="tiny")
    path.write_text(path.read_text().replace("validate =", "# validate ="))
    folder = run(path, ["optimiser.ema=0"])
    assert torch.load(folder / "last.pt", weights_only=True)["best"] == [(0.0, 2)]
    assert [file.stem for file in folder.glob("epoch-*")] == ["epoch-2"]
    assert "Nothing was measured. `best.safetensors`: epoch 2 of 2, the last." in (folder / "card.md").read_text()


def test_the_card_of_a_row_has_its_claims(folder: Path, people: Path, tmp_path: Path) -> None:
    data = [f"data.{use}={{annotations='people.json', images='.'}}" for use in ("train", "validate")]
    recipe = load_recipe(
        "mmpose_res50_coco_256x192", [*data, f"data.root='{people.as_posix()}'", f"run.folder='{folder.as_posix()}'"]
    )
    story = {"processes": 1, "device": torch.device("cpu"), "ranking": [(0.0, 2), (0.0, 1)], "steps": 4,
             "batch_size": 3, "epoch_steps": 2, "seconds": 4000.0, "sittings": 1, "weights": 34_000_000}  # fmt: skip
    (tmp_path / "log.csv").write_text((folder / "log.csv").read_text())
    card = write_card(tmp_path, recipe, make_task(recipe), story).read_text()
    assert "simple_pose_resnet50_v1b, 34.00 M weights, 192x256, coco17" in card and "| time | 1 h 6 min |" in card
    assert "Claimed by the source of simple_pose_resnet50_v1b.mmpose_coco_256x192" in card and "\n- AP 0.718  " in card
