"""The catalogue of datasets: what `catalog.toml` says of each, and which of its files lie in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from posezoo import toml
from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton, get_skeleton

_FILE = "catalog.toml"
AREAS = ("annotation", "box")


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset lies on disk.

    Attributes:
        of: who lays it out so.
        splits: of each split, the annotations (a file, or a folder of one file a video) and the folders that its
            pictures may be in; all relative to the dataset's folder.
    """

    of: str
    splits: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class BoxFile:
    """A file of detected people that published figures were made with."""

    split: str
    file: str
    what: str


@dataclass(frozen=True)
class Dataset:
    """One dataset of the zoos.

    Attributes:
        name: such as "crowdpose".
        title: what its owners call it.
        paper: where it was published.
        skeleton: the name of the keypoint set that people are read in.
        reader: the name of the function that reads it, see `posezoo.data.readers`.
        folder: what its folder is usually called.
        home: its owners' page.
        licence: who may use it, as far as known.
        registration: whether one has to register, or fill in a form, to get it.
        get: where its parts are had.
        metric: how it is judged: oks, wholebody, pckh, pck, trb, posetrack or hand.
        split: the one that published figures are of.
        boxes: whose boxes those used: "gt", one of `box_files`, or a detector in words.
        layouts: the ways it may lie on disk.
        box_files: files of detected people.
        area: what OKS takes as a person's area: the "annotation"'s, or 0.53 of the "box".
        boxes_from: what the boxes were made of, where the dataset has none.
        file_sets: the keypoint sets that a file of it may be in; joints are picked by name.
        spelled: what a file calls a joint, and what the skeleton calls it.
        unread: originals that are not read, and what to get instead.
        people, images: how many a split has, where that is known.
    """

    name: str
    title: str
    paper: str
    skeleton: str
    reader: str
    folder: str
    home: str
    licence: str
    registration: bool
    get: tuple[str, ...]
    metric: str
    split: str
    boxes: str
    layouts: tuple[Layout, ...]
    box_files: tuple[BoxFile, ...] = ()
    area: str = "annotation"
    boxes_from: str = ""
    file_sets: tuple[str, ...] = ()
    spelled: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    people: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.skeleton, *self.file_sets):
            get_skeleton(name)
        if self.area not in AREAS:
            raise unknown_name(f"area of {self.name}", self.area, AREAS)

    @property
    def joints(self) -> Skeleton:
        """The keypoint set that people are read in."""
        return get_skeleton(self.skeleton)

    @property
    def sets(self) -> tuple[Skeleton, ...]:
        """The keypoint sets that a file of it may be in."""
        return tuple(get_skeleton(name) for name in self.file_sets or (self.skeleton,))


@dataclass(frozen=True)
class Found:
    """A split that is there: its annotations, the folders its pictures may be in, and whose layout it is in."""

    split: str
    annotations: Path
    images: tuple[Path, ...]
    of: str


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return toml.load(resources.files(__package__).joinpath(_FILE))


def list_datasets() -> list[str]:
    """The names of the datasets, in the order of the catalogue."""
    return list(_tables())


@cache
def get_dataset(name: str) -> Dataset:
    """The dataset called `name`; always the same object.

    Raises:
        UnknownNameError: there is no such dataset; the message has the nearest names.
    """
    tables = _tables()
    if name not in tables:
        raise unknown_name("dataset", name, tables)
    table: dict[str, Any] = dict(tables[name])
    like = table.pop("like", None)
    if like is not None:
        table = {**tables[like], **table}
    known = {f.name for f in fields(Dataset)}
    for key in table:
        if key not in known:
            raise PosezooError(f"{_FILE}, {name}: {unknown_name('key', key, known)}")
    layouts = tuple(Layout(row["of"], {k: tuple(v) for k, v in row["splits"].items()}) for row in table["layouts"])
    box_files = tuple(BoxFile(**row) for row in table.get("box_files", ()))
    lists: dict[str, Any] = {key: tuple(table[key]) for key in ("get", "file_sets") if key in table}
    table.update({**lists, "name": name, "layouts": layouts, "box_files": box_files})
    return Dataset(**table)


def find(dataset: Dataset, root: Path) -> Iterator[Found]:
    """The splits of `dataset` that are in the folder `root`, or in the folder of the dataset's usual name within it.

    Of several layouts of a split the first is taken.

    Raises:
        PosezooError: `root` is not a folder.
    """
    if not root.is_dir():
        what = "is a file; give the folder it lies in" if root.is_file() else "does not exist"
        raise PosezooError(f"the folder {root} of {dataset.name} {what}")
    seen: set[str] = set()
    for place in (root, root / dataset.folder):
        for layout in dataset.layouts:
            for split, (file, *folders) in layout.splits.items():
                if split not in seen and (place / file).exists():
                    seen.add(split)
                    yield Found(split, place / file, tuple(place / folder for folder in folders), layout.of)


def wanted(dataset: Dataset, split: str | None = None) -> str:
    """The annotation files that would do, for a message."""
    return "; ".join(
        f"{layout.of}: " + ", ".join(paths[0] for name, paths in layout.splits.items() if split in (None, name))
        for layout in dataset.layouts
        if split is None or split in layout.splits
    )
