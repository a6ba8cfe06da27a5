"""What kind of file a weights file is, which its first bytes tell."""

from __future__ import annotations

import re
from pathlib import Path

from posezoo.errors import PosezooError

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
