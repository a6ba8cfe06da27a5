"""The weights of a GluonCV network, and what its own zoo computed with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

SMALL = "mobile_pose_mobilenetv3_small"


def filled(arch: str, parity: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A GluonCV fixture and its parameters under their structural names."""
    from fill import fill

    fixture = json.loads(gzip.decompress((parity / "gluoncv" / f"{arch}.json.gz").read_bytes()))
    scale = fixture["log2_scale"]
    return fixture, {key: fill(key, shape, scale.get(key, 0)) for key, shape, _ in fixture["state_dict"]}
