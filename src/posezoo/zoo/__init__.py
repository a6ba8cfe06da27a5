"""The zoo: every entry that can be listed, built and loaded. Rows are data, in `entries/*.toml`.

A file holds `[[entry]]` rows and what they share: `[defaults]`, with `[defaults.score]` for their scores and
`[defaults.file]` for their weights (whose addresses may have `{file}` and `{stem}` in them); and, for some rows and
scores only, `[row.KIND]` and `[score.KIND]`, which apply to those that say `like = "KIND"`. A row's architecture is the
part of its name before the last dot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
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
    "find_entry",
    "get_entry",
    "get_model",
    "home",
    "list_models",
    "load_entries",
    "packaged_file",
]


_EXTENSION = re.compile(r"\.(py|ya?ml|json|pth\.tar|pth|pt|params|zip|safetensors)$")
_WEIGHTS = re.compile(r"\.(pth\.tar|pth|pt|params|zip|safetensors|weights)$", re.IGNORECASE)
HASH_AND_DATE = re.compile(r"-[0-9a-f]{8}_\d{8}$")  # what OpenMMLab's checkpoints have behind their config's name


def load_entries(path: Path) -> list[Entry]:
    """The entries of one TOML file.

    Raises:
        PosezooError: the file or a row of it is wrong.
    """
    content = toml.load(path)
    entries = []
    for row in content.get("entry", ()):
        try:
            table = _like(content.get("row", {}), content.get("defaults", {}), row)
            shared_score, shared_file = table.pop("score", {}), table.pop("file", {})
            table.setdefault("arch", str(table.get("name")).rpartition(".")[0])
            for name in ("claimed", "measured"):
                table[name] = [_like(content.get("score", {}), shared_score, score) for score in table.get(name, ())]
            table["weights"] = [_file({**shared_file, **weights}) for weights in table.get("weights", ())]
        except PosezooError as err:
            raise PosezooError(f"{path.name}, zoo entry '{row.get('name')}': {err}") from None
        entries.append(Entry.from_table(table))
    return entries


def _like(kinds: Mapping[str, Any], shared: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row laid over the kind that its `like` names, laid over what all rows share; tables inside are joined too."""
    like = row.get("like")
    if like is not None and like not in kinds:
        raise unknown_name("kind of row", like, kinds)
    found: dict[str, Any] = {}
    for layer in (shared, {} if like is None else kinds[like], row):
        for key, value in layer.items():
            old = found.get(key)
            found[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    found.pop("like", None)
    return found


def _file(table: dict[str, Any]) -> dict[str, Any]:
    """The table of a weights file: its addresses filled in, and the hash tag that its name carries."""
    file = str(table.get("file"))
    urls = [url.replace("{file}", file).replace("{stem}", file.rpartition(".")[0]) for url in table.get("urls", ())]
    tag = re.search(r"-([0-9a-f]{8})[._]", file)
    return {**({"hash_tag": tag[1]} if tag else {}), **table, "urls": urls}


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


def _spellings(pasted: str) -> tuple[str, ...]:
    """A path, address or name as pasted, without quotes, leading "/" and "../"; then also without its extension."""
    parts = pasted.strip("\"'` \t\r\n").replace("\\", "/").split("/")
    path = "/".join(part for part in parts if part not in ("", ".", ".."))
    return tuple(dict.fromkeys((path, _EXTENSION.sub("", path))))


def _ends(path: str) -> list[str]:
    """A path and what is left of it without its first folder, its first two folders, ..."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


@cache
def _aliases() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The names of the entries that go by an alias, for every whole alias and for every end of one that is a path."""
    whole: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for entry in _entries().values():
        for path in (path for alias in entry.called for path in _spellings(alias)):
            for end in _ends(path):
                names = (whole if end == path else ends).setdefault(end, [])
                if entry.name not in names:
                    names.append(entry.name)
    return whole, ends


def _called(name: str) -> list[str]:
    """The names of the entries that go by `name`.

    An alias that is a path may be pasted with more folders before it, or with fewer, but never with other ones:
    AlphaPose has one file name in the folders of several datasets. A checkpoint of OpenMMLab's that no entry lists goes
    by its config.
    """
    whole, ends = _aliases()
    spellings = _spellings(name)
    for path in (*spellings, HASH_AND_DATE.sub("", spellings[-1])):
        for end in _ends(path):
            if end in whole:
                return whole[end]
        if path in ends:
            return ends[path]
    return []


def _one_of(names: Sequence[str]) -> str:
    """Names in one line; where they are many, those of one architecture share its name."""
    tags: dict[str, list[str]] = {}
    for name in names:
        arch, _, tag = name.rpartition(".")
        tags.setdefault(arch, []).append(tag)
    if len(names) <= 3:
        return " or ".join(names)
    return " or ".join(f"{a}.{t[0]}" if len(t) == 1 else f"{a}.{{{', '.join(t)}}}" for a, t in tags.items())


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
        PosezooError: no such task or dataset, or no entry at all has such a family or source.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    found = [entry for entry in _entries().values() if entry.task == task]
    for what, value in (("family", family), ("dataset", dataset), ("source", source)):
        if value is None:
            continue
        known = {getattr(entry, what) for entry in _entries().values()}
        if value not in known and not (what == "dataset" and _is_dataset(value)):
            raise unknown_name(what, value, known)
        found = [entry for entry in found if getattr(entry, what) == value]
    return [entry.name for entry in found]


def _is_dataset(name: str) -> bool:
    """Whether it is in the catalogue: networks of the zoo may be judged on it only."""
    from posezoo.data.catalog import list_datasets

    return name in list_datasets()


def find_entry(name: str) -> Entry | None:
    """The entry that `get_entry` gives, or None where no entry goes by that name; no file is looked for.

    Raises:
        PosezooError: several go by it (it lists them).
    """
    entries = _entries()
    if name in entries:
        return entries[name]
    candidates = _called(name)
    if len(candidates) > 1:
        raise UnknownNameError(f"'{name}' could be {_one_of(candidates)}: use one of these")
    return entries[candidates[0]] if candidates else None


def get_entry(name: str) -> Entry:
    """The entry of this name, alias or hash tag, or of this path or address of a config or checkpoint as pasted.

    A checkpoint that lies there under that name is not taken for the zoo's file of the same name.

    Raises:
        PosezooError: no entry goes by it (the error has the nearest names), or several do (it lists them), or it is a
            file of weights (it says how to give that).
    """
    if name not in _entries() and _WEIGHTS.search(name) and os.path.isfile(name):
        raise _is_a_file(name)
    entry = find_entry(name)
    if entry is not None:
        return entry
    if os.path.isfile(name):
        raise _is_a_file(name)
    # paths are near to paths, names to names
    known = [alias for alias in (*_entries(), *_aliases()[0]) if ("/" in alias) == ("/" in name) and ":" not in alias]
    raise unknown_name("model", name, known, "(posezoo list shows them all)")


def _is_a_file(name: str) -> UnknownNameError:
    """The error for a file where a model's name belongs, with the models whose weights are published by its name."""
    known = _called(name)
    guess = f" (by its name, of {_one_of(known)})" if known else ""
    return UnknownNameError(
        f"'{name}' is a file: name the model that it holds the weights of{guess}, and give the file as its weights "
        f"(-m {known[0] if len(known) == 1 else 'NAME'} --weights FILE, evaluate and export without -m; in Python "
        "weights=FILE, of get_model pretrained=FILE)"
    )


def get_model(name: str, pretrained: bool | str | os.PathLike[str] = False) -> nn.Module:
    """An entry's network, in eval mode.

    Args:
        name: an entry's name, alias or hash tag.
        pretrained: False: fresh weights. True: the entry's own, downloaded if need be. A hash tag such as "2f544338":
            the weights of that tag, of this entry or of another of the same architecture. A path: a checkpoint of any
            zoo that fits.

    Returns:
        A module whose forward takes (B, 3, H, W) float32 and gives heatmaps (B, K, H/4, W/4), (B, K, H/8, W/8) of
        those with two deconvolutions; a detector's gives its scores and boxes.

    Raises:
        PosezooError: no such entry or tag, PyTorch is not installed, or the weights are not there or do not fit.
    """
    entry = get_entry(name)
    require("torch", "torch", f"building {entry.name}")  # before anything is downloaded
    source = _pretrained_path(entry, pretrained)
    from posezoo.models.build import build
    from posezoo.skeletons import get_skeleton

    joints = len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0
    model = build(entry.arch, joints, filled=source is None)
    if source is not None:
        from posezoo.zoo.weights import load_weights

        load_weights(model, source)
    return model.eval()


def load_weights(model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any]) -> nn.Module:
    """Set every weight of `model` from `source`; the model is unchanged if any does not fit.

    Args:
        model: one of our networks.
        source: a file (.params, .pth, .pth.tar, .pt, .safetensors, .weights) or {key: array}. Whose names it uses is
            recognised from its keys. Half precision is widened to the model's own.

    Returns:
        `model`.

    Raises:
        PosezooError: the source cannot be read; or keys are missing, unexpected, or of another shape: the error lists
            them, and names an architecture that the source would fit; or weights are not finite as float32; or
            PyTorch is not installed.
    """
    require("torch", "torch", "loading weights")
    from posezoo.zoo.weights import load

    return load.load_weights(model, source)


def _pretrained_path(entry: Entry, pretrained: bool | str | os.PathLike[str]) -> Path | None:
    """The file that `pretrained` means, or None for fresh weights."""
    if pretrained is False:
        return None
    if pretrained is True:
        return find_weights(entry, entry.weights)
    given = os.fspath(pretrained)
    if not re.fullmatch(r"[0-9a-f]{8}", given) or os.path.exists(given):
        return Path(given)
    # the entry's own first: two entries may share a tag
    same_arch = [entry, *(e for e in _entries().values() if e.arch == entry.arch)]
    tagged = {w.hash_tag: w for e in reversed(same_arch) for w in e.weights if w.hash_tag}
    if given not in tagged:
        raise unknown_name(f"hash tag of {entry.arch}", given, tagged)
    return find_weights(entry, (tagged[given],))
