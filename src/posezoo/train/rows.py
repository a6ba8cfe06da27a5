"""Where recipes are found, and how a row of a family's file becomes a whole recipe.

A file of `recipes/` is one recipe, or a family of them: what all of its rows share, `[kinds.NAME]` for what some share,
and `[rows]`, each with the little that sets it apart and, as `like`, its kinds. What a network is and sees stands in
its entry of the zoo already: the one whose `recipe` names the row, or that the row names itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import posezoo
from posezoo import toml
from posezoo.errors import PosezooError, UnknownNameError, unknown_name
from posezoo.train.fit import check_fit
from posezoo.train.recipe import Recipe, parse, takes_text
from posezoo.zoo import get_entry, list_models
from posezoo.zoo.entry import TASKS, Entry

Layer = tuple[str, Mapping[str, Any]]  # whose values these are, and the values
Origins = dict[tuple[str, ...], str]
_HINT = "(posezoo train --list shows them all)"
_SOURCES = (["data", "train"], ["data", "validate"])


@dataclass(frozen=True)
class Row:
    """One recipe, before it is put together.

    Attributes:
        name: what it is called: a row's name, or a file's without its suffix.
        file: where it stands.
        entry: the entry of the zoo that it makes, or None.
        layers: its tables, each laid over those before.
    """

    name: str
    file: Path
    entry: Entry | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Resolved:
    """A whole recipe, and where its values come from.

    Attributes:
        recipe: the recipe.
        row: what it was made of.
        origins: of each value that is no default, by its path, such as ("optimiser", "lr").
    """

    recipe: Recipe
    row: Row
    origins: Origins


def folder() -> Path:
    """Where the recipes of this installation are."""
    package = Path(posezoo.__file__).parent
    return next((p for p in (package / "recipes", package.parents[1] / "recipes") if p.is_dir()), package / "recipes")


def read_rows(path: Path) -> dict[str, Row]:
    """The recipes of one file, by name.

    Raises:
        PosezooError: it cannot be read, a row is like an unknown kind, or the zoo has no such entry.
    """
    content = toml.load(path)
    if "rows" not in content:
        # such a file says everything itself
        return {path.stem: Row(path.stem, path, None, ((path.name, content),))}
    rows, kinds = content.pop("rows"), content.pop("kinds", {})
    return {name: _row(path, name, table, kinds, content) for name, table in rows.items()}


def _row(path: Path, name: str, table: Mapping[str, Any], kinds: Mapping[str, Any], shared: Mapping[str, Any]) -> Row:
    own = {key: value for key, value in table.items() if key not in ("like", "entry")}
    like = table.get("like", ())
    chosen = [like] if isinstance(like, str) else list(like)
    for kind in chosen:
        if kind not in kinds:
            raise PosezooError(f"{path}, row {name}: {unknown_name('kind', kind, kinds)}")
    try:
        entry = get_entry(table["entry"]) if "entry" in table else _made_by().get(name)
    except UnknownNameError as err:
        raise PosezooError(f"{path}, row {name}: {err}") from None
    layers: list[Layer] = [("row's name", {"name": name, "run": {"folder": f"runs/{name}"}})]
    if entry is not None:
        layers.append(("zoo entry", entry_table(entry)))
    layers += [(path.name, shared), *((f"{path.name}, kind {kind}", kinds[kind]) for kind in chosen)]
    layers.append((f"{path.name}, row", own))
    return Row(name, path, entry, tuple(layers))


@cache
def _made_by() -> dict[str, Entry]:
    """The entry that each recipe makes.

    Raises:
        PosezooError: two entries name one recipe.
    """
    found: dict[str, Entry] = {}
    for entry in (get_entry(name) for task in TASKS for name in list_models(task=task)):
        if entry.recipe is None:
            continue
        if entry.recipe in found:
            raise PosezooError(f"{entry.name} and {found[entry.recipe].name} both say recipe = '{entry.recipe}'")
        found[entry.recipe] = entry
    return found


def entry_table(entry: Entry) -> dict[str, Any]:
    """What an entry of the zoo says of the training that makes it, as a table of a recipe.

    Raises:
        PosezooError: its codec makes no targets.
    """
    from posezoo.data.catalog import get_dataset

    codec, _, refine = (entry.codec or "heatmap").partition("-")
    if codec != "heatmap":
        target = {"codec": entry.codec}
    elif refine in ("", "quarter", "dark", "dark-udp"):
        target = {"codec": codec, "refine": refine or "none"}
    else:
        raise PosezooError(f"{entry.name} is decoded by {entry.codec}, for which there are no targets to train with")
    return {
        "entry": entry.name,
        "task": "pose" if entry.task == "pose" else "detect",
        "model": {"arch": entry.arch},
        "data": {
            "skeleton": entry.skeleton,
            "train": {"dataset": entry.dataset, "split": "train"},
            "validate": {"dataset": entry.dataset, "split": get_dataset(entry.dataset).split},
        },
        "input": {
            "size_wh": list(entry.input_size_wh),
            "mean": list(entry.mean),
            "std": list(entry.std),
            "channels": entry.channels,
            "box_scale": entry.box_scale,
        },
        "target": target,
    }


@cache
def files() -> dict[str, Path]:
    """The recipe files of this installation, by name without suffix."""
    return {path.stem: path for path in sorted(folder().glob("*.toml"))}


@cache
def list_rows() -> dict[str, Row]:
    """Every recipe of this installation, by name, in the order of the files.

    Raises:
        PosezooError: a file is wrong, or two have a row of one name.
    """
    found: dict[str, Row] = {}
    for path in files().values():
        for name, row in read_rows(path).items():
            if name in found:
                raise PosezooError(f"{path} and {found[name].file} both have a recipe '{name}'")
            found[name] = row
    return found


def find_row(name: str | os.PathLike[str]) -> Row:
    """The recipe of any of its names.

    Args:
        name: a row; a file's name without suffix; a file (`FILE.toml:ROW` for one row of several); or any name that an
            entry of the zoo goes by, for the recipe that makes it.

    Raises:
        PosezooError: there is none, or there are several; the message names the nearest ones.
    """
    text = os.fspath(name)
    before, suffix, row = text.partition(".toml")
    if suffix and (not row or row.startswith(":")):
        return _in_file(Path(before + suffix), row[1:])
    rows = list_rows()
    if text in rows:
        return rows[text]
    if text in files():
        return _in_file(files()[text], "")
    try:
        entry = get_entry(text)
    except UnknownNameError as err:
        if "could be" in str(err):
            raise
        known = [*rows, *files(), *(entry.name for entry in _made_by().values())]
        raise unknown_name("recipe", text, known, _HINT) from None
    return _for_entry(entry)


def _in_file(path: Path, name: str) -> Row:
    rows = read_rows(path)
    if name:
        if name not in rows:
            raise unknown_name(f"row of {path}", name, rows)
        return rows[name]
    if len(rows) > 1:
        some = ", ".join(list(rows)[:3])
        raise PosezooError(f"{path} holds {len(rows)} recipes: name one of them, such as {some} {_HINT}")
    return next(iter(rows.values()))


def _for_entry(entry: Entry) -> Row:
    if entry.recipe is not None:
        if entry.recipe not in list_rows():
            raise unknown_name(f"recipe of {entry.name}", entry.recipe, list_rows(), _HINT)
        return list_rows()[entry.recipe]
    archs = {name: merge(row.layers)[0].get("model", {}).get("arch") for name, row in list_rows().items()}
    same = [name for name, arch in archs.items() if arch == entry.arch]
    advice = f"; these train the same network: {', '.join(same)}" if same else f" {_HINT}"
    raise PosezooError(f"{entry.name} has no recipe of its own{advice}")


def resolve(name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Resolved:
    """The whole recipe of that name, with `key=value` overrides applied.

    Raises:
        PosezooError: as for `find_row`; or a key or a value is wrong, or parts do not fit each other.
    """
    row = find_row(name)
    table, origins = merge([*row.layers, *(layer for text in overrides for layer in _override(text))])
    where = str(row.file) if row.entry is None else f"{row.file}, row {row.name}"
    recipe = parse(table, where)
    check_fit(recipe)
    return Resolved(recipe, row, origins)


def _override(text: str) -> Iterator[Layer]:
    """A layer of one value, from `key=value` with a dotted key.

    A source that is given whole is another one: before it goes all that was known of the one in its place.
    """
    key, sign, given = (part.strip() for part in text.partition("="))
    if not sign or not key:
        raise PosezooError(f"'{text}' is not an override: expected key=value, such as schedule.epochs=3")
    path, value, whose = key.split("."), toml.value(given), f"override {text}"
    if takes_text(path) and not isinstance(value, str | list | dict):
        value = given  # 5.10 is no number here
    for source in _SOURCES:
        if path == source[: len(path)] and isinstance(_at(value, source[len(path) :]), Mapping):
            yield whose, _table(source, "")
    yield whose, _table(path, value)


def _table(path: Sequence[str], value: Any) -> Any:
    """The value under a dotted key."""
    for part in reversed(path):
        value = {part: value}
    return value


def _at(value: Any, path: Sequence[str]) -> Any:
    """What is there under a dotted key, or None."""
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], Origins]:
    """Tables laid over each other, tables within them too; and whose each value is, by its path.

    Raises:
        PosezooError: a layer has a table where one below it has another kind of value.
    """
    merged: dict[str, Any] = {}
    origins: Origins = {}
    for whose, table in layers:
        _lay_over(merged, origins, table, whose, ())
    return merged, origins


def _lay_over(
    into: dict[str, Any], origins: Origins, table: Mapping[str, Any], whose: str, above: tuple[str, ...]
) -> None:
    for key, value in table.items():
        path, old = (*above, key), into.get(key)
        if isinstance(value, Mapping) and old == "":  # taken back before: as if it had not been there
            del into[key]
            origins.pop(path, None)
        if isinstance(value, Mapping) and (isinstance(old, dict) or key not in into):
            _lay_over(into.setdefault(key, {}), origins, value, whose, path)
            continue
        if isinstance(value, Mapping) and not isinstance(old, list):
            raise PosezooError(f"{whose}: '{'.'.join(path)}' is a value, not a table")
        into[key] = deepcopy(value)
        for stale in [known for known in origins if known[: len(path)] == path]:
            del origins[stale]
        origins.update((leaf, whose) for leaf in _leaves(value, path))


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, Mapping):
        yield path
        return
    for key, inner in value.items():
        yield from _leaves(inner, (*path, key))
