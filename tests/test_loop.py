"""The training loop: an order that can be entered anywhere, runs that can be broken off, shared out and trusted."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")


from loop_fixtures import _tiny_networks, apart, folder_is, is_at, people, recipe, state_of  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.lock import LOCK  # noqa: E402
from posezoo.models.build import ARCHS  # noqa: E402
from posezoo.train import checkpoint, run  # noqa: E402
from posezoo.train.log import read_log  # noqa: E402
from posezoo.train.order import Order, Share, make_loader  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from tiny_runs import TINY  # noqa: E402

LEARNING = ["model.arch='tiny_dropout'", "optimiser.accumulate=3", "optimiser.clip=1", "run.keep_best=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """The folder of a run of `LEARNING` that nothing has broken off."""
    return run(recipe, [folder_is(tmp_path_factory.mktemp("whole")), *LEARNING])


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Every tensor and value of two checkpoints, but for the clock."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("seconds", "sittings", "recipe"):
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for n, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{n}]")
    else:
        assert a == b, where


# ---- the order of samples


def test_an_epoch_draws_every_row_once_and_follows_from_the_seed() -> None:
    order = Order(rows=10, batch_size=3, seed=5)
    whole = order.epoch(0)
    assert len(whole) == order.steps == 3 and {len(step) for step in whole} == {3}
    assert len({row for step in whole for _, row in step}) == 9 and {n for step in whole for n, _ in step} == {0}
    assert whole == Order(rows=10, batch_size=3, seed=5).epoch(0) != Order(rows=10, batch_size=3, seed=6).epoch(0)
    assert [row for step in order.epoch(1) for _, row in step] != [row for step in whole for _, row in step]
    every = Order(rows=4, batch_size=2, samples=10, seed=0).epoch(3)
    assert len(every) == 5 and all(2 <= n <= 3 for n in Counter(row for step in every for _, row in step).values())
    assert Order(rows=2, batch_size=8, seed=0).epoch(0)[0].__len__() == 2


def test_weights_say_how_often_a_row_is_drawn_and_no_two_draws_are_alike() -> None:
    weights = np.array([0.0, 0.5, 1.0, 2.0, 2.5])
    order = Order(rows=5, batch_size=2, seed=1, weights=weights)
    assert order.steps == 3
    counts, keys = np.zeros(5), []
    for epoch in range(400):
        drawn = [key for step in order.epoch(epoch) for key in step]
        counts += np.bincount([row for _, row in drawn], minlength=5)
        keys += drawn
    np.testing.assert_allclose(counts / 400, weights, atol=0.07)
    assert len(set(keys)) == len(keys)
    for wrong in (np.ones(4), np.array([1, 1, 1, 1, -1.0]), np.zeros(5), np.array([1, 1, 1, 1, np.nan])):
        with pytest.raises(PosezooError, match="weights of 5 samples"):
            Order(rows=5, batch_size=2, weights=wrong)


def test_shares_of_processes_and_passes_make_up_the_step_wherever_they_begin() -> None:
    order = Order(rows=16, batch_size=8, seed=3)
    steps = [step for epoch in range(3) for step in order.epoch(epoch)]
    shares = [Share(order, 1, 5, passes=2, rank=rank, processes=2) for rank in range(2)]
    assert {len(share) for share in shares} == {8}
    read = [list(share) for share in shares]
    for n in range(4):
        parts = [part for passes in read for part in passes[2 * n : 2 * n + 2]]
        assert {len(part) for part in parts} == {2}
        assert sorted(key for part in parts for key in part) == sorted(steps[1 + n])
    with pytest.raises(PosezooError, match="8 samples does not divide by 3 devices x 1 pass:"):
        Share(order, 0, 1, processes=3)


# ---- runs that are broken off


def assert_same_runs(whole: Path, broken: Path) -> None:
    """All that two runs have learnt, judged, kept and logged."""
    assert_same(state_of(whole), state_of(broken))
    kept = [{file.name: file.read_bytes() for file in folder.glob("*.safetensors")} for folder in (whole, broken)]
    assert kept[0] == kept[1] and set(kept[0]) == {f"{name}.safetensors" for name in ("best", "epoch-1", "epoch-2")}
    clock = ("images_per_s", "data_wait", "eta_s")
    logs = [[row for row in read_log(folder) if row[2] not in clock] for folder in (whole, broken)]
    assert logs[0] == logs[1] and (2, "validate") in {row[:2] for row in logs[0]}


def test_a_run_that_raised_and_was_resumed_is_the_unbroken_run(
    tmp_path: Path, recipe: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = PoseTask.loss, []

    def interrupted(self: PoseTask, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3 * 3 + 1:  # in the second epoch, and within a step
            raise KeyboardInterrupt
        return plain(self, *arguments)

    broken = [folder_is(tmp_path), "run.save_every=1", "run.workers=2", *LEARNING]
    monkeypatch.setattr(PoseTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, broken)
    monkeypatch.setattr(PoseTask, "loss", plain)
    assert state_of(tmp_path)["step"] == 3
    with pytest.raises(PosezooError, match="already holds a run"):
        run(recipe, broken)
    run(recipe, broken, resume=True)
    assert state_of(tmp_path)["step"] == 4 and state_of(tmp_path)["sittings"] == 2
    assert_same_runs(whole, tmp_path)


def kill_in_validation(patch: pytest.MonkeyPatch) -> None:
    die_at(patch, PoseTask, "validate", 2)


def kill_when_the_best_are_written(patch: pytest.MonkeyPatch) -> None:
    """... and the checkpoint does not know of them yet."""
    die_at(patch, checkpoint, "write_state", 3)  # the first one stands before anything is judged


def kill_in_the_middle_of_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    def half(_: Any, file: Any) -> None:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(torch, "save", half)


def die_at(patch: pytest.MonkeyPatch, of: Any, name: str, number: int) -> None:
    """Kill this process when it makes so many calls of a function."""
    plain, calls = getattr(of, name), []

    def last(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    patch.setattr(of, name, last)


def run_prepared(prepare: Callable[[pytest.MonkeyPatch], None], recipe: Path, overrides: list[str]) -> None:
    prepare(pytest.MonkeyPatch())
    ARCHS.update(TINY)
    run(recipe, overrides)


@pytest.mark.parametrize(
    ("prepare", "save_every", "saved"),
    [
        pytest.param(kill_in_validation, 2, (4, 1), marks=pytest.mark.slow),
        pytest.param(kill_when_the_best_are_written, 200, (2, 1), marks=pytest.mark.slow),
        (kill_in_the_middle_of_a_checkpoint, 200, None),
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, recipe: Path, whole: Path,
    prepare: Callable[[pytest.MonkeyPatch], None], save_every: int, saved: tuple[int, int] | None,
) -> None:  # fmt: skip
    overrides = [folder_is(tmp_path), "run.workers=1", f"run.save_every={save_every}", *LEARNING]
    assert apart([partial(run_prepared, prepare, recipe, overrides)]) == [-signal.SIGKILL]
    left = state_of(tmp_path) if (tmp_path / "last.pt").exists() else None
    assert saved == (left and (left["step"], left["validated"]))
    assert saved or list(tmp_path.glob(".last.*.pt"))
    run(recipe, overrides, resume=True)
    assert_same_runs(whole, tmp_path)
    assert [file.name for file in tmp_path.glob(".*")] == [LOCK]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    plain = PoseTask.loss

    def interrupted(self: PoseTask, *arguments: Any) -> Any:
        for _ in range(2):  # torchrun passes on the one that came from the terminal already
            os.kill(os.getpid(), number)
        return plain(self, *arguments)

    handler = signal.getsignal(number)
    monkeypatch.setattr(PoseTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, [folder_is(tmp_path)])
    assert signal.getsignal(number) is handler
    assert "step 1 of 4 is in" in capsys.readouterr().out and state_of(tmp_path)["step"] == 1
    monkeypatch.setattr("posezoo.train.interrupts._TWICE", 0.0)  # as if the second one came late
    monkeypatch.setattr(PoseTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, [folder_is(tmp_path)], resume=True)
    assert "step 2" not in capsys.readouterr().out and state_of(tmp_path)["step"] == 1


class Numbers:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"row": torch.tensor(key[1])}


def test_workers_outlive_a_sigterm_for_as_long_as_a_step_takes() -> None:
    batches = iter(make_loader(Numbers(), Share(Order(6, 1), 0, 6), 1, torch.device("cpu")))
    found = [int(next(batches)["row"])]
    os.kill(batches._workers[0].pid, signal.SIGTERM)
    assert sorted([*found, *(int(batch["row"]) for batch in batches)]) == list(range(6))


def killed_while_it_reads(note: Path) -> None:
    batches = iter(make_loader(Numbers(), Share(Order(6, 1), 0, 6), 1, torch.device("cpu")))
    next(batches)
    note.write_text(str(batches._workers[0].pid))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_end_with_a_killed_process(tmp_path: Path) -> None:
    assert apart([partial(killed_while_it_reads, tmp_path / "worker")]) == [-signal.SIGKILL]
    worker, end = int((tmp_path / "worker").read_text()), time.monotonic() + 20
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(worker, 0)
            time.sleep(0.05)


def test_resume_refuses_what_is_not_the_same_run(tmp_path: Path, recipe: Path, whole: Path, people: Path) -> None:
    with pytest.raises(PosezooError, match=r"nothing to resume: .* a run begins without --resume"):
        run(recipe, [folder_is(tmp_path / "nothing")], resume=True)
    same = [folder_is(whole), *LEARNING]
    with pytest.raises(PosezooError, match=r"holds tiny_dropout, the recipe asks for simple_pose_resnet18_v1b"):
        run(recipe, [*same, "model.arch='simple_pose_resnet18_v1b'"], resume=True)
    with pytest.raises(PosezooError, match=r"another recipe: optimiser\.lr 0\.003 -> 0\.1; schedule\.epochs 2 -> 3\. "):
        run(recipe, [*same, "optimiser.lr=0.1", "schedule.epochs=3"], resume=True)
    content = json.loads((people / "people.json").read_text())
    content["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(content))
    fewer = is_at("data.train.annotations", tmp_path / "fewer.json")
    with pytest.raises(PosezooError, match=r"another recipe: data\.train\.0\.annotations"):
        run(recipe, [*same, fewer], resume=True)
    moved = tmp_path / "moved"
    shutil.copytree(people, moved)
    (moved / "people.json").write_text(json.dumps(content))
    with pytest.raises(PosezooError, match="was learning from 6 samples, the data now has 5"):
        run(recipe, [*same, is_at("data.root", moved)], resume=True)
    for damage in (b"", b"x" * 100):
        (tmp_path / "last.pt").write_bytes(damage)
        with pytest.raises(PosezooError, match="cannot resume") as caught:
            run(recipe, [folder_is(tmp_path)], resume=True)
        assert len(str(caught.value).splitlines()) == 1
    torch.save({"arch": "x"}, tmp_path / "last.pt")
    with pytest.raises(PosezooError, match="not a checkpoint of a posezoo run"):
        run(recipe, [folder_is(tmp_path)], resume=True)


# ---- what goes wrong


def test_a_loss_that_is_no_number_keeps_the_batch_and_shows_it(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = PoseTask.loss, []

    def broken(self: PoseTask, *arguments: Any) -> Any:
        calls.append(1)
        loss, figures = plain(self, *arguments)
        return (loss * float("nan") if len(calls) == 6 else loss), figures

    monkeypatch.setattr(PoseTask, "loss", broken)
    how = [folder_is(tmp_path), "optimiser.accumulate=3", "run.save_every=1", "run.precision='fp16'"]
    expected = r"loss is nan at step 1; .*bad_batch\.png, .*bad_batch\.pt .* lower optimiser\.lr .*run\.precision=bf16"
    with pytest.raises(PosezooError, match=expected):
        run(recipe, how)
    kept = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert kept["step"] == 1 and np.isnan(kept["loss"]) and kept["batch"]["crop"].shape == (1, 3, 64, 64)
    row = int(kept["batch"]["row"][0])
    assert kept["samples"][0].endswith(f"{row}.png annotation {row + 1}")
    sheet = cv2.imread(str(tmp_path / "bad_batch.png"))
    assert sheet.shape[0] > 256 < sheet.shape[1] and sheet.std() > 10
    before = state_of(tmp_path)
    assert before["step"] == 1 and all(torch.isfinite(t.float()).all() for t in before["model"].values())


def test_no_memory_says_which_sizes_to_try(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(PoseTask, "loss", greedy)
    expected = r"out of memory with 6 samples a pass: try optimiser\.accumulate=2 \(3 a pass, the same steps\), "
    with pytest.raises(PosezooError, match=expected + r"run\.precision=bf16, or optimiser\.batch_size=3$"):
        run(recipe, [folder_is(tmp_path), "optimiser.batch_size=6"])
    with pytest.raises(PosezooError, match="with one sample a pass: take a smaller input"):
        run(recipe, [folder_is(tmp_path), "optimiser.accumulate=3"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_and_once_it_is_mended_the_run_goes_on(
    tmp_path: Path, recipe: Path, whole: Path, people: Path, workers: int
) -> None:
    shutil.copytree(people, tmp_path / "data")
    how = [is_at("data.root", tmp_path / "data"), folder_is(tmp_path / "run"), f"run.workers={workers}"]
    order = Order(rows=6, batch_size=3).epoch(1)
    picture = tmp_path / "data" / f"{order[1][0][1]}.png"  # one that is drawn in the last step of each epoch, or before
    sound = picture.read_bytes()
    picture.write_bytes(sound[:200])
    with pytest.raises(PosezooError, match=r"cannot read .*\.png") as caught:
        run(recipe, [*how, *LEARNING])
    assert len(str(caught.value).splitlines()) == 1 and "Traceback" not in str(caught.value)
    picture.write_bytes(sound)
    run(recipe, [*how, *LEARNING], resume=True)
    assert_same_runs(whole, tmp_path / "run")


def test_a_damaged_picture_to_be_judged_by_loses_nothing_that_was_learnt(
    tmp_path: Path, recipe: Path, whole: Path, people: Path
) -> None:
    shutil.copytree(people, tmp_path / "data")
    (tmp_path / "data" / "3.png").write_bytes((people / "3.png").read_bytes()[:200])  # its header is whole
    judged = is_at("data.validate.images", tmp_path / "data")
    with pytest.raises(PosezooError, match=r"cannot read .*3\.png.* Step 2 is saved: mend this, and .*--resume"):
        run(recipe, [folder_is(tmp_path / "run"), judged, *LEARNING])
    (tmp_path / "data" / "3.png").write_bytes((people / "3.png").read_bytes())
    run(recipe, [folder_is(tmp_path / "run"), judged, *LEARNING], resume=True)
    assert_same_runs(whole, tmp_path / "run")


def test_too_few_processes_of_the_wrong_number_is_an_error(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(PosezooError, match="accumulate"):
        run(recipe, [folder_is(tmp_path), "optimiser.accumulate=2"])


def test_what_nobody_can_be_judged_by_is_refused_before_the_first_step(
    tmp_path: Path, recipe: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PoseTask, "loss", lambda *_: pytest.fail("it has begun"))
    how = [
        folder_is(tmp_path / "run"),
        is_at("data.root", tmp_path),
        is_at("data.train.images", people),
    ]
    how += [
        is_at("data.train.annotations", people / "people.json"),
        "data.validate.annotations='judged.json'",
    ]
    content = json.loads((people / "people.json").read_text())
    for person in content["annotations"]:
        person["num_keypoints"] = 0  # so that OKS leaves them out
    (tmp_path / "judged.json").write_text(json.dumps(content))
    with pytest.raises(PosezooError, match=r"judged\.json has nobody whom AP can be told of"):
        run(recipe, [*how, is_at("data.validate.images", people)])
    missing = (
        r"data\.validate: 6 of 6 pictures are missing \(.*0\.png, .*1\.png, .*2\.png and 3 more\); data\.max_missing"
    )
    with pytest.raises(PosezooError, match=missing):
        run(recipe, [*how, "data.validate.images='elsewhere'"])
    person = {"image": "0.png", "joints": [[50.0, 50.0]] * 16, "joints_vis": [1] * 16, "center": [50, 60], "scale": 0.4}
    (tmp_path / "judged.json").write_text(json.dumps([person]))
    mpii = [*how, "data.skeleton='mpii16'", "data.validate.dataset='mpii'", "data.train.dataset='mpii'"]
    mpii += ["data.train.annotations='judged.json'", is_at("data.validate.images", people)]
    with pytest.raises(PosezooError, match="person 0 has no 'headbox', the unit of PCKh"):
        run(recipe, mpii)
