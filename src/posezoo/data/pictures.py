"""Whether pictures are those that the annotations speak of: there, readable, and of the size that the file states.

Joints are pixels of one picture: in a smaller copy of it, or in one that Exif turns and the annotators' tool did not,
they lie elsewhere, and nothing but the size tells. So all sizes are compared before a run, by the pictures' headers.
That takes a second or two for ten thousand files, and keeps an odd one among them from ending the run where it is
drawn. Where a file states no sizes (MPII, JHMDB) there is nothing to compare, and a mirrored picture, or one upside
down, has the size of the stored one: those are taken to be annotated upright, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.media.headers import Header, read_header, sniff

if TYPE_CHECKING:
    from posezoo.media.images import Encoded, Image

SHOWN = 3  # pictures that a message names
MISSING, UNREADABLE, OTHER_SIZE = "missing", "not readable", "of another size than the annotations say"
_ADVICE = {
    MISSING: "get them, set the images' folder",
    UNREADABLE: "copy or download them again",
    OTHER_SIZE: "use the very pictures that were annotated, or mend their width and height in the file",
}
_START = 1 << 14  # bytes that hold a JPEG's header, most often by far
_THREADS = 16  # that wait for a disk, which may be across a network


class Look(NamedTuple):
    """What a picture is found to be.

    Attributes:
        fault: MISSING, UNREADABLE, OTHER_SIZE, or "" for none.
        told: the file, and what is wrong with it.
        stored: the labels are in the pixels as stored, which Exif orientation is not to turn.
    """

    fault: str
    told: str
    stored: bool = False


def look(path: Path, stated_wh: Sequence[int]) -> Look:
    """What the file of a picture is found to be, by its header.

    Args:
        path: the file.
        stated_wh: (2,) the width and height that the annotations say; 0 where they say nothing, and then it is only
            seen whether the file is there.
    """
    stated = _size(stated_wh)
    if stated is None:
        return Look("" if path.is_file() else MISSING, str(path))
    try:
        header = _header(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Look(MISSING, str(path))
    except (OSError, PosezooError) as err:
        return Look(UNREADABLE, f"{path}: {(err.strerror if isinstance(err, OSError) else None) or err}")
    orientation = _orientation(header, stated)
    if orientation is None:
        return Look(OTHER_SIZE, _other_size(path, _upright(header), stated))
    return Look("", str(path), stored=orientation != header.orientation)


def look_at(images: Sequence[Path], sizes_wh: NDArray[np.int64]) -> list[Look]:
    """`look` at each of the pictures, (I, 2) sizes; many at a time, for the disk may be far away."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(look, images, sizes_wh.tolist()))


def look_for_faults(
    where: str, images: Sequence[Path], sizes_wh: NDArray[np.int64], max_missing: float
) -> tuple[list[Look], str]:
    """What each picture is found to be, and what to say of those that cannot be used.

    Args:
        where: what to call the pictures' source.
        images: I files.
        sizes_wh: (I, 2) the sizes that the annotations say, 0 where they say nothing.
        max_missing: the share of them that may have a fault.

    Returns:
        I looks, and a line about the faults; "" where there are none.

    Raises:
        PosezooError: more of them have a fault; the first are listed.
    """
    looks = look_at(images, sizes_wh)
    found = {fault: [one.told for one in looks if one.fault == fault] for fault in _ADVICE}
    found = {fault: each for fault, each in found.items() if each}
    if not found:
        return looks, ""
    counts = [f"{len(each)} of {len(images)} pictures are {fault} ({_first(each)})" for fault, each in found.items()]
    told = f"{where}: {' and '.join(counts)}"
    if sum(len(each) for each in found.values()) > max_missing * len(images):
        advice = ", ".join(_ADVICE[fault] for fault in found)
        raise PosezooError(f"{told}; data.max_missing allows {max_missing:.1%}: {advice}, or allow more")
    return looks, told


def open_labelled(path: Path, stated_wh: Sequence[int]) -> Encoded:
    """A picture as its annotators saw it: upright, or as stored where only that is of the size they state.

    Args:
        path: the file.
        stated_wh: (2,) the width and height that the annotations say; 0 where they say nothing.

    Raises:
        PosezooError: it cannot be read, or is of another size; the message has both.
    """
    from posezoo.media.images import open_image

    stated, opened = _size(stated_wh), open_image(path)
    if stated is None:
        return opened
    orientation = _orientation(opened.header, stated)
    if orientation is None:
        raise PosezooError(f"{_other_size(path, _upright(opened.header), stated)}; {_ADVICE[OTHER_SIZE]}")
    return replace(opened, header=replace(opened.header, orientation=orientation))


def read_labelled(path: Path, stated_wh: Sequence[int]) -> Image:
    """The pixels of `open_labelled`, (H, W, 3) uint8 RGB, with its errors."""
    return open_labelled(path, stated_wh).decode()


def _size(stated_wh: Sequence[int]) -> tuple[int, int] | None:
    width, height = (int(side) for side in stated_wh)
    return (width, height) if width > 0 and height > 0 else None


def _upright(header: Header) -> tuple[int, int]:
    sides = header.width, header.height
    return sides[::-1] if header.orientation >= 5 else sides


def _orientation(header: Header, stated_wh: tuple[int, int]) -> int | None:
    """The orientation to apply for a picture of the size stated, 1 for none; None where no orientation gives it."""
    if _upright(header) == stated_wh:
        return header.orientation
    return 1 if (header.width, header.height) == stated_wh else None


def _header(path: Path) -> Header:
    """A picture's header, of a JPEG by the start of the file alone; elsewhere Exif may stand behind the pixels."""
    with path.open("rb") as file:
        start = file.read(_START)
        if sniff(start[:16]) == "JPEG":
            try:
                return read_header(start)
            except PosezooError:  # a long preamble, such as a preview or a colour profile
                pass
        return read_header(start + file.read() if sniff(start[:16]) else start)


def _other_size(path: Path, given_wh: tuple[int, int], stated_wh: tuple[int, int] | None) -> str:
    stated = "x".join(map(str, stated_wh or ()))
    return f"{path} is {given_wh[0]}x{given_wh[1]} instead of {stated}"


def _first(told: Sequence[str]) -> str:
    return ", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
