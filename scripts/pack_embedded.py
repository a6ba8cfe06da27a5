"""Put a trained network into the package: half-precision safetensors and the ONNX file made from the same numbers.

    python scripts/pack_embedded.py pose runs/embedded_pose/best.safetensors [MORE.safetensors ...]
    python scripts/pack_embedded.py detector runs/embedded_detector/best.safetensors

Of several files the mean of the weights is taken: the stages that end a training lie close together, and their mean
is better than each (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").

The entry in `zoo/entries/embedded.toml` says which architecture it is and what the ONNX file's metadata holds.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import posezoo.zoo as zoo
from posezoo.deploy.export import detector_metadata, export_onnx, halve
from posezoo.deploy.metadata import metadata_of
from posezoo.estimator import NetworkSpec
from posezoo.files import atomic_path
from posezoo.models.build import build
from posezoo.skeletons import get_skeleton
from posezoo.zoo.weights import load_weights

FOLDER = Path(zoo.__file__).parent / "embedded"
ENTRIES = {"pose": "embedded", "detector": "embedded-detector"}


def main() -> None:
    """Read the arguments, write the two files, say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(ENTRIES))
    parser.add_argument("weights", type=Path, nargs="+", help="best.safetensors of the training run, or of several")
    arguments = parser.parse_args()
    entry = zoo.get_entry(ENTRIES[arguments.kind])
    joints = len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0
    model = mean_of([load_weights(build(entry.arch, joints), file) for file in arguments.weights])

    packed = FOLDER / f"{arguments.kind}.safetensors"
    with atomic_path(packed) as temporary:
        save_file(halve(model.state_dict()), temporary, {"entry": entry.name, "licence": entry.licence["weights"]})
    model = build(entry.arch, joints)
    load_weights(model, packed)  # the rounded numbers: both files hold the same ones
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    if entry.detector is not None:
        metadata, outputs = detector_metadata(values, entry), ["scores", "boxes_xyxy"]
    else:
        metadata, outputs = metadata_of(NetworkSpec.of(values), entry, arch=entry.arch), ["heatmaps"]
    exported = packed.with_suffix(".onnx")
    error = export_onnx(
        model, exported, entry.input_size_wh, outputs, metadata, any_size=entry.detector is not None, half=True
    )
    for file in (packed, exported):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, sha256 {digest}")
    print(f"largest difference between ONNX Runtime and torch: {error:.1e} standard deviations of the output")


def mean_of(models: Sequence[nn.Module]) -> nn.Module:
    """The first of the networks, with the mean of the weights of all."""
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, first in states[0].items():
            if first.is_floating_point():
                first.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    return models[0]


if __name__ == "__main__":
    main()
