"""What travels inside an exported file: all that belongs to its weights, so that the file alone can be run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posezoo import __version__
from posezoo.errors import PosezooError

if TYPE_CHECKING:
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

METADATA_KEY = "posezoo"  # in ONNX's metadata_props and in OpenVINO's rt_info
METADATA_FILE = "posezoo.json"  # among the extra files of a .pt2
FORMAT = 1
INPUTS = ("planes", "crops")
OUTPUTS = ("maps", "joints")


def metadata_of(spec: NetworkSpec, entry: Entry | None = None, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    """What to write into a file, as JSON can hold it.

    Args:
        spec: of the network in the file, with the `input` and `output` that the file has.
        entry: of the zoo, that the weights are from.
        precision: in which numbers it computes, see `posezoo.deploy.runtimes.PRECISIONS`.
        more: whatever else the file should say; None is left out.
    """
    from posezoo.codecs import CODECS

    values: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "entry": entry.name if entry else None,
        "skeleton": spec.skeleton.name,
        "codec": next(name for name, codec in CODECS.items() if codec == spec.codec),
        "input_size_wh": list(spec.input_size_wh),
        "channels": spec.channels,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "box_scale": spec.box_scale,
        "flip_shift": spec.flip_shift,
        "input": spec.input,
        "output": spec.output,
        "precision": precision,
        "licence": dict(entry.licence) if entry else None,
        "made_by": f"posezoo {__version__}",
        **more,
    }
    return {key: value for key, value in values.items() if value is not None}


def parse_metadata(text: str, file: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata that a file holds as JSON, checked; empty where there is none.

    Raises:
        PosezooError: it is no JSON object, or of another version.
    """
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError as err:
        raise PosezooError(f"{os.fspath(file)}: its '{METADATA_KEY}' metadata is not JSON: {err}") from None
    if not isinstance(found, dict):
        raise PosezooError(f"{os.fspath(file)}: its '{METADATA_KEY}' metadata must be an object, but is {text[:60]}")
    check_metadata(found, file)
    return found


def check_metadata(values: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """See that this version of posezoo knows what a file says.

    Raises:
        PosezooError: it was made by another version, or has an input or output unknown here.
    """
    known = {"format": (FORMAT,), "input": INPUTS, "output": OUTPUTS}
    for key, valid in known.items():
        if values.get(key, valid[0]) not in valid:
            maker = values.get("made_by", "another version of posezoo")
            raise PosezooError(
                f"{os.fspath(file)} was made by {maker}: this one, {__version__}, does not know its {key} "
                f"{values[key]!r}; export it again, or install that version"
            )


def weights_metadata(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What a .safetensors file of ours says of its network: as `metadata_of`, and `arch`.

    `posezoo convert` and `posezoo train` write all of it; a file that only names its entry has the entry's.

    Raises:
        PosezooError: it is no safetensors file, or says neither.
    """
    path = Path(file)
    facts: dict[str, Any] = dict(_header(path).get("__metadata__") or {})
    named = facts.pop("entry", None) or facts.get("name")
    if named and "arch" not in facts:
        from posezoo.zoo import get_entry

        entry = get_entry(named)
        facts |= {each.name: getattr(entry, each.name) for each in fields(entry) if each.name in _OF_AN_ENTRY}
    if not facts.get("arch"):
        raise PosezooError(
            f"{path} does not say which model it holds the weights of: name the model, and give the file as its "
            f"weights (-m NAME --weights {path})"
        )
    if named:
        facts["entry"] = named
    return {key: _READ.get(key, _same)(value) if isinstance(value, str) else value for key, value in facts.items()}


def _same(text: str) -> str:
    return text


_READ: Mapping[str, Callable[[str], Any]] = {
    "input_size_wh": lambda text: [int(part) for part in text.split()],
    "mean": lambda text: [float(part) for part in text.split()],
    "std": lambda text: [float(part) for part in text.split()],
    "box_scale": float,
    "flip_shift": lambda text: text == "true",
}
_OF_AN_ENTRY = ("name", "arch", "skeleton", "codec", "channels", "detector", *_READ)


def _header(path: Path) -> dict[str, Any]:
    """What stands before the arrays of a safetensors file: their shapes, and the facts; read without that library."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= path.stat().st_size else b""
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    try:
        found = json.loads(header)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PosezooError(f"{path} is not a whole safetensors file")
    return found
