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
        resume: go on from the last checkpoint of the run's folder, exactly where it stood.
        dry_run: print the recipe with every default filled in, as JSON, and stop.

    Returns:
        The run's folder.

    Raises:
        PosezooError: a mistake in the recipe, the data or the checkpoint.
    """
    from posezoo.errors import require
    from posezoo.train.recipe import load_recipe

    resolved = load_recipe(recipe, overrides)
    if dry_run:
        print(resolved.model_dump_json(indent=2))
        return Path(resolved.run.folder)
    for module in ("torch", "accelerate"):
        require(module, "train", "training")
    from posezoo.train.loop import train

    return train(resolved, resume)
