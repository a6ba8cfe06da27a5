"""Where weights files lie on this machine, and whether a file is the one that an entry means."""

from __future__ import annotations

import os
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.identity import hash_of
from posezoo.zoo.entry import Entry, Weights
from posezoo.zoo.kinds import is_cut_off, kind_of

HERE = Path(__file__).parent


def home() -> Path:
    """The folder of downloaded weights: POSEZOO_HOME, else ~/.cache/posezoo."""
    return Path(os.environ.get("POSEZOO_HOME") or "~/.cache/posezoo").expanduser()


def location(weights: Weights) -> Path:
    """Where the file should lie, whether or not it does."""
    return HERE / weights.file if weights.packaged else home() / weights.file


def packaged_file(entry: Entry, suffix: str) -> Path | None:
    """The entry's file of this suffix that ships inside the package, or None.

    Args:
        entry: an entry of the zoo.
        suffix: ".onnx" or ".safetensors".
    """
    names = [entry.onnx] if entry.onnx else []
    names += [w.file for w in entry.weights if w.packaged]
    return next((HERE / name for name in names if name.endswith(suffix)), None)


def find_weights(entry: Entry, choices: tuple[Weights, ...]) -> Path:
    """The first of `choices` that is on this machine, its hash checked; where none is, the first that can be fetched.

    Raises:
        PosezooError: none is there or comes (the error says what was tried), or a file is not the right one.
    """
    found = on_this_machine(choices)
    if found is None:
        from posezoo.zoo.fetch import fetch, progress_bar

        with progress_bar() as progress:
            found = fetch(entry, choices, progress=progress)
    return found


def on_this_machine(choices: tuple[Weights, ...]) -> Path | None:
    """The first of `choices` that lies where it should, or None.

    Raises:
        PosezooError: it is not the right file.
    """
    for weights in choices:
        path = location(weights)
        if os.path.isfile(path):  # False too where the folder may not be looked into
            fault = find_fault(path, weights)
            if fault:
                raise PosezooError(f"{path} is damaged or another file: {fault}; delete it and fetch it again")
            return path
    return None


def find_fault(path: Path, weights: Weights) -> str | None:
    """What shows that a file is not the one that `weights` means, such as its hash; None where nothing does.

    Raises:
        PosezooError: it cannot be read.
    """
    kind = kind_of(path, weights.file)
    if kind == "page":  # what servers send in place of a file
        return "it is a web page"
    size = path.stat().st_size
    if weights.bytes not in (None, size):
        return f"it has {size} bytes, expected {weights.bytes}"
    if kind is None:
        return "it is no weights file"
    if is_cut_off(path, kind):
        return f"it is cut off after {size} bytes"
    for algorithm, digest in (("sha256", weights.sha256), (weights.hash_tag_of, weights.hash_tag)):
        if digest is None:
            continue
        found = hash_of(path, algorithm)
        if not found.startswith(digest):
            return f"its {algorithm} begins {found[:8]}, expected {digest[:8]}"
    return None
