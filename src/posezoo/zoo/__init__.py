"""The zoo: every entry that can be listed, built and loaded. Rows are data, in `entries/*.toml`.

A file holds `[defaults]`, whose fields its rows share (`[defaults.score]` those of their scores), and `[[entry]]` rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posezoo import toml
from posezoo.errors import PosezooError, UnknownNameError, require, unknown_name
from posezoo.zoo.entry import TASKS, Entry, Score, Weights
from posezoo.zoo.store import HERE, find_weights, home, packaged_file

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Entry",
    "Score",
    "Weights",
    "get_entry",
    "get_model",
    "home",
    "list_models",
    "load_entries",
    "packaged_file",
]


def load_entries(path: Path) -> list[Entry]:
    """The entries of one TOML file.

    Raises:
        PosezooError: the file or a row of it is wrong.
    """
    content = toml.load(path)
    defaults = dict(content.get("defaults", {}))
    score_defaults = defaults.pop("score", {})
    entries = []
    for row in content.get("entry", ()):
        table: dict[str, Any] = {**defaults, **row}
        for name in ("claimed", "measured"):
            table[name] = [{**score_defaults, **score} for score in table.get(name, ())]
        entries.append(Entry.from_table(table))
    return entries


@cache
def _entries() -> dict[str, Entry]:
    """Every entry by name, in the order of the files."""
    found: dict[str, Entry] = {}
    for path in sorted((HERE / "entries").glob("*.toml")):
        for entry in load_entries(path):
            if entry.name in found:
                raise PosezooError(f"{path.name}: '{entry.name}' is listed twice")
            found[entry.name] = entry
    return found


@cache
def _aliases() -> Mapping[str, tuple[str, ...]]:
    """Every alias and hash tag, and the names of the entries that go by it."""
    found: dict[str, list[str]] = {}
    for entry in _entries().values():
        tags = (w.hash_tag for w in entry.weights if w.hash_tag)
        for alias in dict.fromkeys((*entry.aliases, *tags)):
            found.setdefault(alias, []).append(entry.name)
    return {alias: tuple(names) for alias, names in found.items()}


def list_models(
    family: str | None = None, dataset: str | None = None, source: str | None = None, task: str = "pose"
) -> list[str]:
    """Names of the entries, all or those that match every argument given.

    Args:
        family: such as "simple_pose" or "mobile_pose".
        dataset: what they were trained on, such as "coco".
        source: the zoo they come from, such as "gluoncv".
        task: "pose" or "detection".

    Raises:
        PosezooError: no such task, or no entry at all has such a family, dataset or source.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    found = [entry for entry in _entries().values() if entry.task == task]
    for what, value in (("family", family), ("dataset", dataset), ("source", source)):
        if value is None:
            continue
        known = {getattr(entry, what) for entry in _entries().values()}
        if value not in known:
            raise unknown_name(what, value, known)
        found = [entry for entry in found if getattr(entry, what) == value]
    return [entry.name for entry in found]


def get_entry(name: str) -> Entry:
    """The entry of this name, alias or hash tag.

    Raises:
        PosezooError: no entry goes by it (the error has the nearest names), or several do (it lists them).
    """
    entries, aliases = _entries(), _aliases()
    if name in entries:
        return entries[name]
    candidates = aliases.get(name, ())
    if len(candidates) == 1:
        return entries[candidates[0]]
    if candidates:
        raise UnknownNameError(f"'{name}' could be {' or '.join(candidates)}: use one of these")
    raise unknown_name("model", name, [*entries, *aliases], "(posezoo list shows them all)")


def get_model(name: str, pretrained: bool | str | os.PathLike[str] = False) -> nn.Module:
    """An entry's network, in eval mode.

    Args:
        name: an entry's name, alias or hash tag.
        pretrained: False: fresh weights. True: the entry's own. A hash tag such as "2f544338": the weights of that tag,
            of this entry or of another of the same architecture. A path: a checkpoint of any zoo that fits.

    Returns:
        A module whose forward takes (B, 3, H, W) float32 and gives heatmaps (B, K, H/4, W/4); a detector's gives its
        scores and boxes.

    Raises:
        PosezooError: no such entry or tag, PyTorch is not installed, or the weights are not there or do not fit.
    """
    entry = get_entry(name)
    source = _pretrained_path(entry, pretrained)
    require("torch", "torch", f"building {entry.name}")
    from posezoo.models.build import build
    from posezoo.skeletons import get_skeleton

    model = build(entry.arch, len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0)
    if source is not None:
        from posezoo.zoo.weights import load_weights

        load_weights(model, source)
    return model.eval()


def _pretrained_path(entry: Entry, pretrained: bool | str | os.PathLike[str]) -> Path | None:
    """The file that `pretrained` means, or None for fresh weights."""
    if pretrained is False:
        return None
    if pretrained is True:
        return find_weights(entry, entry.weights)
    given = os.fspath(pretrained)
    if not re.fullmatch(r"[0-9a-f]{8}", given) or Path(given).exists():
        return Path(given)
    # the entry's own first: two entries may share a tag
    same_arch = [entry, *(e for e in _entries().values() if e.arch == entry.arch)]
    tagged = {w.hash_tag: w for e in reversed(same_arch) for w in e.weights if w.hash_tag}
    if given not in tagged:
        raise unknown_name(f"hash tag of {entry.arch}", given, tagged)
    return find_weights(entry, (tagged[given],))
