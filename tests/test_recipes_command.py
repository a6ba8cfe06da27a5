"""`posezoo train --dry-run` and `--list`: what they print, and what a wrong command teaches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import command_line
from posezoo.train import run
from posezoo.train.recipe import load_recipe
from posezoo.train.rows import list_rows


def invoke(*words: str) -> str:
    result = command_line.run("train", *words)
    assert result.code == 0, result.err
    return result.out


@pytest.mark.parametrize(
    "words",
    [
        ("res50_coco_256x192", "optimiser.batch_size=64"),
        ("alphapose_halpe_136_256x192_res50_lr1e-3_2x-dcn-combined_multidomain",),
        ("res50_coco_256x192", "distill.teachers=[{model='embedded'}]", "distill.heatmap=0.5"),
        ("embedded_detector",),
    ],
)
def test_what_a_dry_run_prints_is_the_recipe(tmp_path: Path, words: tuple[str, ...]) -> None:
    head, _, text = invoke(*words, "--dry-run").partition("\n\n")
    printed = tmp_path / "printed.toml"
    printed.write_text(text)
    assert load_recipe(printed) == load_recipe(words[0], words[1:])
    assert head.splitlines()[0].split()[:2] == ["recipe", f"{load_recipe(words[0]).name},"]


def test_dry_run_says_where_values_are_from() -> None:
    lines = invoke("res50_coco_256x192", "run.seed=3", "--dry-run").splitlines()
    notes = {line.split(" = ")[0]: line.partition("  # ")[2] for line in lines if " = " in line}
    assert notes["arch"] == "zoo entry"
    assert notes["lr"] == "mmpose.toml"
    assert lines[lines.index("# mmpose.toml, kind resnet50") + 1].startswith("start = ")
    assert notes["seed"] == "override run.seed"
    assert notes["momentum"] == ""
    content = json.loads(invoke("res50_coco_256x192", "run.seed=3", "--dry-run", "--json"))
    assert content["from"]["run.seed"] == "override run.seed=3"
    assert content["recipe"]["run"]["seed"] == 3
    assert content["recipe"]["data"]["validate"]["dataset"] == "coco"
    assert content["plan"]["steps_per_epoch"] == 149_813 // 512


def test_a_dry_run_from_python_prints_what_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("res50_coco_256x192", ["schedule.epochs=3"], dry_run=True)
    assert folder == Path("runs/mmpose_res50_coco_256x192")
    printed = capsys.readouterr().out
    assert printed == invoke("res50_coco_256x192", "schedule.epochs=3", "--dry-run", "--json")
    assert json.loads(printed)["recipe"]["schedule"]["epochs"] == 3


def test_a_dry_run_fits_a_page() -> None:
    """Long comments stand above their values, shares of a run are epochs of it, a source has a line of its own."""
    lines = invoke("alphapose_halpe_136_256x192_res50_lr1e-3_2x-dcn-combined_multidomain", "--dry-run").splitlines()
    text = lines[lines.index("") :]
    assert all(len(line) <= 80 for line in text if "#" in line)
    assert text[text.index("# row's name") + 1].startswith('name = "alphapose_halpe_136')
    assert 'milestones = ["100/270", "170/270"]   # alphapose.toml, kind 2x' in text
    assert '  { dataset = "wholebody133", split = "train", domain = "wholebody" },' in text
    head = dict(line.split(None, 1) for line in lines if line.startswith(("makes", "published")))
    assert head["published"] == "from a ResNet trained on ImageNet (torchvision's); model.backbone=FILE begins there"


def test_list() -> None:
    every = json.loads(invoke("--list", "--json"))
    assert {row["recipe"] for row in every} == set(list_rows())
    text = invoke("--list")
    assert len(text.splitlines()) == len(every) + 2
    line = next(line for line in text.splitlines() if line.startswith("mmpose_res50_coco_256x192 "))
    assert line.split()[1:5] == ["simple_pose_resnet50_v1b.mmpose_coco_256x192", "coco", "210", "512"]
    assert line.endswith("AP 71.8 coco")
    some = json.loads(invoke("--list", "crowdpose", "--json"))
    assert {row["dataset"] for row in some} == {"crowdpose"}
    assert len(some) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which recipe\\? posezoo train --list"),
        (("schedule.epochs=3",), "'schedule.epochs=3' is an override: the recipe comes first"),
        (("res50_coco_256x192", "--json"), "--json is for --dry-run and --list"),
        (("nothing-at-all", "--list"), "no recipe has 'nothing-at-all'"),
        (("nothing-at-all", "--dry-run"), "unknown recipe 'nothing-at-all'"),
    ],
)
def test_wrong_commands_teach(words: tuple[str, ...], message: str) -> None:
    result = command_line.run("train", *words)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert re.search(message, result.err)
