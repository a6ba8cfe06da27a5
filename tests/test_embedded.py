"""The pair that ships inside the package: both files of each network agree, and the pair finds people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from posezoo import Estimator, get_entry, get_skeleton
from posezoo.data.coco_style import read_json
from posezoo.deploy.runtimes import open_runtime
from posezoo.media.images import read_image
from posezoo.zoo import packaged_file

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORKS = ("embedded", "embedded-detector")


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_and_onnx_runtime_agree(name: str) -> None:
    pytest.importorskip("torch")
    entry = get_entry(name)
    width, height = entry.input_size_wh
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    pairs = zip(open_runtime(entry, "torch")(x), open_runtime(entry, "onnx")(x), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(theirs, ours, atol=1e-3 * ours.std())


def test_the_files_are_small_and_described() -> None:
    files = [packaged_file(get_entry(name), suffix) for name in NETWORKS for suffix in (".onnx", ".safetensors")]
    assert all(file is not None and file.is_file() for file in files)
    assert sum(file.stat().st_size for file in files if file) < 30e6
    for file in files:
        card = file.with_suffix(".md").read_text()  # type: ignore[union-attr]
        for word in ("Data", "Recipe", "Hardware", "Measured", "Licence", "Limits"):
            assert f"## {word}" in card, (file, word)


def test_it_finds_the_player_of_the_example() -> None:
    poses = Estimator()(read_image(EXAMPLES / "basketball.png"))
    assert len(poses) >= 1
    best = poses[int(poses.scores.mean(1).argmax())]
    xy = dict(zip(get_skeleton("coco17").joints, best.keypoints_xy[0], strict=True))
    # the man on the left faces us and stands: his left is on the picture's right
    assert xy["nose"][1] < xy["left_shoulder"][1] < xy["left_hip"][1] < xy["left_knee"][1] < xy["left_ankle"][1]
    assert xy["left_shoulder"][0] > xy["right_shoulder"][0]
    assert 20 < best.keypoints_xy[0, :, 0].mean() < 160


def test_quality_on_photographs_with_human_labels(shared: Path) -> None:
    """A floor well under the measured figures, on a few people, so that a broken pipeline cannot pass."""
    folder = shared / "data" / "coco_dev"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    truth = read_json(folder / "annotations.json")
    people = [a for a in truth["annotations"] if a.get("num_keypoints", 0) >= 13 and not a["iscrowd"]][:12]
    names = {i["id"]: i["file_name"] for i in truth["images"]}
    boxes = np.array([a["bbox"] for a in people], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    images = [read_image(folder / "images" / names[a["image_id"]]) for a in people]
    found = Estimator(detector=None)(images, [box[None] for box in boxes])
    similarity = []
    for annotation, poses in zip(people, found, strict=True):
        labels = np.reshape(annotation["keypoints"], (17, 3)).astype(float)
        squares = ((poses.keypoints_xy[0] - labels[:, :2]) ** 2).sum(1)
        spread = (2 * get_skeleton("coco17").oks_sigmas) ** 2
        similarity.append(np.exp(-squares / (2 * annotation["area"] * spread))[labels[:, 2] > 0].mean())
    assert len(people) == 12
    assert np.mean(similarity) > 0.6
