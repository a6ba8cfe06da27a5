"""Crops of people to calibrate a network with, cut as the estimator cuts them.

From pictures, the packaged detector finds the people; from a labelled set they are cut at their boxes. Which ones, and
in which order, depends on nothing but the set: a seed shuffles them, so that the first few are of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posezoo.crop import box_to_affine, crop_images
from posezoo.data.catalog import find, get_dataset
from posezoo.errors import PosezooError
from posezoo.media.images import find_images, read_image

if TYPE_CHECKING:
    from posezoo.detect import Detector
    from posezoo.estimator import NetworkSpec
    from posezoo.evaluate.plan import Task

BATCHES, BATCH_SIZE = 5, 32  # what the INT8 page of GluonCV's models takes
_SEED = 0
_MAX_MISSING = 0.5  # of the pictures of a labelled set: whom the others show is enough

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Labelled:
    """A labelled set.

    Attributes:
        dataset: whose annotations they are.
        annotations: the file (posetrack18: the folder).
        images: the folders that its pictures may be in.
    """

    dataset: str
    annotations: Path
    images: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of people.

    Attributes:
        pixels: (N, h, w, 3) uint8 RGB.
        source: where they are from, in words.
        nobody: in how many of the pictures that were looked at nobody was found.
        unreadable: pictures that could not be read, and why.
    """

    pixels: NDArray[np.uint8]
    source: str
    nobody: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    def split(self, batches: int, batch_size: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Whole batches to calibrate with, and the crops that are held back to check it with (at most a batch).

        Raises:
            PosezooError: there are too few for so many batches.
        """
        if batches < 1 or batch_size < 1:
            raise PosezooError(f"batches and their size must be 1 or more, but are {batches} and {batch_size}")
        asked = batches * batch_size
        if len(self) < asked:
            fits = len(self) // batch_size
            mend = f"give --batches {fits}" if fits else f"give --batches 1 --batch-size {len(self)}"
            raise PosezooError(
                f"there are {len(self)} people in {self.source}, too few for {batches} batches of {batch_size}: "
                f"{mend}, or more pictures"
            )
        whole = [self.pixels[start : start + batch_size] for start in range(0, asked, batch_size)]
        return whole, self.pixels[asked : asked + batch_size]


def labelled_set(
    calibration: Path, dataset: str | None, images: Sequence[Path], annotations: Path | None = None
) -> Labelled | None:
    """The labelled set that a path stands for, or None where it is a folder of pictures.

    Args:
        calibration: an annotation file, the folder of a dataset as its owners lay it out, or a folder of pictures.
        dataset: whose annotations those are; None: COCO's for a file.
        images: the folders of the pictures; needed for a file.
        annotations: a file instead of the one in the folder of the dataset.

    Raises:
        PosezooError: no such file or folder, or a file without the folder of its pictures.
    """
    if not calibration.exists():
        raise PosezooError(f"no such file or folder: {calibration}")
    if calibration.is_file():
        if calibration.suffix.lower() not in (".json", ".mat"):
            raise PosezooError(f"{calibration} is neither a folder of pictures nor a file of annotations (.json)")
        if not images:
            raise PosezooError(f"the people of {calibration} are in pictures: give their folder with --images DIR")
        return Labelled(dataset or "coco", calibration, tuple(images))
    if dataset is None and annotations is None and images:
        raise PosezooError("--images is the folder of annotated people: give --annotations FILE, or leave it out")
    if dataset is None or annotations is not None:
        return None
    entry = get_dataset(dataset)
    splits = {each.split: each for each in find(entry, calibration)}
    if not splits:
        raise PosezooError(
            f"{calibration} has no annotations of {dataset} where that dataset keeps them (posezoo data check "
            f"{dataset} shows where): give them with --annotations FILE and --images DIR, or leave --dataset out"
        )
    found = splits.get(entry.split) or next(iter(splits.values()))
    return Labelled(dataset, found.annotations, tuple(images) or found.images)


def tasks_of(labelled: Labelled) -> tuple[list[Task], dict[str, str]]:
    """The pictures of a labelled set with the people whom an evaluation looks for, and which are missing.

    Raises:
        PosezooError: a file that cannot be read, is not the dataset's or has nobody labelled; missing pictures.
    """
    from posezoo.data.readers import read_dataset
    from posezoo.evaluate.plan import plan, present
    from posezoo.evaluate.protocol import get_protocol

    people = read_dataset(labelled.dataset, labelled.annotations, list(labelled.images))
    if not (people.weights > 0).any():
        raise PosezooError(f"nobody in {labelled.annotations} has a labelled joint: it cannot be calibrated with")
    return present(plan(people, labelled.dataset, get_protocol("plain", labelled.dataset)), _MAX_MISSING)


def crops_of_people(spec: NetworkSpec, labelled: Labelled, most: int, progress: Progress | None = None) -> Crops:
    """At most so many crops at the boxes of a labelled set, of those people whom an evaluation looks for.

    Raises:
        PosezooError: a file that cannot be read, is not the dataset's or has nobody labelled; missing pictures.
    """
    from posezoo.data.pictures import read_labelled
    from posezoo.evaluate.plan import refuse_missing

    tasks, missing = tasks_of(labelled)
    boxes = np.concatenate([task.boxes.xyxy for task in tasks])
    picture_of = np.repeat(np.arange(len(tasks)), [len(task.boxes) for task in tasks])
    chosen = np.random.default_rng(_SEED).permutation(len(boxes))[:most]
    pictures = np.unique(picture_of[chosen])
    width, height = spec.input_size_wh
    pixels, seen = np.empty((len(chosen), height, width, 3), np.uint8), np.ones(len(chosen), bool)
    for number, picture in enumerate(pictures.tolist(), 1):
        mine, task = np.flatnonzero(picture_of[chosen] == picture), tasks[picture]
        try:
            pixels[mine] = _cut(spec, read_labelled(task.path, task.size_wh), boxes[chosen[mine]])
        except PosezooError as err:
            seen[mine], missing[str(task.path)] = False, str(err)
            refuse_missing(missing, len(tasks), _MAX_MISSING)
        if progress is not None:
            progress(number, len(pictures))
    return Crops(pixels if seen.all() else pixels[seen], str(labelled.annotations), unreadable=missing)


def crops_of_pictures(
    spec: NetworkSpec,
    folder: Path,
    most: int,
    detector: Detector | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Crops:
    """At most so many crops of the people that a detector finds in a folder of pictures.

    Pictures in which it finds nobody, or that cannot be read, are left out and counted.

    Args:
        spec: of the network to calibrate.
        folder: of pictures; those in folders within it do not count.
        most: how many crops.
        detector: who finds the people; None: the packaged one.
        progress: called with the crops that were found, and `most`.
        threads: of the CPU, that the packaged detector computes with; None:
            `posezoo.deploy.runtimes.default_threads`.

    Raises:
        PosezooError: no picture in the folder, none that can be read, or nobody in any of them.
    """
    from posezoo.detect import get_detector

    paths = find_images(folder)
    detector = get_detector("embedded", threads=threads) if detector is None else detector
    found: list[NDArray[np.uint8]] = []
    count = nobody = 0
    unreadable: dict[str, str] = {}
    for number in np.random.default_rng(_SEED).permutation(len(paths)).tolist():
        try:
            image = read_image(paths[number])
        except PosezooError as err:
            unreadable[str(paths[number])] = str(err)
            continue
        (boxes,) = detector([image], names=[str(paths[number])])
        if not len(boxes):
            nobody += 1
            continue
        found.append(_cut(spec, image, boxes.xyxy[: most - count]))
        count += len(found[-1])
        if progress is not None:
            progress(count, most)
        if count >= most:
            break
    if not found:
        first = f"; {next(iter(unreadable.values()))}" if unreadable else ""
        readable = (
            f"nobody was found in the {nobody} pictures of {folder}"
            if nobody
            else f"no picture of {folder} can be read"
        )
        raise PosezooError(f"{readable}: give pictures of people{first}")
    return Crops(np.concatenate(found), str(folder), nobody, unreadable)


def _cut(spec: NetworkSpec, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray) -> NDArray[np.uint8]:
    """The crop of each box, as `posezoo.Estimator` makes it."""
    to_crop = box_to_affine(boxes_xyxy, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    return crop_images(image_rgb, to_crop, spec.input_size_wh)
