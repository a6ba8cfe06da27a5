"""Where weights files lie on this machine, and whether a file is the one that an entry means."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from posezoo.errors import PosezooError
from posezoo.zoo.entry import Entry, Weights

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
    """The first of `choices` that is on this machine, its hash checked.

    Raises:
        PosezooError: none is there (the error says where each is looked for), or a file is not the right one.
    """
    if not choices:
        raise PosezooError(f"{entry.name} has no weights to load: pass pretrained=PATH")
    for weights in choices:
        path = location(weights)
        if path.is_file():
            _check(path, weights)
            return path
    places = " or ".join(str(location(w)) for w in choices)
    urls = " or ".join(w.url for w in choices if w.url)
    advice = f"; download {urls} and unpack it there (POSEZOO_HOME sets the folder)" if urls else ""
    raise PosezooError(f"the weights of {entry.name} are not on this machine: looked for {places}{advice}")


def _check(path: Path, weights: Weights) -> None:
    """Raise unless the file has the size and hashes that the entry states."""
    size = path.stat().st_size
    if weights.bytes not in (None, size):
        raise PosezooError(f"{path} has {size} bytes, expected {weights.bytes}: delete it and fetch it again")
    expected = [("sha256", weights.sha256), (weights.hash_tag_of, weights.hash_tag)]
    for algorithm, digest in expected:
        if digest is None:
            continue
        try:
            with path.open("rb") as file:
                found = _hash(file, algorithm)
        except OSError as err:
            raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
        if not found.startswith(digest):
            raise PosezooError(
                f"{path} is damaged or another file: its {algorithm} begins {found[:8]}, expected {digest[:8]}; "
                "delete it and fetch it again"
            )


def _hash(file: BinaryIO, algorithm: str) -> str:
    """Hex digest of what is left of `file`, read in pieces."""
    digest = hashlib.new(algorithm)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
