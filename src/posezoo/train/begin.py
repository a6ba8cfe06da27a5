"""Before a run: which processes it is of, and its folder, which no other run may have."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from posezoo.errors import PosezooError
from posezoo.lock import locked
from posezoo.train.checkpoint import check_start
from posezoo.train.recipe import Recipe

_PATIENCE = datetime.timedelta(hours=2)  # of the other processes while the first one validates
_LETS_GO_S = 2.0  # in which the loader's processes of a run that was killed are gone


def join(recipe: Recipe) -> Accelerator:
    """The devices of a run, and its other processes."""
    # without a GPU, accelerate joins several processes only if it is told that there is none
    cpu = recipe.run.device == "cpu" or not torch.accelerator.is_available()
    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[patience])


@contextmanager
def begun(folder: Path, resume: bool, accelerator: Accelerator) -> Iterator[bool]:
    """The run's folder for this run alone, and whether it goes on there, see `checkpoint.check_start`.

    The main process finds out, and all of them hear of it: none waits for one that has given up.

    Raises:
        PosezooError: as `locked` and `check_start` do, in every process.
    """
    with ExitStack() as held:
        told: list[Any] = [None]
        if accelerator.is_main_process:
            try:
                if not folder.exists():  # what is refused leaves no folder behind
                    check_start(folder, resume)
                held.enter_context(locked(folder, "run.folder", patience_s=_LETS_GO_S))
                told = [check_start(folder, resume)]
            except PosezooError as err:
                told = [str(err)]
        if isinstance(goes_on := broadcast_object_list(told)[0], str):
            raise PosezooError(goes_on)
        yield goes_on
