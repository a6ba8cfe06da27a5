"""`posezoo train`: from a recipe to weights."""

from __future__ import annotations

from typing import Annotated

import typer

from posezoo.errors import PosezooError
from posezoo.terminal import AsJson, guard, print_fields, print_json, print_table
from posezoo.words import counted


@guard
def train_command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A row or file of recipes/, a .toml file, or a model of the zoo."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to replace.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    list_rows: Annotated[
        bool, typer.Option("--list", help="List the recipes; with RECIPE, those with this text in them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network by a recipe.

    Needs the extra: pip install 'posezoo[train]'

    Example:  posezoo train mmpose_res50_coco_256x192 data.root=datasets optimiser.batch_size=64
    """
    if list_rows:
        _print_rows(recipe, as_json)
        return
    if recipe is None:
        raise PosezooError("which recipe? posezoo train --list shows them all; a .toml file of your own does, too")
    if "=" in recipe:
        raise PosezooError(f"'{recipe}' is an override: the recipe comes first, such as mmpose_res50_coco_256x192")
    if not dry_run:
        if as_json:
            raise PosezooError("--json is for --dry-run and --list")
        from posezoo.train import run

        run(recipe, tuple(overrides or ()), resume=resume)
        return
    from posezoo.train import plan
    from posezoo.train.rows import resolve

    resolved = resolve(recipe, tuple(overrides or ()))
    if as_json:
        print_json(plan.as_json(resolved))
    else:
        print_fields(plan.fields(resolved))
        typer.echo(f"\n{plan.as_toml(resolved)}")


def _print_rows(text: str | None, as_json: bool) -> None:
    from posezoo.train.plan import row_dict, row_table, select_rows

    rows = select_rows(text)
    if not rows:
        raise PosezooError(f"no recipe has '{text}' in its name, file, model or dataset")
    if as_json:
        print_json([row_dict(row) for row in rows])
        return
    print_table(*row_table(rows))
    typer.echo(f"{counted(len(rows), 'recipe')}; batch is samples a step, over all devices.")
