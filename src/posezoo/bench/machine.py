"""What a figure depends on beside the network: the machine, the versions, the day and the command."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

from posezoo import __version__
from posezoo.cpu import cpu_name

_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")


def machine_facts(device: str = "cpu") -> dict[str, str]:
    """The machine, its processor (and its GPU, for `device` "cuda"), the versions, the date and the command."""
    return {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs",
        "processor": gpu_name() if device == "cuda" else cpu_name(),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "command": own_command(),
    }


def gpu_name() -> str:
    """The first GPU's name, by torch."""
    import torch

    return torch.cuda.get_device_name()


def versions() -> str:
    """posezoo, Python, and of the packages that compute those that are installed."""
    found = [f"posezoo {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def own_command() -> str:
    """How this process was called; `python -m posezoo` is called posezoo."""
    first, *rest = sys.argv
    return shlex.join(["posezoo" if Path(first).name == "__main__.py" else Path(first).name, *rest])
