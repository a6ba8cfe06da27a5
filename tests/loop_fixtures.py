"""A tiny recipe that the tests of the training loop run, and what they read of a run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")


from posezoo.models.build import ARCHS  # noqa: E402
from tiny_runs import TINY, write_people, write_recipe  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _tiny_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, make in TINY.items():
            patch.setitem(ARCHS, name, make)
        yield


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, people: Path) -> Path:
    """Of a tiny network; where its run goes, a test says with `folder_is`."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), people, arch="tiny")


def is_at(key: str, path: Path) -> str:
    return f"{key}='{path.as_posix()}'"


def folder_is(path: Path) -> str:
    return is_at("run.folder", path)


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


def apart(children: list[Callable[[], object]]) -> list[int]:
    """Each in a process of its own, all at once; exit codes, negative for a signal.

    They come of a server that has loaded what they need: a fork of this process would have the threads of whatever
    other tests have loaded, or rather lack them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started = [context.Process(target=child) for child in children]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode if process.exitcode is not None else 0 for process in started]
