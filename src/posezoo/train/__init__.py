"""Training: a recipe (TOML) -> the loop around accelerate -> weights, logs and figures in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def run(
    recipe: str | os.PathLike[str], overrides: Sequence[str] = (), resume: bool = False, dry_run: bool = False
) -> Path:
    """Train what `recipe` describes.

    Args:
        recipe: a TOML file, a row or a file of `recipes/`, or any name of a model of the zoo.
        overrides: `key=value`, dotted keys, values as TOML (`schedule.epochs=3`).
        resume: go on from the last checkpoint of the run's folder; on a CPU, as if nothing had broken it off.
        dry_run: print what `posezoo train --dry-run --json` prints, the whole recipe and its plan, and stop.

    Returns:
        The run's folder.

    Raises:
        PosezooError: a mistake in the recipe, the data or the checkpoint.
    """
    from posezoo.errors import require
    from posezoo.train.rows import resolve

    resolved = resolve(recipe, overrides)
    if dry_run:
        from posezoo.terminal import print_json
        from posezoo.train.plan import as_json

        print_json(as_json(resolved))
        return Path(resolved.recipe.run.folder)
    for module in ("torch", "accelerate"):
        require(module, "train", "training")
    from posezoo.train.loop import train

    return train(resolved.recipe, resume)
