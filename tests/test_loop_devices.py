"""The training loop on many devices, in many passes and other precisions, and what a run says."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from loop_fixtures import _tiny_networks, apart, folder_is, people, recipe, state_of  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import ARCHS, build  # noqa: E402
from posezoo.train import run  # noqa: E402
from posezoo.train.log import Meter, duration, read_log  # noqa: E402
from posezoo.train.network import Ema  # noqa: E402
from posezoo.train.optimise import make_optimiser  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from tiny_runs import TINY, write_people, write_recipe  # noqa: E402

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


@pytest.fixture(scope="module")
def uneven_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uneven")
    return write_recipe(folder, uneven(folder), arch="tiny")


@pytest.fixture(scope="module")
def in_one_pass(tmp_path_factory: pytest.TempPathFactory, uneven_recipe: Path) -> Path:
    return run(uneven_recipe, [*SHARED, folder_is(tmp_path_factory.mktemp("one"))])


def test_a_step_in_passes_is_the_step_in_one(tmp_path: Path, uneven_recipe: Path, in_one_pass: Path) -> None:
    run(uneven_recipe, [*SHARED, folder_is(tmp_path), "optimiser.accumulate=3"])
    assert_close(after(in_one_pass), after(tmp_path), 2e-6)
    torch.manual_seed(0)
    start, end = build("tiny", 17).state_dict(), after(in_one_pass)
    assert max(float((end[key] - start[key]).abs().max()) for key in start) > 1e-3


def places(count: int) -> list[dict[str, str]]:
    """What torchrun would tell each of so many processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)]


def run_in_place(place: dict[str, str], recipe: Path, overrides: list[str]) -> None:
    os.environ.update(place)
    ARCHS.update(TINY)
    run(recipe, overrides)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, uneven_recipe: Path, in_one_pass: Path) -> None:
    overrides = [*SHARED, folder_is(tmp_path)]
    if not torch.cuda.is_available():
        overrides.append("run.device='auto'")  # there is but the CPU: they are to find out, and to find each other
    assert apart([partial(run_in_place, place, uneven_recipe, overrides) for place in places(2)]) == [0, 0]
    one, two = state_of(in_one_pass), state_of(tmp_path)
    assert len(two["random"]) == 2 and two["step"] == one["step"] == 3
    assert_close(one["model"], two["model"], 2e-6)
    assert_close(one["ema"], two["ema"], 2e-6)
    assert (tmp_path / "log.csv").read_text().count("validate,AP,") == 3


def in_two_processes(command: list[str]) -> list[tuple[int, str]]:
    """Of each process of a command its exit code, and what it says on stderr."""
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        for place in places(2)
    ]
    told = [process.communicate(timeout=300)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


@pytest.mark.slow
def test_the_command_in_two_processes_with_passes_and_workers(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, uneven(tmp_path))
    how = [*SHARED[1:], "optimiser.batch_size=4", "optimiser.accumulate=2", "run.workers=1", "run.save_every=1"]
    run(recipe, [*how, folder_is(tmp_path / "one")])
    command = [sys.executable, "-m", "posezoo", "train", str(recipe), *how, folder_is(tmp_path / "two")]
    for code, told in in_two_processes(command):
        assert code == 0, told
    assert_close(after(tmp_path / "one"), after(tmp_path / "two"), 2e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_its_scale_is_kept(tmp_path: Path, recipe: Path, precision: str) -> None:
    run(recipe, [folder_is(tmp_path), f"run.precision='{precision}'", "schedule.epochs=1"])
    state = state_of(tmp_path)
    assert {t.dtype for t in state["model"].values() if t.is_floating_point()} == {torch.float32}
    assert bool(state["scaler"]) == (precision == "fp16")
    losses = [row[3] for row in read_log(tmp_path) if row[2] == "loss"]
    assert len(losses) == 2 and np.isfinite(losses).all()


@pytest.mark.slow
def test_a_compiled_network_learns_and_writes_the_same_kind_of_file(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = torch.nn.Module.compile, []

    def traced(model: torch.nn.Module) -> None:
        compiled.append(model)
        plain(model, backend="eager")

    # traced, and then run as it is: what the compiler makes of it is not ours to test, and takes minutes
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    for name in ("plain", "compiled"):
        run(recipe, ["schedule.epochs=1", folder_is(tmp_path / name), f"run.compile={str(name == 'compiled').lower()}"])
    assert len(compiled) == 1
    assert_close(after(tmp_path / "plain"), after(tmp_path / "compiled"), 1e-5)
    kept = [load_file(tmp_path / name / "best.safetensors") for name in ("plain", "compiled")]
    assert kept[0].keys() == kept[1].keys() == build("tiny", 17).state_dict().keys()


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_optimisers_have_the_recipes_rates(tmp_path: Path, name: str) -> None:
    overrides = [f"optimiser.name='{name}'", "optimiser.lr=0.1", "optimiser.lr_batch_size=12", "optimiser.momentum=0.5",
                 "optimiser.backbone_lr=0.5", "optimiser.weight_decay=0.01"]  # fmt: skip
    recipe = load_recipe(write_recipe(tmp_path, tmp_path), overrides)
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    optimiser = make_optimiser(recipe, model)
    found = {(round(g["lr"], 6), g["weight_decay"]) for g in optimiser.param_groups}
    assert found == {(0.025, 0.01), (0.025, 0.0), (0.0125, 0.01), (0.0125, 0.0)}
    assert {round(g["peak"], 6) for g in make_optimiser(recipe, model, 6).param_groups} == {0.05, 0.025}
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


# ---- what a run says


def test_the_first_lines_say_what_is_unexpected(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["optimiser.batch_size=8", "optimiser.lr_batch_size=16", "optimiser.accumulate=6", "schedule.epochs=1"]
    run(recipe, [folder_is(tmp_path), "run.log_every=20", *how])
    told = capsys.readouterr().out
    for line in (
        "6 samples; 1 epoch of 1 step of 6",
        "a step takes every sample there is: 6, not 8",
        "learning rate 0.001125 for 6 samples a step, in proportion to 0.003 for 16",
        "a step is 1 device x 6 passes of 1 sample",
        "BatchNorm takes its statistics from 1 sample, not from the whole step",
    ):
        assert line in told.splitlines()
    # an epoch of fewer steps than `log_every` is logged at its end all the same
    assert "epoch 1/1: AP " in told and " loss " in told and "images/s" in told and " left" in told
    assert [row[0] for row in read_log(tmp_path) if row[2] == "loss"] == [1]
    assert [row[3] for row in read_log(tmp_path) if row[2] == "lr"] == [0.001125]


def test_a_meter_knows_speed_waiting_and_the_end() -> None:
    clock = [0.0]
    meter = Meter(batch_size=8, now=lambda: clock[0])
    for n in range(4):
        with meter.waiting():
            clock[0] += 0.5 if n else 30  # the first time, the loader starts
        clock[0] += 1.5
        meter.step()
    with meter.paused():
        clock[0] += 100
    assert meter.figures(steps_left=10) == {"images_per_s": 32 / 7.5, "data_wait": 0.2, "eta_s": 18.75}
    assert [duration(s) for s in (3.4, 65, 3700, 100_000)] == ["3 s", "1 min 5 s", "1 h 1 min", "1 d 3 h"]
