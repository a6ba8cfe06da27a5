"""`convert`: any zoo's checkpoint to our safetensors, with what belongs to the weights; and to a peer's file again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posezoo import __version__
from posezoo.errors import PosezooError, require, unknown_name
from posezoo.files import atomic_path
from posezoo.identity import hash_of
from posezoo.models.build import outline
from posezoo.zoo.weights.layout import KeyMap
from posezoo.zoo.weights.load import (
    LAYOUTS,
    OURS,
    Checkpoint,
    describe,
    entries_of,
    fitting,
    match,
    nearest,
    read_checkpoint,
)

if TYPE_CHECKING:
    from posezoo.zoo import Entry

# how the names of the layouts begin that make up a peer; the first that a network can be written in is taken
PEERS: Mapping[str, tuple[str, ...]] = {
    "hrnet": ("HRNet", "Simple Baselines"),
    "mmpose": ("MMPose 1.x",),
    "mmpose0": ("MMPose 0.x",),
}
_OUR_SUFFIXES, _TORCH_SUFFIXES = (".safetensors",), (".pth", ".pth.tar", ".pt")


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        out: the file written.
        layout: whose names were read.
        written: whose names were written.
        archs: every architecture that the arrays fit, where the model was not known; else its own.
        joints: how many joints they predict, 0 for a detector.
        model: the zoo's entry whose facts the file carries; None where several or none fit.
        candidates: the entries that fit, where the model was not known.
        arrays: how many were written.
        bytes: the size of the file.
    """

    out: Path
    layout: str
    written: str
    archs: tuple[str, ...]
    joints: int
    model: str | None
    candidates: tuple[str, ...]
    arrays: int
    bytes: int


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model_name: str | None = None,
    to: str | None = None,
) -> Conversion:
    """Write a checkpoint's weights as they are, under other names.

    Args:
        source: a weights file of any zoo.
        out: the file to write: `.safetensors`, or `.pth` (`.pth.tar`, `.pt`) for a peer. It is written as a whole or
            not at all.
        model_name: the zoo's entry that the weights belong to. Without it: what a safetensors file of ours says, else
            the only entry that fits, or of those that fit the only one that is published under this file's name.
        to: None for ours; "hrnet" (HRNet and Simple Baselines), "mmpose" (1.x) or "mmpose0" (0.x) for that peer's.

    Raises:
        PosezooError: the source cannot be read or fits no network (or not the one named), the peer has no names for
            the network, or `out` cannot be written, is the source, or has another kind's suffix.
    """
    source, out = Path(source), Path(out)
    _check_out(source, out, to)
    require("safetensors", "torch", "converting weights")
    checkpoint = read_checkpoint(source)
    if model_name is None:
        model_name = _name_inside(source)
    fits, entries = _networks(checkpoint, model_name, source.name)
    arch, joints = fits[0]
    network, entry = outline(arch, joints), entries[0] if len(entries) == 1 else None
    named = match(checkpoint, network, entry.name if entry else arch)
    # in the order of the layers, each in one piece and apart from the others, as safetensors wants them
    ordered = {key: named[key] for key in network.state_dict() if key in named}
    arrays = {key: array.clone(memory_format=torch.contiguous_format) for key, array in ordered.items()}
    facts = _facts(source, fits, entry)
    layout = OURS if to is None else _peer_layout(list(arrays), arch, to)
    _write(out, {layout.to_theirs(key): array for key, array in arrays.items()}, facts, to)
    return Conversion(
        out=out,
        layout=checkpoint.layout.name,
        written=layout.name,
        archs=tuple(name for name, _ in fits),
        joints=joints,
        model=entry.name if entry else None,
        candidates=() if entry else tuple(each.name for each in entries),
        arrays=len(arrays),
        bytes=out.stat().st_size,
    )


def _check_out(source: Path, out: Path, to: str | None) -> None:
    """Raise where `out` is not to be written, before any work is done."""
    if to is not None and to not in PEERS:
        raise unknown_name("zoo to convert to", to, PEERS)
    suffixes = _OUR_SUFFIXES if to is None else _TORCH_SUFFIXES
    if not out.name.lower().endswith(suffixes):
        raise PosezooError(f"{out} must end in {' or '.join(suffixes)}{f', as {to} files do' if to else ''}")
    if os.path.isdir(out):
        raise PosezooError(f"{out} is a folder: name a file in it")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        raise PosezooError(f"{out} is the source itself: give the result another name")


def _name_inside(source: Path) -> str | None:
    """The entry that a safetensors file of ours names, if the zoo has it."""
    from safetensors import SafetensorError, safe_open

    from posezoo.zoo import get_entry

    try:
        with safe_open(source, "pt") as file:
            return get_entry((file.metadata() or {})["name"]).name
    except (OSError, SafetensorError, KeyError, PosezooError):
        return None


def _networks(
    checkpoint: Checkpoint, model_name: str | None, file_name: str
) -> tuple[list[tuple[str, int]], list[Entry]]:
    """The (architecture, joints) and the entries that a checkpoint is of, one each where the name is known."""
    from posezoo.skeletons import get_skeleton
    from posezoo.zoo import get_entry

    if model_name is not None:
        entry = get_entry(model_name)
        return [(entry.arch, len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0)], [entry]
    fits = list(fitting(checkpoint))
    if not fits:
        arch, joints = nearest(checkpoint)
        match(checkpoint, outline(arch, joints), f"any network; nearest is {describe(arch, joints)}")
    entries = [entry for arch, joints in fits for entry in entries_of(arch, joints)]
    published = [entry for entry in entries if _is_published_as(file_name, entry)]
    if len(published) == 1:
        (entry,) = published
        return [fit for fit in fits if fit[0] == entry.arch], published
    return fits, entries


def _is_published_as(file_name: str, entry: Entry) -> bool:
    """Whether a file is still under a name that the entry's weights are published by.

    It is listed, or one of OpenMMLab's: "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth".
    """
    from posezoo.zoo import HASH_AND_DATE

    config, hashes = HASH_AND_DATE.subn("", file_name.removesuffix(".pth"))
    return any(weights.file == file_name for weights in entry.weights) or (hashes > 0 and config in entry.aliases)


def _facts(source: Path, fits: Sequence[tuple[str, int]], entry: Entry | None) -> dict[str, str]:
    """What belongs to the weights, as text."""
    archs = [arch for arch, _ in fits]
    facts = {"arch": archs[0]} if len(archs) == 1 else {"fits": " ".join(archs)}
    if entry is not None:
        width, height = entry.input_size_wh
        facts = {
            "name": entry.name,
            "arch": entry.arch,
            "source": entry.source,
            "skeleton": entry.skeleton or "",
            "input_size_wh": f"{width} {height}",
            "codec": entry.codec or "",
            "channels": entry.channels,
            "mean": " ".join(map(str, entry.mean)),
            "std": " ".join(map(str, entry.std)),
            "box_scale": str(entry.box_scale),
            "flip_shift": str(entry.flip_shift).lower(),
            **{f"licence_{part}": licence for part, licence in entry.licence.items()},
        }
        facts = {key: value for key, value in facts.items() if value}
    origin = {"source_file": source.name, "source_sha256": hash_of(source), "posezoo_version": __version__}
    return {**facts, **origin}


def _peer_layout(ours: Sequence[str], arch: str, to: str) -> KeyMap:
    """The peer's names for a network with the keys `ours`."""

    def find(peer: str) -> KeyMap | None:
        maps = (layout for layout in LAYOUTS if isinstance(layout, KeyMap) and layout.name.startswith(PEERS[peer]))
        return next((each for each in maps if each.speaks_of(ours)), None)

    if layout := find(to):
        return layout
    able = [peer for peer in PEERS if find(peer)]
    advice = f"it can be written for {' or '.join(able)}, or" if able else "it can only be written"
    raise PosezooError(f"{to} has no such network as {arch}: {advice} as .safetensors without a target")


def _write(out: Path, arrays: dict[str, Tensor], facts: dict[str, str], to: str | None) -> None:
    """Write the file of the kind that `to` reads."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(out) as temporary:
        try:
            if to is None:
                save_file(arrays, temporary, facts)
            else:
                with temporary.open("wb") as file:
                    torch.save(arrays if to == "hrnet" else {"meta": facts, "state_dict": arrays}, file)
        except (SafetensorError, RuntimeError) as err:  # how both tell of a full disk
            cause = err.__context__  # PyTorch itself tells only where in its code it was
            reason = cause.strerror if isinstance(cause, OSError) else str(err).splitlines()[0]
            raise PosezooError(f"cannot write {out}: {reason}") from None
