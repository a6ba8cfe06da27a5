"""Which entries `posezoo list` means: by a name, by what they have, and pose networks before detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posezoo import zoo
from posezoo.errors import PosezooError, unknown_name
from posezoo.zoo.entry import TASKS, Entry


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        entries: all of one task.
        task: which: "pose" or "detection".
        others: detectors that go by the text too, where pose networks do and no task was asked for.
    """

    entries: Sequence[Entry]
    task: str
    others: Sequence[Entry] = ()


def select(
    text: str | None = None,
    *,
    family: str | None = None,
    dataset: str | None = None,
    source: str | None = None,
    keypoints: str | None = None,
    on: str | None = None,
    task: str | None = None,
) -> Selection:
    """The entries that fit every argument given.

    Args:
        text: part of a name that they go by, in any case.
        family: see `list_models`.
        dataset: see there.
        source: see there.
        keypoints: the set that they find.
        on: a dataset on which their source claims a score.
        task: "pose" or "detection"; None: pose networks, or the detectors where only those fit.

    Raises:
        PosezooError: an argument that fits no entry at all (the error has the nearest that do), or none that fits all.
    """
    every = [zoo.get_entry(name) for each in TASKS for name in zoo.list_models(None, None, None, each)]
    if keypoints is not None:
        _check_known("keypoints", keypoints, {entry.skeleton for entry in every if entry.skeleton})
    if on is not None:
        _check_known("dataset with claimed scores", on, {score.dataset for entry in every for score in entry.claimed})

    def fits(entry: Entry) -> bool:
        by_name = text is None or any(text.lower() in word.lower() for word in (entry.name, *entry.called))
        scored = on is None or any(score.dataset == on for score in entry.claimed)
        return by_name and scored and keypoints in (None, entry.skeleton)

    found = {}
    for each in TASKS if task is None else (task,):
        names = zoo.list_models(family, dataset, source, each)
        found[each] = [entry for entry in map(zoo.get_entry, names) if fits(entry)]
    for each, entries in found.items():
        if entries:
            others = found["detection"] if text is not None and each == "pose" and task is None else ()
            return Selection(entries, each, others)
    raise PosezooError(_nothing(text, task, family=family, dataset=dataset, source=source, keypoints=keypoints, on=on))


def _nothing(text: str | None, task: str | None, **given: str | None) -> str:
    """What was looked for in vain."""
    asked = " ".join(f"--{name} {value}" for name, value in {"task": task, **given}.items() if value is not None)
    if text is None:
        if asked == f"--dataset {given['dataset']}":
            return f"no model is trained on {given['dataset']}; scores on it, where there are any: posezoo list --on"
        return f"no model fits {asked}: leave one of these out"
    return f"no model has '{text}' in its names" + (f" and fits {asked}" if asked else "")


def _check_known(what: str, value: str, known: set[Any]) -> None:
    if value not in known:
        raise unknown_name(what, value, known)
