"""The recipes in the repository are valid, and name networks and codecs that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from posezoo.train.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid(path: Path) -> None:
    pytest.importorskip("torch")
    from posezoo.models.build import ARCHS

    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.run.folder == Path("runs") / path.stem
    assert recipe.model.arch in ARCHS


def test_there_are_recipes() -> None:
    assert {"embedded_pose", "embedded_pose_tune", "embedded_detector"} <= {path.stem for path in RECIPES}
