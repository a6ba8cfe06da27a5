"""What travels inside an exported file: all that belongs to its weights, so that the file alone can be run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posezoo import __version__
from posezoo.errors import PosezooError, UnknownNameError, unknown_name

if TYPE_CHECKING:
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

METADATA_KEY = "posezoo"  # in ONNX's metadata_props and in OpenVINO's rt_info
METADATA_FILE = "posezoo.json"  # among the extra files of a .pt2
FORMAT = 1
INPUTS = ("planes", "crops")
OUTPUTS = ("maps", "joints")
CHANNELS = ("rgb", "bgr")
LONGEST_SIDE = 4096  # of an input: crops are made before the network could refuse them, and take memory
LONGEST_NAME = 100
_SINGLE = np.finfo(np.float32)  # what is computed with is rounded to it: nothing may become infinite there, or 0


def metadata_of(spec: NetworkSpec, entry: Entry | None = None, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    """What to write into a file, as JSON can hold it.

    Args:
        spec: of the network in the file, with the `input` and `output` that the file has.
        entry: of the zoo, that the weights are from.
        precision: in which numbers it computes, see `posezoo.deploy.runtimes.PRECISIONS`.
        more: whatever else the file should say; None is left out.
    """
    from posezoo.codecs import codec_name

    values: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "entry": entry.name if entry else None,
        "skeleton": spec.skeleton.name,
        "codec": codec_name(spec.codec),
        "input_size_wh": list(spec.input_size_wh),
        "channels": spec.channels,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "box_scale": spec.box_scale,
        "flip_shift": spec.flip_shift,
        "input": spec.input,
        "output": spec.output,
        "precision": precision,
        "licence": _licence(entry, more.get("weights")) if entry else None,
        "made_by": f"posezoo {__version__}",
        **more,
    }
    return {key: value for key, value in values.items() if value is not None}


def _licence(entry: Entry, weights: str | None) -> dict[str, str]:
    """That of the entry; of weights that are not its own, posezoo knows none."""
    own = weights is None or weights in {each.file for each in entry.weights}
    return {what: name for what, name in entry.licence.items() if own or what == "code"}


def parse_metadata(text: str, file: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata that a file holds as JSON, checked; empty where there is none.

    Raises:
        PosezooError: it is no JSON object, of another version, or has a value that cannot be used.
    """
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError) as err:  # also numbers of too many digits, and lists too deep
        raise PosezooError(f"{os.fspath(file)}: its '{METADATA_KEY}' metadata is not JSON: {err}") from None
    if not isinstance(found, dict):
        raise PosezooError(f"{os.fspath(file)}: its '{METADATA_KEY}' metadata must be an object, but is {text[:60]}")
    check_metadata(found, file)
    return found


def check_metadata(values: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """See that this version of posezoo knows what a file says, and can use it.

    Raises:
        PosezooError: it was made by another version, or has an input or output unknown here; or as `check_values`.
    """
    known = {"format": (FORMAT,), "input": INPUTS, "output": OUTPUTS}
    for key, valid in known.items():
        if values.get(key, valid[0]) not in valid:
            maker = values.get("made_by", "another version of posezoo")
            raise PosezooError(
                f"{os.fspath(file)} was made by {maker}: this one, {__version__}, does not know its {key} "
                f"{values[key]!r:.60}; export it again, or install that version"
            )
    check_values(values, os.fspath(file))


def check_values(values: Mapping[str, Any], who: str, needed: Sequence[str] = ()) -> None:
    """See that what is said of a network can be used: files come from strangers.

    Args:
        values: as `metadata_of` writes them; there may be others.
        who: says it, for messages.
        needed: what has to be said; of the rest, what is not said is not looked at.

    Raises:
        PosezooError: something is missing, or a value is of the wrong kind or out of range (the message has the key,
            the value and what it must be), or a name is unknown here (it has the nearest ones).
    """
    from posezoo.codecs import get_codec
    from posezoo.deploy.runtimes.base import PRECISIONS
    from posezoo.skeletons import get_skeleton

    said = {key: value for key, value in values.items() if value is not None}
    if missing := [key for key in needed if key not in said]:
        raise PosezooError(f"{who} does not say its {', '.join(missing)}")
    for key, (fits, wanted) in _RULES.items():
        if key in said and not fits(said[key]):
            raise PosezooError(f"{who}: its {key} must be {wanted}, but is {said[key]!r:.60}")
    names = {"channels": CHANNELS, "input": INPUTS, "output": OUTPUTS, "precision": PRECISIONS[1:]}
    for key, valid in names.items():
        if key in said and said[key] not in valid:
            raise unknown_name(key, said[key], valid, f"(in {who})")
    for key, find in (("skeleton", get_skeleton), ("codec", get_codec)):
        try:
            _ = find(said[key]) if key in said else None
        except UnknownNameError as err:
            raise UnknownNameError(f"{err} (in {who})") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    """Whether it may be the name of something here; longer ones are not looked up."""
    return _is_text(value) and len(value) <= LONGEST_NAME


def _is_number(value: Any) -> bool:
    """Whether single precision has it; whole numbers of JSON may be longer than even doubles have them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float(_SINGLE.max)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value >= float(_SINGLE.tiny)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_SIDE


def _is_detector(value: Any) -> bool:
    """Whether they are settings in numbers; their names and ranges are looked at where they are used."""
    if not (isinstance(value, Mapping) and all(map(_is_number, value.values()))):
        return False
    return _is_side(value.get("long_side", 1)) and isinstance(value.get("max_people", 1), int)


def _each(fits: Callable[[Any], bool], count: int) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list | tuple) and len(values) == count and all(map(fits, values))


_NAMES = ("entry", "arch", "skeleton", "codec", "channels", "input", "output", "precision")
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "text"),  # which may be a path
    **{key: (_is_name, f"text of at most {LONGEST_NAME} letters") for key in _NAMES},
    "input_size_wh": (_each(_is_side, 2), f"two whole numbers in 1..{LONGEST_SIDE}, the width and the height"),
    "mean": (_each(_is_number, 3), "three finite numbers"),
    "std": (_each(_is_positive, 3), "three finite numbers above 0"),
    "box_scale": (_is_positive, "a finite number above 0"),
    "flip_shift": (lambda value: isinstance(value, bool), "true or false"),
    "detector": (_is_detector, f"a table of numbers, long_side (at most {LONGEST_SIDE}) and max_people whole"),
}


def weights_metadata(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What a .safetensors file of ours says of its network: as `metadata_of`, and `arch`.

    `posezoo convert` and `posezoo train` write all of it; a file that only names its entry has the entry's.

    Raises:
        PosezooError: it is no safetensors file, says neither, or says something that cannot be used.
    """
    path = Path(file)
    said = _header(path).get("__metadata__") or {}
    if not (isinstance(said, dict) and all(map(_is_text, said.values()))):
        raise PosezooError(f"{path} is not a whole safetensors file: what it says of itself must be texts by name")
    facts: dict[str, Any] = dict(said)
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
    values = {key: _read(key, value) if isinstance(value, str) else value for key, value in facts.items()}
    check_values(values, os.fspath(path))
    return values


def _read(key: str, text: str) -> Any:
    """A value written as text; the text itself where it is none, for the check to show."""
    try:
        return _READ[key](text) if key in _READ else text
    except ValueError:
        return text


_READ: Mapping[str, Callable[[str], Any]] = {
    "input_size_wh": lambda text: [int(part) for part in text.split()],
    "mean": lambda text: [float(part) for part in text.split()],
    "std": lambda text: [float(part) for part in text.split()],
    "box_scale": float,
    "flip_shift": lambda text: {"true": True, "false": False}.get(text, text),
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
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PosezooError(f"{path} is not a whole safetensors file")
    return found
