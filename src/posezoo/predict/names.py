"""What results and annotated pictures are called, and whether they can be written there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from posezoo.errors import PosezooError
from posezoo.files import make_folder
from posezoo.formats import get_format
from posezoo.predict.request import Request


def output_names(paths: Sequence[Path], others: Collection[str] = ()) -> dict[Path, str]:
    """A name for the results of each picture: its stem; its file name, where pictures of other suffixes share that.

    Where several still share one, or a video has it, the later get -2, -3, ... Case does not tell names apart, since it
    does not on every file system.

    Args:
        paths: of the pictures.
        others: names in lower case that are taken already.
    """
    suffixes: dict[str, set[str]] = {}
    for path in paths:
        suffixes.setdefault(path.stem.lower(), set()).add(path.suffix.lower())
    names: dict[Path, str] = {}
    taken = set(others)
    for path in paths:
        own = path.stem if len(suffixes[path.stem.lower()]) == 1 else path.name
        name, number = own, 1
        while name.lower() in taken or (name != path.stem and name.lower() in suffixes):
            number += 1
            name = f"{own}-{number}"
        taken.add(name.lower())
        names[path] = name
    return names


def beside_videos(request: Request, taken: Collection[str]) -> Request:
    """The request for the pictures of a run, whose one file for all, if the format has one, is called as no video is.

    Args:
        request: of the run.
        taken: names of videos in lower case.
    """
    chosen = get_format(request.format)
    path = PurePath(chosen.file)
    if request.results is not None or chosen.each or request.per_frame or path.stem.lower() not in taken:
        return request
    number = next(n for n in count(2) if f"{path.stem}-{n}".lower() not in taken)
    return replace(request, results=f"{path.stem}-{number}{path.suffix}")


def source_name(source: str, taken: set[str]) -> str:
    """A name for the results of a video, camera or stream that is none of the `taken` ones; it then is one of them."""
    address = urlsplit(source) if "://" in source else None
    # a password in an address is no part of a name
    stem = (
        PurePath(source).stem
        if address is None
        else f"{address.hostname or ''}{PurePath(address.path).with_suffix('')}"
    )
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "video"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name


def prepare_output(output: Path, sources: Sequence[Path]) -> None:
    """Make the folder, and find out now rather than after the first picture whether it can be written.

    Raises:
        PosezooError: it cannot, it is a file, or one of the sources lies in it.
    """
    if output.exists() and not output.is_dir():
        raise PosezooError(f"the output {output} is a file; choose a folder with -o")
    for path in sources:
        if path.parent.resolve() == output.resolve():
            raise PosezooError(f"the output folder {output} holds the source {path.name}; choose another with -o")
    try:
        make_folder(output)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as err:
        raise PosezooError(f"cannot write to the output folder {output}: {err.strerror or err}") from None
