"""What kind of file a weights file is, which its first bytes tell, and whether its end is there."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from posezoo.errors import PosezooError
from posezoo.zoo.pickles import CUT, unpickle_plain

_HEAD = 512  # bytes; a page may begin with blanks
_BEGINNINGS = {
    "page": re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|\?xml)", re.IGNORECASE),
    "mxnet": re.compile(rb"\x12\x01\0{6}"),
    "safetensors": re.compile(rb".{8}\{", re.DOTALL),
    "torch": re.compile(rb"PK|\x80"),  # zipped, and as before PyTorch 1.6
}


def kind_of(path: Path, file: str | None = None) -> str | None:
    """What a file is: "mxnet", "safetensors", "torch", "darknet", "page" (HTML or XML), or None for anything else.

    Args:
        path: the file.
        file: the name it goes by, if not the path's: darknet's could begin with anything, and are called ".weights".

    Raises:
        PosezooError: it cannot be read.
    """
    try:
        with path.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    is_darknet = (file or path.name).lower().endswith(".weights")
    return next((kind for kind, begins in _BEGINNINGS.items() if begins.match(head)), "darknet" if is_darknet else None)


def is_cut_off(path: Path, kind: str) -> bool:
    """Whether a file's own account of itself goes beyond its end; no array is read.

    Args:
        path: the file.
        kind: of `kind_of`. Of MXNet's only a reader of the whole can tell, and of darknet's little shows.

    Raises:
        PosezooError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        if kind == "darknet":
            return size % 4 != 0  # all are numbers of four bytes
        with path.open("rb") as file:
            if kind == "safetensors":
                length = int.from_bytes(file.read(8), "little")
                return 8 + length > size or _safetensors_end(file.read(length)) > size - 8 - length
            if kind != "torch":
                return False
            if file.read(2) == b"PK":
                return not zipfile.is_zipfile(file)  # its list of contents stands at the end
            file.seek(0)
            _, places = unpickle_plain(file)
            return any(place.start + place.size > size for place in places.values())
    except CUT:
        return kind == "torch"
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    except Exception:  # a pickle of others, of which nothing is certain, can fail in any way
        return False


def _safetensors_end(head: bytes) -> int:
    """Where the last array ends, counted from the head's end.

    Raises:
        ValueError: the head is none.
    """
    tables = [table for name, table in json.loads(head).items() if name != "__metadata__"]
    return max((table["data_offsets"][1] for table in tables), default=0)
