"""People and recipes made here, for the tests of training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from posezoo.models.build import build  # noqa: E402
from posezoo.skeletons import Skeleton, get_skeleton  # noqa: E402
from posezoo.train.pose import PoseTask  # noqa: E402
from posezoo.train.recipe import Recipe  # noqa: E402

CPU = torch.device("cpu")
RED, BLUE = (255, 0, 0), (0, 0, 255)
AS_IT_IS = {"flip": 0, "scale": 0, "rotation": 0, "half_body": 0}  # of augmentation: none


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def write_people(folder: Path, skeleton: Skeleton, pictures: int = 3, each: int = 2) -> Path:
    """Grey pictures of people whose even joints are where red is, and whose odd joints are where blue is."""
    rng, images, entries = np.random.default_rng(0), [], []
    for number in range(pictures):
        picture = np.full((200, 100 * each, 3), 90 + 20 * number, np.uint8)
        for person in range(each):
            box = [100 * person + 10.0, 10.0, 80.0, 180.0]
            places = np.array([box[0] + rng.uniform(15, 65, 2), rng.uniform(30, 150, 2)]).T
            for colour, place in zip((RED, BLUE), places, strict=True):
                cv2.circle(picture, tuple(int(v) for v in place.round()), 9, colour, -1)
            joints = places.round()[np.arange(len(skeleton)) % 2]
            keypoints = np.column_stack([joints, np.full(len(skeleton), 2)]).reshape(-1).tolist()
            entries.append(
                {"id": len(entries) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
                 "area": 80 * 180.0, "keypoints": keypoints, "num_keypoints": len(skeleton)}
            )  # fmt: skip
        images.append({"id": number, "file_name": f"{number}.png", "width": picture.shape[1], "height": 200})
        cv2.imwrite(str(folder / f"{number}.png"), picture[..., ::-1])
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": [{"id": 1, "name": "person"}]}))
    return path


def recipe_of(folder: Path, arch: str = "none", **parts: Any) -> Recipe:
    """A recipe of `write_people`'s, whose samples are crops of 64 x 64 as they are."""
    skeleton = parts.pop("skeleton", "coco17")
    source = parts.pop("train", {"annotations": "people.json", "images": "."})
    data = {"root": folder, "train": source, "skeleton": skeleton, **parts.pop("data", {})}
    small = {"input": {"size_wh": (64, 64), **parts.pop("input", {})}, "augment": {**AS_IT_IS}}
    return Recipe.model_validate({"name": "tiny", "model": {"arch": arch}, "data": data, **small, **parts})


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of `write_people` for a skeleton."""
    folders: dict[str, Path] = {}

    def folder_of(skeleton: str) -> Path:
        if skeleton not in folders:
            folders[skeleton] = tmp_path_factory.mktemp(skeleton)
            write_people(folders[skeleton], get_skeleton(skeleton))
        return folders[skeleton]

    return folder_of


def batch_of(task: PoseTask, rows: int | None = None) -> dict[str, Tensor]:
    samples = [task.dataset[0, row] for row in range(rows or len(task.dataset))]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


class Given(nn.Module):
    """A network that gives these maps, whatever it sees."""

    def __init__(self, maps: Tensor):
        super().__init__()
        self.maps = nn.Parameter(maps)

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return self.maps


def fit(task: PoseTask, arch: str, steps: int, rate: float) -> tuple[nn.Module, list[float]]:
    """The network after so many steps on the whole dataset at once, in eval mode; and the loss of each."""
    model, batch, losses = build(arch, task.joints).train(), batch_of(task), []
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / 5) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss, _ = task.loss(model, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses
