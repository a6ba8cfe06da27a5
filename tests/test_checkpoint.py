"""What a run leaves on disk: a checkpoint whole or not at all, and the weights of its best epochs."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from posezoo.codecs import get_codec  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.files import atomic_path  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train.checkpoint import Best, differences, facts_of, read_state, sweep, write_state  # noqa: E402
from posezoo.train.recipe import Recipe, load_recipe  # noqa: E402
from posezoo.train.target import make_codec  # noqa: E402
from tiny_runs import write_recipe  # noqa: E402


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path, tmp_path))


def state(step: int) -> dict[str, Any]:
    return {"samples": 6, "step": step, "model": {"weight": torch.arange(100_000)}}


def test_what_does_not_change_the_result_may_change() -> None:
    old = {"name": "a", "run": {"folder": "x", "seed": 1, "workers": 0}, "data": {"root": "a", "train": [{"share": 1}]}}
    new = {"name": "b", "run": {"folder": "y", "seed": 1, "workers": 8}, "data": {"root": "b", "train": [{"share": 2}]}}
    assert differences(old, new) == ["data.train.0.share 1 -> 2"]
    assert differences(old, old | {"run": {"seed": 2}}) == ["run.seed 1 -> 2"]


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path, recipe: Recipe) -> None:
    folder = tmp_path / "run"
    write_state(folder, recipe, state(1))
    before = (folder / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # a disk that is full half way
    try:
        with pytest.raises(PosezooError, match=r"cannot write .*last\.pt: File too large; .* is still there") as caught:
            write_state(folder, recipe, state(2))
        with pytest.raises(PosezooError, match=r"cannot write .*last\.pt: File too large$"):
            write_state(tmp_path / "another", recipe, state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 1
    assert [file.name for file in folder.iterdir()] == ["last.pt"] and (folder / "last.pt").read_bytes() == before
    assert read_state(folder, recipe, samples=6)["step"] == 1


def test_unfinished_files_are_swept_away_and_no_others(tmp_path: Path) -> None:
    for name in ("last.pt", "epoch-3.safetensors"):
        with atomic_path(tmp_path / name) as temporary:
            pass
        temporary.write_bytes(b"half")  # as if it had been killed here
    (tmp_path / ".gitignore").write_text("*")
    (tmp_path / ".notes.txt").write_text("mine")
    sweep(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {".gitignore", ".notes.txt", "epoch-3.safetensors", "last.pt"}


def test_the_best_are_ranked_and_say_what_they_are(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    best = Best(tmp_path, most=3)
    for epoch, score in enumerate([0.2, float("nan"), 0.5, 0.5, 0.1, 0.3], 1):
        model.weight.data.fill_(epoch)
        best.offer(model, score, epoch, {"score": f"AP {score}"})
    assert best.ranking == [(0.5, 4), (0.5, 3), (0.3, 6)]
    for score, epoch in best.ranking:
        with safe_open(tmp_path / f"epoch-{epoch}.safetensors", "pt") as file:
            assert file.metadata() == {"score": f"AP {score}", "epoch": str(epoch)}
            assert float(file.get_tensor("weight")) == epoch
    assert (tmp_path / "best.safetensors").read_bytes() == (tmp_path / "epoch-4.safetensors").read_bytes()
    # those of a checkpoint stay until there is a newer one
    assert (tmp_path / "epoch-1.safetensors").exists()
    best.prune()
    assert names(tmp_path) == ["best", "epoch-3", "epoch-4", "epoch-6"]
    least = Best(tmp_path / "least", most=1, larger_is_better=False)
    led = [least.offer(model, score, n, {}) for n, score in enumerate([3.0, 4.0, 2.0, 2.0, float("nan")])]
    assert led == [True, False, True, True, False]


def test_a_ranking_of_before_is_gone_on_with(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    best = Best(tmp_path, most=1)
    best.offer(model, 0.5, 1, {})
    best.prune()
    saved = list(best.ranking)
    best.offer(model, 0.7, 2, {})  # and then the process is killed
    again = Best(tmp_path, most=1)
    again.restore(saved)
    assert (tmp_path / "best.safetensors").read_bytes() == (tmp_path / "epoch-1.safetensors").read_bytes()
    again.offer(model, 0.6, 2, {})
    again.prune()
    assert again.ranking == [(0.6, 2)] and names(tmp_path) == ["best", "epoch-2"]


def names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.safetensors"))


def test_facts_name_the_entry_only_where_the_network_can_stand_in_for_it() -> None:
    row = "simple_pose_resnet18_v1b"
    found = facts_of(load_recipe(row))
    assert found["name"] == load_recipe(row).entry and found["flip_shift"] in ("true", "false")
    assert "name" not in facts_of(load_recipe(row, ["input.size_wh=[64, 64]"]))
    shifted = "res50_coco_256x192"
    assert facts_of(load_recipe(shifted))["flip_shift"] == "true"
    udp = facts_of(load_recipe(shifted, ["target.refine=dark-udp"]))
    assert (udp["codec"], udp["flip_shift"]) == ("heatmap-dark-udp", "false") and "name" not in udp


@pytest.mark.parametrize(
    ("row", "changes", "codec"),
    [
        ("res50_coco_256x192", ["target.refine=dark", "target.sigma=3"], "heatmap-dark-blur17"),
        ("res50_coco_256x192", ["target.refine=quarter", "target.sigma=3"], "heatmap-quarter"),
        ("fastpose_resnet50_dcn_wide.alphapose_halpe136_256x192_combined", ["target.refine=dark"], "combined-26-dark"),
    ],
)
def test_facts_say_how_the_heatmaps_are_read(row: str, changes: list[str], codec: str) -> None:
    recipe = load_recipe(row, changes)
    skeleton = get_skeleton(recipe.data.skeleton)
    found = facts_of(recipe)["codec"]
    assert found == codec
    maps = np.random.default_rng(0).normal(size=(2, len(skeleton), 16, 12)).astype(np.float32)
    read, wanted = (each.decode(maps, (48, 64)) for each in (get_codec(found), make_codec(recipe.target, skeleton)))
    assert all(np.array_equal(*pair) for pair in zip(read, wanted, strict=True))
