"""What a zoo's own network computed with weights filled from their names: the fixtures of the shared folder."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posezoo.zoo.weights import load
from posezoo.zoo.weights.layout import Layout

TOLERANCE = 1e-4  # of the output's standard deviation; two runs of a peer differ by up to 1.7e-5


def read_fixture(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def keys_of(fixture: dict[str, Any]) -> list[str]:
    return [key for key, _, _ in fixture["state_dict"]]


def arrays_of(fixture: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights under the zoo's own names."""
    from fill import fill

    scale = fixture["log2_scale"]
    return {k: torch.from_numpy(np.asarray(fill(k, shape, scale.get(k, 0)))) for k, shape, _ in fixture["state_dict"]}


def layout_of(fixture: dict[str, Any]) -> Layout:
    """The one that `load_weights` takes for these names."""
    return next((one for one in load.LAYOUTS if one.recognise(keys_of(fixture))), load.OURS)


def input_of(fixture: dict[str, Any]) -> torch.Tensor:
    from fill import make_input

    _, _, height, width = fixture["input_shape"]
    return torch.from_numpy(make_input(height, width))


def difference(fixture: dict[str, Any], outputs: list[torch.Tensor]) -> float:
    """The largest at the samples of any output, in standard deviations of the zoo's."""
    from fill import sample_index

    worst = 0.0
    for wanted, output in zip(fixture["outputs"], outputs, strict=True):
        assert list(output.shape) == wanted["shape"]
        samples = output.numpy().ravel()[sample_index(output.numel())]
        worst = max(worst, float(np.abs(samples - wanted["values"]).max() / wanted["std"]))
    return worst
