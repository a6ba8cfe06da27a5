"""Put a trained network into the package: half-precision safetensors and the ONNX file made from the same numbers.

    python scripts/pack_embedded.py pose runs/embedded_pose/best.safetensors
    python scripts/pack_embedded.py detector runs/embedded_detector/best.safetensors

The entry in `zoo/entries/embedded.toml` says which architecture it is and what the ONNX file's metadata holds.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from safetensors.torch import save_file

import posezoo.zoo as zoo
from posezoo.deploy.export import export_onnx, halve
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
    parser.add_argument("weights", type=Path, help="best.safetensors of the training run")
    arguments = parser.parse_args()
    entry = zoo.get_entry(ENTRIES[arguments.kind])
    joints = len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0
    model = build(entry.arch, joints)
    load_weights(model, arguments.weights)

    packed = FOLDER / f"{arguments.kind}.safetensors"
    with atomic_path(packed) as temporary:
        save_file(halve(model.state_dict()), temporary, {"entry": entry.name, "licence": entry.licence["weights"]})
    model = build(entry.arch, joints)
    load_weights(model, packed)  # the rounded numbers: both files hold the same ones
    metadata = {"name": entry.name, "channels": entry.channels, "mean": entry.mean, "std": entry.std}
    if entry.detector is not None:
        metadata |= {"detector": dict(entry.detector)}
        outputs = ["scores", "boxes_xyxy"]
    else:
        metadata |= {"skeleton": entry.skeleton, "codec": entry.codec, "input_size_wh": entry.input_size_wh}
        metadata |= {"box_scale": entry.box_scale, "flip_shift": entry.flip_shift}
        outputs = ["heatmaps"]
    exported = packed.with_suffix(".onnx")
    error = export_onnx(
        model, exported, entry.input_size_wh, outputs, metadata, any_size=entry.detector is not None, half=True
    )
    for file in (packed, exported):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, sha256 {digest}")
    print(f"largest difference between ONNX Runtime and torch: {error:.1e} standard deviations of the output")


if __name__ == "__main__":
    main()
