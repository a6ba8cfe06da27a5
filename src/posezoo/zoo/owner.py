"""Whose a weights file is: zoos have one name for several entries, which only their weights tell apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from posezoo.errors import PosezooError
from posezoo.identity import hash_of
from posezoo.zoo import get_entry, list_models
from posezoo.zoo.entry import Entry


def entry_of(name: str, weights: str | os.PathLike[str] | None = None) -> Entry:
    """The entry of a name that is used with these weights.

    An alias stands for one of several entries of an architecture, maybe of another input size. Where the file is known
    to be exactly one other's, by its name or by its content, that one is meant. An entry's own name is taken as it is.

    Args:
        name: of an entry, or an alias.
        weights: a file to be used instead of the entry's own, or None.

    Raises:
        PosezooError: no entry goes by that name, or several do.
    """
    entry = get_entry(name)
    if weights is None or name == entry.name or not os.path.isfile(weights):
        return entry
    path = Path(weights)
    same = [each for each in map(get_entry, list_models(task=entry.task)) if each.arch == entry.arch]
    for owners in _guesses(path, same):
        if owners:
            return owners[0] if len(owners) == 1 and entry not in owners else entry
    return entry


def facts_with(entry: Entry, weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    """What belongs to an entry's network with these weights, by the names of an entry's fields.

    What a .safetensors file of ours says of itself holds: it may have been trained on other crops, or with another
    codec, than the entry's own.
    """
    said = None if weights is None else _facts(Path(weights))
    own = {each.name: getattr(entry, each.name) for each in fields(entry)}
    return {**own, **said, "name": entry.name} if said and said["arch"] == entry.arch else own


def _guesses(path: Path, entries: list[Entry]) -> Iterator[list[Entry]]:
    """Those of the entries whose file this is: by its name, by what it says, by its hash."""
    files = [(entry, weights) for entry in entries for weights in entry.weights]
    yield _once(e for e, w in files if path.name == w.file or (w.hash_tag and f"-{w.hash_tag}" in path.name))
    said = _facts(path).get("entry")
    yield [entry for entry in entries if entry.name == said]
    known = [(entry, "sha256", w.sha256) for entry, w in files if w.sha256]
    known += [(entry, w.hash_tag_of, w.hash_tag) for entry, w in files if w.hash_tag]
    digests = {algorithm: hash_of(path, algorithm) for algorithm in {algorithm for _, algorithm, _ in known}}
    yield _once(entry for entry, algorithm, digest in known if digests[algorithm].startswith(digest))


def _facts(path: Path) -> dict[str, Any]:
    """What a safetensors file of ours says of itself; nothing where it is none."""
    from posezoo.deploy.metadata import weights_metadata

    if path.suffix.lower() != ".safetensors":
        return {}
    try:
        return weights_metadata(path)
    except PosezooError:  # none of ours
        return {}


def _once(entries: Iterator[Entry]) -> list[Entry]:
    return list({entry.name: entry for entry in entries}.values())
