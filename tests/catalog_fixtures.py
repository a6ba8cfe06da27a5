"""The samples of every dataset, for the tests of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posezoo.data.coco_style import People
from posezoo.data.readers import read_dataset

# dataset: folder of the samples, split, file, people, those with labels, labelled joints (all counted in the files)
SAMPLES: dict[str, tuple[str, str, str, int, int, int]] = {
    "coco": ("coco", "sample", "test_coco.json", 14, 12, 181),
    "ochuman": ("ochuman", "sample", "test_ochuman.json", 5, 5, 73),
    "crowdpose": ("crowdpose", "sample", "test_crowdpose.json", 5, 4, 47),
    "aic": ("aic", "sample", "test_aic.json", 9, 9, 101),
    "mhp": ("mhp", "sample", "test_mhp.json", 4, 4, 41),
    "mpii": ("mpii", "sample", "test_mpii.json", 5, 5, 76),
    "mpii_trb": ("mpii", "sample", "test_mpii_trb.json", 5, 5, 181),
    "posetrack18": ("posetrack18", "val", "annotations/val", 14, 14, 182),
    "jhmdb": ("jhmdb", "sample", "test_jhmdb_sub1.json", 3, 3, 45),
    "halpe26": ("halpe", "sample", "test_halpe.json", 14, 12, 228),
    "halpe136": ("halpe", "sample", "test_halpe.json", 14, 12, 856),
    "halpe68": ("halpe", "sample", "test_halpe.json", 14, 12, 374),
    "wholebody133": ("coco", "sample", "test_coco_wholebody.json", 14, 12, 701),
    "hand21": ("onehand10k", "sample", "test_onehand10k.json", 4, 4, 63),
}


def sample(shared: Path, name: str) -> tuple[Path, Path]:
    """A dataset's sample file and its folder."""
    folder, _, file, *_ = SAMPLES[name]
    return shared / "samples" / folder / file, shared / "samples" / folder


def read(shared: Path, name: str) -> People:
    file, folder = sample(shared, name)
    return read_dataset(name, file, folder)


def content(shared: Path, name: str) -> Any:
    return json.loads(sample(shared, name)[0].read_text())


def written(folder: Path, value: Any, name: str = "annotations.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def content_of(path: Path) -> Any:
    return json.loads(path.read_text())
