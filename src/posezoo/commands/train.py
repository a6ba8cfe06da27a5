"""`posezoo train`: from a recipe to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posezoo.terminal import guard


@guard
def train_command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train, on what, and how.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to replace.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train a network by a recipe.

    Needs the extra: pip install 'posezoo[train]'

    Example:  posezoo train recipes/embedded_pose.toml schedule.epochs=3
    """
    from posezoo.train import run

    run(recipe, tuple(overrides or ()), resume=resume, dry_run=dry_run)
