"""Any weights file to {key: tensor}; no code in a file is ever run."""

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
from posezoo.zoo.kinds import kind_of
from posezoo.zoo.weights import darknet, inert, mxnet

KNOWN = ".params (MXNet), .pth, .pth.tar or .pt (PyTorch), .safetensors, .weights (darknet)"
# A training checkpoint keeps its weights under one of these; averaged weights ("ema", ours) are the better ones. In
# OpenMMLab's they are "state_dict" already: its hooks swap them in before they save, MMEngine's leaves the last step's
# in "ema_state_dict" and MMCV's in buffers beside (which `load` drops). "best_state_dict" of HRNet's code is no better
# one, but the same without "module.".
_NESTS = ("ema", "state_dict", "model")
_DEEPEST = 8  # nests in each other; a hostile file may nest one in itself


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The arrays of a weights file, in the order of the file, as they are stored.

    Args:
        path: an MXNet, PyTorch or safetensors file, recognised by content, or darknet's, which by content could be
            anything and so must be called `.weights`. That has no names: all its numbers are under `darknet.NUMBERS`.

    Raises:
        PosezooError: the file is missing, damaged, or of no known kind.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "mxnet":
        return {key: torch.from_numpy(array) for key, array in mxnet.read_params(path).items()}
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "torch":
        return _read_torch(path)
    if kind == "darknet":
        return {darknet.NUMBERS: darknet.read_numbers(path)}
    what = "a web page" if kind == "page" else "no weights file" if path.stat().st_size else "empty"
    raise PosezooError(f"{path} is {what}: expected {KNOWN}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors.torch", "torch", f"reading {path.name}")
    from safetensors import SafetensorError

    try:
        return safetensors.load_file(path)
    except SafetensorError as err:
        raise PosezooError(f"{path} is not a whole safetensors file: {err}") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The weights of a PyTorch checkpoint, by its own safe reader, or by ours where it holds more than arrays."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > path.stat().st_size:  # PyTorch stores its arrays uncompressed
                raise PosezooError(f"{path} would unpack to {size} bytes: not a PyTorch checkpoint")
        try:
            found = _innermost(torch.load(path, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError:
            found = inert.load(path, _innermost)
    except PosezooError:
        raise
    except Exception as err:  # a damaged file can fail anywhere inside the unpickler, in any way
        reason = re.split(r"\.\s|\n", str(err).strip())[0] or "cut short"  # PyTorch's advice fills a screen
        raise PosezooError(f"{path} is not a whole PyTorch checkpoint: {reason}") from None
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise PosezooError(f"{path} holds no named arrays: save a network's state_dict(), not the network")
    return tensors


def _innermost(content: Any) -> Mapping[Any, Any]:
    """The innermost of nested mappings; empty where there is none."""
    found: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
    for _ in range(_DEEPEST):
        nests = [found[name] for name in _NESTS if isinstance(found.get(name), Mapping)]
        if not nests:
            break
        found = nests[0]
    return found
