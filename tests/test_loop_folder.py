"""The folder of a run: what an earlier run has left there is never lost, and what there is to go on from is said."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")


from loop_fixtures import _tiny_networks, folder_is, is_at, people, recipe, state_of  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.lock import LOCK  # noqa: E402
from posezoo.train import (  # noqa: E402
    checkpoint,
    run,
)
from posezoo.train.checkpoint import read_state  # noqa: E402
from posezoo.train.optimise import Learner  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402

TWO = ["run.keep_best=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """The folder of a run that has ended."""
    return run(recipe, [folder_is(tmp_path_factory.mktemp("whole")), *TWO])


@pytest.fixture
def ended(tmp_path: Path, whole: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != LOCK]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["epoch-1.safetensors", "best.safetensors", "card.md", None])
def test_what_a_run_has_come_to_outlives_its_checkpoint(
    ended: Path, recipe: Path, resume: bool, left: str | None
) -> None:
    (ended / "last.pt").unlink()
    for file in ended.glob("*"):
        if left is not None and file.is_file() and file.name not in (left, "recipe.json"):
            file.unlink()
    before = contents(ended)
    expected = r"run holds what a run has come to \(.*\), and no last\.pt .* another run\.folder, or remove these files"
    with pytest.raises(PosezooError, match=expected) as caught:
        run(recipe, [folder_is(ended), "schedule.epochs=1", "run.seed=5"], resume)
    assert contents(ended) == before
    for name in [left] if left else ["best.safetensors", "card.md", "epoch-1.safetensors", "epoch-2.safetensors"]:
        assert name in str(caught.value)
    assert ("model.weights=" in str(caught.value)) == (left in (None, "best.safetensors"))


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew_and_says_so(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PoseTask, "loss", lambda *_: (_ for _ in ()).throw(PosezooError("broken off")))
        with pytest.raises(PosezooError, match=r"broken off$"):
            run(recipe, [folder_is(tmp_path)])
    capsys.readouterr()
    run(recipe, [folder_is(tmp_path)], resume=True)
    assert "nothing to go on from: the run here ended before its first checkpoint" in capsys.readouterr().out
    assert state_of(tmp_path)["sittings"] == 1


def test_there_are_no_weights_before_there_is_a_checkpoint(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights without `last.pt` are those of a run whose `last.pt` was removed."""
    plain = checkpoint.write_state

    def full(*_: Any) -> None:
        raise PosezooError("cannot write last.pt: No space left on device")

    monkeypatch.setattr(checkpoint, "write_state", full)
    with pytest.raises(PosezooError, match=r"No space left on device$"):  # and nothing is said to be saved
        run(recipe, [folder_is(tmp_path)])
    assert not checkpoint.results(tmp_path)
    monkeypatch.setattr(checkpoint, "write_state", plain)
    run(recipe, [folder_is(tmp_path)], resume=True)
    assert state_of(tmp_path)["validated"] == 2


def test_weights_of_others_are_left_where_they_are(ended: Path, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "run" / "epoch-7.safetensors"
    other.write_bytes(b"mine")
    state = torch.load(ended / "last.pt", weights_only=True)
    torch.save({**state, "validated": 1, "step": 2, "best": state["best"][1:]}, ended / "last.pt")
    run(recipe, [folder_is(ended), "run.keep_best=1"], resume=True)
    assert other.read_bytes() == b"mine"
    kept = state_of(ended)["best"][0][1]
    assert {file.name for file in ended.glob("epoch-*")} == {f"epoch-{kept}.safetensors", "epoch-7.safetensors"}


def test_a_run_that_has_ended_has_nothing_left_to_do(
    ended: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(ended)
    assert run(recipe, [folder_is(ended), *TWO], resume=True) == ended
    assert "tiny: nothing is left to do, all of its 2 epochs are behind it: see" in capsys.readouterr().out
    assert contents(ended) == before
    (ended / "card.md").unlink()  # as if it had been killed before it was written
    run(recipe, [folder_is(ended), *TWO], resume=True)
    assert (ended / "card.md").exists()


def test_who_judges_may_change_until_somebody_has_judged(
    tmp_path: Path, recipe: Path, whole: Path, people: Path
) -> None:
    judged = tmp_path / "judged"
    shutil.copytree(people, judged)
    (judged / "3.png").write_bytes((people / "3.png").read_bytes()[:200])  # its header is whole
    how = [folder_is(tmp_path / "run"), *TWO]
    with pytest.raises(PosezooError, match=r"cannot read .*3\.png.* Step 2 is saved: mend this, and .*--resume"):
        run(recipe, [*how, is_at("data.validate.images", judged)])
    with pytest.raises(PosezooError, match=r"of another recipe: optimiser\.lr .*another run\.folder$") as caught:
        run(recipe, [*how, "optimiser.lr=1"], resume=True)
    assert "best.safetensors" not in str(caught.value)  # there is none yet
    run(recipe, how, resume=True)
    weights = [(folder / "best.safetensors").read_bytes() for folder in (whole, tmp_path / "run")]
    assert weights[0] == weights[1]
    with pytest.raises(PosezooError, match=r"recipe: data\.validate\.images .*run\.folder \(model\.weights=.*best\."):
        run(recipe, [*how, is_at("data.validate.images", judged)], resume=True)


def test_a_run_from_before_there_was_a_key_goes_on_as_it_was(ended: Path, recipe: Path) -> None:
    state = torch.load(ended / "last.pt", weights_only=True)
    old = json.loads(state["recipe"])
    assert old["target"].pop("joint_weights") is False  # at that time, all counted as the skeleton has it
    assert (old["augment"].pop("shift_probability"), old["augment"].pop("shift_of")) == (1, "view")
    half = {**state, "recipe": json.dumps(old), "validated": 1, "step": 2, "best": state["best"][1:]}
    torch.save(half, ended / "last.pt")
    with pytest.raises(PosezooError, match=r"of another recipe: target\.joint_weights true -> false\. Give the old"):
        run(recipe, [folder_is(ended), *TWO], resume=True)
    run(recipe, [folder_is(ended), *TWO, "target.joint_weights=true"], resume=True)
    assert state_of(ended)["step"] == 4
    torch.save({**half, "recipe": json.dumps({**old, "task": "detect"})}, ended / "last.pt")
    detector = load_recipe(recipe, ["task=detect", *TWO])  # which has no joints
    assert read_state(ended, detector, samples=6)["step"] == 2


@pytest.mark.parametrize("name", ["mmpose_res50_mpii_trb_256x256", "alphapose_halpe_136_256x192_res50_lr1e-3_2x"])
def test_keys_without_effect_make_no_other_recipe(tmp_path: Path, name: str) -> None:
    now = load_recipe(name, [f"run.folder={tmp_path}"])
    old = json.loads(now.model_dump_json(by_alias=True))
    for part, key in (("target", "joint_weights"), ("augment", "shift_probability"), ("augment", "shift_of")):
        del old[part][key]
    state = {"format": checkpoint._FORMAT, "recipe": json.dumps(old), "samples": 6, "validated": 1}
    torch.save(state, tmp_path / "last.pt")
    assert read_state(tmp_path, now, samples=6)["samples"] == 6


@pytest.mark.parametrize(
    ("samples", "devices", "accumulate", "expected"),
    [
        (6, 1, 1, "6 samples a pass: try optimiser.accumulate=2 (3 a pass, the same steps), run.precision=bf16, "
                  "or optimiser.batch_size=3"),
        (12, 2, 2, "3 samples a pass: try optimiser.accumulate=6 (1 a pass, the same steps), run.precision=bf16, "
                   "or optimiser.batch_size=4"),
        (32, 3, 1, "10 samples a pass: try run.precision=bf16, or optimiser.batch_size=15"),
        (1, 2, 1, "with one sample a pass: take a smaller input.size_wh or model.arch"),
    ],
)  # fmt: skip
def test_no_memory_is_of_the_samples_that_there_are(
    tmp_path: Path, recipe: Path, samples: int, devices: int, accumulate: int, expected: str
) -> None:
    learner: Any = object.__new__(Learner)
    learner.recipe = load_recipe(recipe, ["optimiser.batch_size=512", f"optimiser.accumulate={accumulate}"])
    learner.samples, learner.goes_on = samples, False
    learner.accelerator = SimpleNamespace(num_processes=devices, device=torch.device("cpu"))
    assert learner._smaller().endswith(expected)
    learner.goes_on = True  # with --resume, the sizes have to stay
    first, _, rest = expected.partition(": ")
    assert learner._smaller().endswith(f"{first}: see what else uses it; or, in another run.folder, {rest}")
