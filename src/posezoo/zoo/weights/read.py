"""Any weights file to {key: tensor}. What a file is shows in its first bytes; no code in a file is ever run."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posezoo.errors import PosezooError, require
from posezoo.zoo.weights import mxnet

KNOWN = ".params (MXNet), .pth, .pth.tar or .pt (PyTorch), .safetensors"
# a training checkpoint keeps its weights under one of these; averaged weights are the better ones
_NESTS = ("ema", "state_dict", "model")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The arrays of a weights file, in the order of the file, as they are stored.

    Args:
        path: an MXNet, PyTorch or safetensors file, recognised by content.

    Raises:
        PosezooError: the file is missing, damaged, of no known kind, or would run code when unpickled.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    if head[:8] == mxnet.MAGIC:
        return {key: torch.from_numpy(array) for key, array in mxnet.read_params(path).items()}
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:1] == b"\x80" or head[:2] == b"PK":
        return _tensors(_read_torch(path), path)
    raise PosezooError(f"{path} is no weights file: expected {KNOWN}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors.torch", "torch", f"reading {path.name}")
    from safetensors import SafetensorError

    try:
        return safetensors.load_file(path)
    except SafetensorError as err:
        raise PosezooError(f"{path} is not a whole safetensors file: {err}") from None


def _read_torch(path: Path) -> Any:
    """What a PyTorch checkpoint holds, by the unpickler that knows arrays and plain containers only."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > path.stat().st_size:  # PyTorch stores its arrays uncompressed
                raise PosezooError(f"{path} would unpack to {size} bytes: not a PyTorch checkpoint")
        return torch.load(path, map_location="cpu", weights_only=True)
    except PosezooError:
        raise
    except Exception as err:  # a damaged file can fail anywhere inside the unpickler, in any way
        if isinstance(err, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(err))):
            raise PosezooError(
                f"{path} holds {found[1]} beside arrays, and no code in a file is ever run: save its state_dict alone"
            ) from None
        reason = (str(err).strip() or "cut short").splitlines()[0]
        raise PosezooError(f"{path} is not a whole PyTorch checkpoint: {reason}") from None


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    while isinstance(content, Mapping):
        nests = [content[n] for n in _NESTS if isinstance(content.get(n), Mapping)]
        if not nests:
            tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
            if tensors and all(isinstance(key, str) for key in tensors):
                return tensors
            break
        content = nests[0]
    raise PosezooError(f"{path} holds no named arrays")
