"""The training loop: an order that can be entered anywhere, runs that can be broken off, shared out and trusted."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
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

from accelerate.state import AcceleratorState  # noqa: E402
from safetensors import safe_open  # noqa: E402

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.train import run  # noqa: E402
from posezoo.train.checkpoint import Best, differences, facts_of  # noqa: E402
from posezoo.train.curves import Panel, draw, smooth, ticks  # noqa: E402
from posezoo.train.log import Meter, duration, read_log  # noqa: E402
from posezoo.train.network import Ema  # noqa: E402
from posezoo.train.optimise import make_optimiser  # noqa: E402
from posezoo.train.order import Order, Share  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402
from tiny_runs import write_people, write_recipe  # noqa: E402


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


def folder_is(path: Path) -> str:
    return f"run.folder='{path.as_posix()}'"


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


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
    with pytest.raises(PosezooError, match="8 samples does not divide by 3 devices x 1 passes"):
        Share(order, 0, 1, processes=3)


# ---- runs that are broken off


def test_a_run_that_raised_and_was_resumed_is_the_unbroken_run(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, passes = write_recipe(tmp_path, people), 3
    how = ["run.workers=2", "optimiser.accumulate=3", "optimiser.name='sgd'", "optimiser.clip=1", "run.keep_best=2"]
    run(recipe, [folder_is(tmp_path / "whole"), *how])
    plain, calls = PoseTask.loss, []

    def interrupted(self: PoseTask, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3 * passes + 1:  # in the second epoch, and within a step
            raise KeyboardInterrupt
        return plain(self, *arguments)

    broken = [folder_is(tmp_path / "broken"), "run.save_every=1", *how]
    monkeypatch.setattr(PoseTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, broken)
    monkeypatch.setattr(PoseTask, "loss", plain)
    assert state_of(tmp_path / "broken")["step"] == 3
    with pytest.raises(PosezooError, match="already holds a run"):
        run(recipe, broken)
    run(recipe, broken, resume=True)
    whole, resumed = (state_of(tmp_path / name) for name in ("whole", "broken"))
    assert whole["step"] == 4 and whole["validated"] == 2 and resumed["sittings"] == 2
    assert_same(whole, resumed)
    for name in ("best", "best-1", "best-2"):
        files = [(tmp_path / kind / f"{name}.safetensors").read_bytes() for kind in ("whole", "broken")]
        assert files[0] == files[1]
    logs = [read_log(tmp_path / name) for name in ("whole", "broken")]
    learnt = [[row for row in log if row[2] not in ("images_per_s", "data_wait", "eta_s")] for log in logs]
    assert learnt[0] == learnt[1] and (2, "validate") in {row[:2] for row in learnt[0]}


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, plain, calls = write_recipe(tmp_path, people), PoseTask.validate, []
    overrides = [folder_is(tmp_path / "killed"), "run.workers=1", "run.save_every=2"]

    def killed(self: PoseTask, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # in the second epoch's validation, when its steps are in the checkpoint already
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *arguments)

    def child() -> None:
        monkeypatch.setattr(PoseTask, "validate", killed)
        run(recipe, overrides)

    assert forked([child]) == [-signal.SIGKILL]
    state = state_of(tmp_path / "killed")
    assert (state["step"], state["validated"]) == (4, 1)
    run(recipe, overrides, resume=True)
    run(recipe, [folder_is(tmp_path / "whole")])
    assert_same(state_of(tmp_path / "whole"), state_of(tmp_path / "killed"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    recipe, plain = write_recipe(tmp_path, people), PoseTask.loss

    def interrupted(self: PoseTask, *arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return plain(self, *arguments)

    handler = signal.getsignal(number)
    monkeypatch.setattr(PoseTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe)
    assert signal.getsignal(number) is handler
    assert "step 1 of 4 is in" in capsys.readouterr().out and state_of(tmp_path / "run")["step"] == 1


def test_resume_refuses_what_is_not_the_same_run(tmp_path: Path, people: Path) -> None:
    recipe = write_recipe(tmp_path, people)
    with pytest.raises(PosezooError, match="nothing to resume"):
        run(recipe, resume=True)
    run(recipe, ["schedule.epochs=1"])
    with pytest.raises(PosezooError, match=r"holds mobile_pose_fpn_1\.0, the recipe asks for simple_pose_resnet18_v1b"):
        run(recipe, ["schedule.epochs=1", "model.arch='simple_pose_resnet18_v1b'"], resume=True)
    with pytest.raises(PosezooError, match=r"another recipe: optimiser\.lr 0\.003 -> 0\.1; schedule\.epochs 1 -> 2\. "):
        run(recipe, ["optimiser.lr=0.1"], resume=True)
    content = json.loads((people / "people.json").read_text())
    content["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(content))
    fewer = f"data.train.annotations='{(tmp_path / 'fewer.json').as_posix()}'"
    with pytest.raises(PosezooError, match=r"another recipe: data\.train\.0\.annotations"):
        run(recipe, ["schedule.epochs=1", fewer], resume=True)
    same = tmp_path / "same"
    same.mkdir()
    for file in people.iterdir():
        (same / file.name).write_bytes(file.read_bytes())
    (same / "people.json").write_text(json.dumps(content))
    with pytest.raises(PosezooError, match="was learning from 6 samples, the data now has 5"):
        run(recipe, ["schedule.epochs=1", f"data.root='{same.as_posix()}'"], resume=True)
    for damage, message in ((b"", "cannot resume"), (b"x" * 100, "cannot resume")):
        (tmp_path / "run" / "last.pt").write_bytes(damage)
        with pytest.raises(PosezooError, match=message) as caught:
            run(recipe, ["schedule.epochs=1"], resume=True)
        assert len(str(caught.value).splitlines()) == 1
    torch.save({"arch": "x"}, tmp_path / "run" / "last.pt")
    with pytest.raises(PosezooError, match="not a checkpoint of a posezoo run"):
        run(recipe, ["schedule.epochs=1"], resume=True)


def test_what_does_not_change_the_result_may_change() -> None:
    old = {"name": "a", "run": {"folder": "x", "seed": 1, "workers": 0}, "data": {"root": "a", "train": [{"share": 1}]}}
    new = {"name": "b", "run": {"folder": "y", "seed": 1, "workers": 8}, "data": {"root": "b", "train": [{"share": 2}]}}
    assert differences(old, new) == ["data.train.0.share 1 -> 2"]
    assert differences(old, old | {"run": {"seed": 2}}) == ["run.seed 1 -> 2"]


# ---- what goes wrong


def test_a_loss_that_is_no_number_keeps_the_batch(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = PoseTask.loss, []

    def broken(self: PoseTask, *arguments: Any) -> Any:
        calls.append(1)
        loss, figures = plain(self, *arguments)
        return (loss * float("nan") if len(calls) == 6 else loss), figures

    monkeypatch.setattr(PoseTask, "loss", broken)
    with pytest.raises(PosezooError, match=r"loss is nan at step 1; the batch is in .*bad_batch\.pt"):
        run(write_recipe(tmp_path, people), ["optimiser.accumulate=3", "run.save_every=1"])
    batch = torch.load(tmp_path / "run" / "bad_batch.pt", weights_only=True)
    assert batch["crop"].shape == (1, 3, 64, 64)
    kept = state_of(tmp_path / "run")
    assert kept["step"] == 1 and all(torch.isfinite(t.float()).all() for t in kept["model"].values())


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path, people: Path) -> None:
    recipe = write_recipe(tmp_path, people)
    run(recipe, ["schedule.epochs=1"])
    before = (tmp_path / "run" / "last.pt").read_bytes()
    state = state_of(tmp_path / "run")
    from posezoo.train.checkpoint import write_state

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # a disk that is full half way
    try:
        with pytest.raises(PosezooError, match=r"cannot write .*last\.pt: File too large") as caught:
            write_state(tmp_path / "run", load_recipe(recipe), state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]


def test_no_memory_says_which_sizes_to_try(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(PoseTask, "loss", greedy)
    expected = r"out of memory with 6 samples a pass: try optimiser\.accumulate=2 \(3 a pass, the same steps\), "
    with pytest.raises(PosezooError, match=expected + r"run\.precision=bf16, or optimiser\.batch_size=3$"):
        run(write_recipe(tmp_path, people), ["optimiser.batch_size=6"])
    with pytest.raises(PosezooError, match="with one sample a pass: take a smaller input"):
        run(write_recipe(tmp_path, people), ["optimiser.accumulate=3"])


def test_a_damaged_picture_is_one_line_even_from_a_worker(tmp_path: Path) -> None:
    folder = write_people(tmp_path)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    recipe = write_recipe(tmp_path, folder)
    text = recipe.read_text().replace("validate =", "# validate =")
    recipe.write_text(text)
    with pytest.raises(PosezooError, match=r"cannot read .*3\.png") as caught:
        run(recipe, ["run.workers=1"])
    assert len(str(caught.value).splitlines()) == 1 and "Traceback" not in str(caught.value)


def test_too_few_processes_of_the_wrong_number_is_an_error(tmp_path: Path, people: Path) -> None:
    with pytest.raises(PosezooError, match="accumulate"):
        run(write_recipe(tmp_path, people), ["optimiser.accumulate=2"])


# ---- many devices, many passes, other precisions


def after(folder: Path) -> dict[str, Any]:
    return state_of(folder)["model"]


def assert_close(a: dict[str, Any], b: dict[str, Any], tolerance: float) -> None:
    for key, tensor in a.items():
        torch.testing.assert_close(tensor, b[key], rtol=0, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")


def uneven(folder: Path) -> Path:
    """People of whom each has another number of labelled joints."""
    write_people(folder)
    content = json.loads((folder / "people.json").read_text())
    for n, person in enumerate(content["annotations"]):
        person["keypoints"][3 * (17 - 2 * n) :] = [0] * (6 * n)
    (folder / "people.json").write_text(json.dumps(content))
    return folder


SHARED = ["optimiser.batch_size=6", "optimiser.name='sgd'", "optimiser.lr=0.01", "optimiser.clip=1",
          "schedule.epochs=3", "model.keep_norm=true", "run.device='cpu'", "augment.flip=0.3"]  # fmt: skip


def test_a_step_in_passes_is_the_step_in_one(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, uneven(tmp_path))
    for passes in (1, 3):
        run(recipe, [*SHARED, folder_is(tmp_path / str(passes)), f"optimiser.accumulate={passes}"])
    assert_close(after(tmp_path / "1"), after(tmp_path / "3"), 2e-6)
    torch.manual_seed(0)
    start, end = build("mobile_pose_fpn_1.0", 17).state_dict(), after(tmp_path / "1")
    assert max(float((end[key] - start[key]).abs().max()) for key in start) > 1e-3


def places(count: int) -> list[dict[str, str]]:
    """What torchrun would tell each of so many processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)]


def forked(children: list[Callable[[], object]]) -> list[int]:
    """Each in a process of its own, all at once; exit codes, negative for a signal."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # they do not survive a fork
    started = []
    for child in children:
        number = os.fork()
        if not number:
            code = 1
            try:
                child()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        started.append(number)
    codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in started]
    cv2.setNumThreads(threads)
    return codes


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, uneven(tmp_path))
    run(recipe, [*SHARED, folder_is(tmp_path / "one")])

    def child(place: dict[str, str]) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent's, of one process
        os.environ.update(place)
        run(recipe, [*SHARED, folder_is(tmp_path / "two")])

    assert forked([partial(child, place) for place in places(2)]) == [0, 0]
    one, two = (state_of(tmp_path / name) for name in ("one", "two"))
    assert len(two["random"]) == 2 and two["step"] == one["step"] == 3
    assert_close(one["model"], two["model"], 2e-6)
    assert_close(one["ema"], two["ema"], 2e-6)
    assert (tmp_path / "two" / "log.csv").read_text().count("validate,AP,") == 3


@pytest.mark.slow
def test_the_command_in_two_processes_with_passes_and_workers(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, uneven(tmp_path))
    how = [*SHARED[1:], "optimiser.batch_size=4", "optimiser.accumulate=2", "run.workers=1", "run.save_every=1"]
    run(recipe, [*how, folder_is(tmp_path / "one")])
    command = [sys.executable, "-m", "posezoo", "train", str(recipe), *how, folder_is(tmp_path / "two")]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        for place in places(2)
    ]
    for process in started:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert_close(after(tmp_path / "one"), after(tmp_path / "two"), 2e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_its_scale_is_kept(tmp_path: Path, people: Path, precision: str) -> None:
    run(write_recipe(tmp_path, people), [f"run.precision='{precision}'", "schedule.epochs=1"])
    state = state_of(tmp_path / "run")
    assert {t.dtype for t in state["model"].values() if t.is_floating_point()} == {torch.float32}
    assert bool(state["scaler"]) == (precision == "fp16")
    losses = [row[3] for row in read_log(tmp_path / "run") if row[2] == "loss"]
    assert len(losses) == 2 and np.isfinite(losses).all()


@pytest.mark.slow
def test_a_compiled_network_writes_the_same_kind_of_file(tmp_path: Path, people: Path) -> None:
    run(write_recipe(tmp_path, people), ["run.compile=true", "schedule.epochs=1"])
    load_weights(build("mobile_pose_fpn_1.0", 17), tmp_path / "run" / "best.safetensors")


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_optimisers_have_the_recipes_rates(tmp_path: Path, name: str) -> None:
    overrides = [f"optimiser.name='{name}'", "optimiser.lr=0.1", "optimiser.lr_batch_size=12", "optimiser.momentum=0.5",
                 "optimiser.backbone_lr=0.5", "optimiser.weight_decay=0.01"]  # fmt: skip
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), overrides)
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    optimiser = make_optimiser(recipe, model)
    found = {(round(g["lr"], 6), g["weight_decay"]) for g in optimiser.param_groups}
    assert found == {(0.025, 0.01), (0.025, 0.0), (0.0125, 0.01), (0.0125, 0.0)}
    assert type(optimiser).__name__.lower() == name
    if name in ("sgd", "rmsprop"):
        assert {g["momentum"] for g in optimiser.param_groups} == {0.5}
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(PosezooError, match="nothing to learn"):
        make_optimiser(recipe, model)


def test_the_average_is_the_average() -> None:
    model = torch.nn.BatchNorm1d(2)
    ema = Ema(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(float(step % 7))
            model.num_batches_tracked.fill_(step)
        ema.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step % 7)
    torch.testing.assert_close(ema.module.weight.detach(), expected)
    assert ema.module.num_batches_tracked == 199 and not ema.module.training


# ---- what a run leaves behind


def test_the_best_are_ranked_and_say_what_they_are(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    best = Best(tmp_path, most=3)
    for epoch, score in enumerate([0.2, float("nan"), 0.5, 0.5, 0.1, 0.3], 1):
        model.weight.data.fill_(epoch)
        best.offer(model, score, epoch, {"score": f"AP {score}"})
    assert best.ranking == [(0.5, 3), (0.5, 4), (0.3, 6)]
    for rank, (score, epoch) in enumerate(best.ranking, 1):
        with safe_open(tmp_path / f"best-{rank}.safetensors", "pt") as file:
            assert file.metadata() == {"score": f"AP {score}", "epoch": str(epoch)}
            assert float(file.get_tensor("weight")) == epoch
    assert (tmp_path / "best.safetensors").read_bytes() == (tmp_path / "best-1.safetensors").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"best-{n}.safetensors" for n in (1, 2, 3)] + [
        "best.safetensors"
    ]
    least = Best(tmp_path / "least", most=1, larger_is_better=False)
    assert [least.offer(model, score, n, {}) for n, score in enumerate([3.0, 4.0, 2.0, 2.0])] == [
        True,
        False,
        True,
        False,
    ]


def test_a_run_leaves_weights_that_say_what_they_are_a_log_and_a_card(
    tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(write_recipe(tmp_path, people), ["run.keep_best=2", "optimiser.lr_batch_size=6"])
    told = capsys.readouterr().out
    assert "learning rate 0.0015 for 3 samples a step, in proportion to 0.003 for 6" in told
    assert "tiny epoch 2/2: AP " in told and "images/s" in told and " left" in told
    with safe_open(folder / "best.safetensors", "pt") as file:
        facts = file.metadata()
    expected = {"recipe": "tiny", "arch": "mobile_pose_fpn_1.0", "skeleton": "coco17", "input_size_wh": "64 64",
                "codec": "heatmap-quarter", "mean": "0.485 0.456 0.406", "std": "0.229 0.224 0.225", "channels": "rgb",
                "box_scale": "1.25", "flip_shift": "true"}  # fmt: skip
    assert expected.items() <= facts.items() and facts["score"].startswith("AP ") and facts["epoch"] in "12"
    load_weights(build("mobile_pose_fpn_1.0", 17), folder / "best-2.safetensors")
    with (folder / "log.csv").open() as file:
        assert next(csv.reader(file)) == ["step", "phase", "name", "value"]
    names = {row[2] for row in read_log(folder) if row[1] == "train"}
    assert names >= {"loss", "oks", "lr", "images_per_s", "data_wait", "eta_s"}
    assert list((folder / "tensorboard").glob("events*"))
    card = (folder / "card.md").read_text()
    digest = hashlib.sha256((people / "people.json").read_bytes()).hexdigest()
    weights = hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()
    for fact in (digest, weights, "best-2.safetensors", "annotated boxes, no flip", "torch ", "command", '"lr": 0.003'):
        assert fact in card, fact
    assert "| training | COCO-style |" in card and "| 6 | 6 |" in card
    curves = cv2.imread(str(folder / "curves.png"))
    assert curves.shape == (660, 1040, 3) and (curves < 200).any()
    # the same again from what it left: nothing to do but to tell
    before = after(folder)
    run(tmp_path / "recipe.toml", ["run.keep_best=2", "optimiser.lr_batch_size=6"], resume=True)
    assert_same(before, after(folder))


def test_facts_name_the_entry_only_where_the_network_can_stand_in_for_it() -> None:
    row = "simple_pose_resnet18_v1b"
    found = facts_of(load_recipe(row))
    assert found["name"] == load_recipe(row).entry and found["flip_shift"] in ("true", "false")
    assert "name" not in facts_of(load_recipe(row, ["input.size_wh=[64, 64]"]))


def test_without_anything_to_validate_on_the_newest_weights_are_the_best(tmp_path: Path, people: Path) -> None:
    recipe = write_recipe(tmp_path, people)
    recipe.write_text(recipe.read_text().replace("validate =", "# validate ="))
    folder = run(recipe, ["optimiser.ema=0"])
    assert_same(state_of(folder)["best"], [(1.0, 2)])
    assert "Nothing was measured" in (folder / "card.md").read_text()


def test_a_meter_knows_speed_waiting_and_the_end() -> None:
    clock = [0.0]
    meter = Meter(batch_size=8, now=lambda: clock[0])
    for _ in range(4):
        with meter.waiting():
            clock[0] += 0.5
        clock[0] += 1.5
        meter.step()
    with meter.paused():
        clock[0] += 100
    assert meter.figures(steps_left=10) == {"images_per_s": 4.0, "data_wait": 0.25, "eta_s": 20.0}
    assert [duration(s) for s in (3.4, 65, 3700, 100_000)] == ["3 s", "1 min 5 s", "1 h 1 min", "1 d 3 h"]


def test_curves_are_drawn_where_the_numbers_are() -> None:
    line = [(float(n), float(n % 5)) for n in range(50)]
    panel = Panel("loss", {"a": line, "b": [(x, float("nan")) for x, _ in line]}, best=(10.0, 4.0))
    image = draw([panel, panel, Panel("empty", {}), Panel("one", {"a": [(3.0, 2.0)]})])
    assert image.shape == (660, 1040, 3) and image.dtype == np.uint8
    assert ((image == (0, 114, 178)).all(axis=2)).any()
    assert smooth([(0, 1.0), (1, 3.0)], share=2) == [(0.0, 2.0), (1.0, 2.0)] and smooth([]) == []
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3, 7) == [-2, 0, 2, 4, 6]
