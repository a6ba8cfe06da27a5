"""A run for which there is no room: on its way to the device, in a step, and where it is judged."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from loop_fixtures import _tiny_networks, folder_is, people, recipe, state_of  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.train import checkpoint, pose, run  # noqa: E402
from posezoo.train.detect import DetectTask  # noqa: E402
from posezoo.train.optimise import Learner  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from tiny_runs import write_recipe  # noqa: E402

ONE = ["schedule.epochs=1"]


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def full_for(size: int) -> tuple[Callable[..., Any], list[int]]:
    """A runtime of a GPU that holds batches of fewer than `size`, and what it will have been given."""
    plain, seen = pose.TorchRuntime, []

    class Greedy(torch.nn.Module):
        def __init__(self, network: torch.nn.Module):
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return full() if len(images) >= size else self.network(images)

    return (lambda model, device: plain(Greedy(model), device)), seen


def test_a_network_that_does_not_go_to_the_device(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.nn.Module.to

    def to(self: torch.nn.Module, *given: Any, **named: Any) -> Any:
        return full() if given and isinstance(given[0], torch.device) else plain(self, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(PosezooError, match=r"out of memory with the network alone: see what else uses it$"):
        run(recipe, [folder_is(tmp_path)])


def test_samples_that_do_not_go_to_the_device_can_be_gone_on_with(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = torch.Tensor.to, []

    def to(self: torch.Tensor, *given: Any, **named: Any) -> Any:
        if "non_blocking" in named:
            calls.append(1)
        return full() if len(calls) > 5 else plain(self, *given, **named)  # in the second step

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", to)
        expected = r"out of memory with the next samples: see what else uses it\. Step 1 is saved: .*--resume goes on"
        with pytest.raises(PosezooError, match=expected):
            run(recipe, [folder_is(tmp_path), *ONE])
    run(recipe, [folder_is(tmp_path), *ONE], resume=True)
    assert state_of(tmp_path)["validated"] == 1


def test_judging_halves_its_batch_until_there_is_room(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["optimiser.batch_size=6", *ONE]
    wanted = state_of(run(recipe, [folder_is(tmp_path / "roomy"), *how]))["best"]
    greedy, seen = full_for(2)
    monkeypatch.setattr(pose, "TorchRuntime", greedy)
    found = state_of(run(recipe, [folder_is(tmp_path / "full"), *how]))["best"]
    assert found == wanted and seen == [6, 3, 1, 1, 1, 1, 1, 1]


def test_judging_without_any_room_says_what_a_resumed_run_may_change(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pose, "TorchRuntime", full_for(1)[0])
        expected = r"out of memory while the network is judged: see what else uses it\. Step 2 is saved: mend this"
        with pytest.raises(PosezooError, match=expected) as caught:
            run(recipe, [folder_is(tmp_path), *ONE])
    assert "--batch-size" not in str(caught.value)
    run(recipe, [folder_is(tmp_path), *ONE], resume=True)
    assert state_of(tmp_path)["validated"] == 1


def test_on_a_gpu_the_way_out_is_one_that_resume_takes(recipe: Path) -> None:
    learner: Any = object.__new__(Learner)
    learner.accelerator = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(
        PosezooError, match=r"the GPU is out of memory now: see what else uses it, or set run\.device=cpu$"
    ):
        with learner.room("now"):
            full()
    assert "run.device" in checkpoint.FREE


def test_a_detector_is_judged_with_the_same_care(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, people, "detect")
    monkeypatch.setattr(DetectTask, "validate", full)
    with pytest.raises(PosezooError, match=r"out of memory while the network is judged: .* Step 2 is saved"):
        run(path, ONE)


@pytest.mark.parametrize(("devices", "accumulate", "expected"), [(1, 1, 32), (1, 4, 16), (4, 2, 8), (64, 4, 1)])
def test_no_more_are_judged_than_learn_together(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, devices: int, accumulate: int, expected: int
) -> None:
    monkeypatch.setattr(pose.distributed, "is_initialized", lambda: devices > 1)
    monkeypatch.setattr(pose.distributed, "get_world_size", lambda: devices)
    given = load_recipe(recipe, ["optimiser.batch_size=64", f"optimiser.accumulate={accumulate}"])
    judge = pose.PoseTask(given)._judge
    assert judge is not None and judge.trainee.batch_size == expected
