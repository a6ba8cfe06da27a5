"""What a run is to do: its settings, and the parts that it is cut into, both kept in the output folder.

    DIR/run.json        the settings that the results depend on, and the sources
    DIR/plan.parquet    the items of every part

A part, once planned, never changes: its number names its files, so that doing it twice is doing it once. A run that
goes on adds parts for files that are new in its sources.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from posezoo.batch.parts import Counts, read_counts, sweep
from posezoo.batch.sources import PICTURE, Item, find_items
from posezoo.deploy.runtimes import is_network_file
from posezoo.detect import kind_of_file
from posezoo.errors import PosezooError, require
from posezoo.files import atomic_path, write_atomic
from posezoo.identity import check_same_run, digest_of
from posezoo.media.images import check_megapixels

RUN, PLAN = "run.json", "plan.parquet"
FORMAT = 1
MOST_IMAGES, FEWEST_IMAGES = 1000, 8  # loose pictures of a part
_ALL = None  # groups of rows


@dataclass(frozen=True)
class Settings:
    """What the results depend on: a run goes on only with the same.

    Attributes:
        model: a name or a file.
        weights: a checkpoint instead of the model's own.
        detector: a name or a file; see `posezoo.detect.get_detector`.
        runtime: see `posezoo.deploy.runtimes.open_runtime`.
        precision: see there.
        flip: average over the mirrored crop too.
        min_score: leave out people whose score is below it; None: as `posezoo predict` does.
        max_megapixels: refuse larger pictures.
        every: of a video, take the first frame and then every so many.
        column: of Parquet files, which has the pictures.
    """

    model: str = "embedded"
    weights: str | None = None
    detector: str = "embedded"
    runtime: str = "auto"
    precision: str = "auto"
    flip: bool = False
    min_score: float | None = None
    max_megapixels: float | None = None
    every: int = 1
    column: str | None = None

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise PosezooError(f"min-score must be between 0 and 1, but is {self.min_score:g}")
        if self.max_megapixels is not None:
            check_megapixels(self.max_megapixels)
        if self.every < 1:
            raise PosezooError(f"every must be at least 1 (each frame), but is {self.every}")
        if self.detector.partition(":")[0] == "follow":
            raise PosezooError("follow looks for one person from frame to frame, and batch takes pictures in any order")

    def absolute(self) -> Settings:
        """With the files named in full, as another process needs them."""
        files = {name: os.path.abspath(path) for name, path in self._files().items()}
        return replace(self, **files)  # type: ignore[arg-type]

    def said(self) -> dict[str, Any]:
        """For run.json: of a file, what is in it counts too."""
        found = asdict(self)
        for name, path in self._files().items():
            digest = digest_of(Path(path), "*")  # of a folder of boxes its own files
            found[name] = f"{os.path.abspath(path)} (sha256 {digest[:16]})"
        return found

    def _files(self) -> dict[str, str]:
        """Those that are given as files or folders, and are there."""
        named = {"weights": self.weights}
        if is_network_file(self.model):
            named["model"] = self.model
        if kind_of_file(self.detector):
            named["detector"] = self.detector
        return {name: value for name, value in named.items() if value is not None and os.path.exists(value)}


@dataclass(frozen=True)
class Part:
    """What one worker does as a whole."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Plan:
    """All parts of a run.

    Attributes:
        output: the folder of the results.
        folder: where relative paths start.
        parts: in order; their numbers count from 0.
        done: what is in those that are done, by number.
    """

    output: Path
    folder: str
    parts: list[Part] = field(repr=False)
    done: dict[int, Counts] = field(repr=False)

    def to_do(self) -> list[Part]:
        """The parts that are not done."""
        return [part for part in self.parts if part.number not in self.done]


def make_plan(
    sources: Sequence[str], output: Path, settings: Settings, workers: int, *, retry_errors: bool = False
) -> Plan:
    """The plan of a new run, or of one that goes on in `output`, which is locked.

    Args:
        sources: paths, folders, globs and lists.
        output: the folder of the results.
        settings: what they depend on.
        workers: how many share the work: a small folder is cut into smaller parts, so that all have some.
        retry_errors: do the parts again in which something could not be read.

    Raises:
        PosezooError: sources with nothing in them, or a folder that is of another run, or of none.
    """
    folder = os.getcwd()
    said: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings.said(),
        "sources": [_absolute(source) for source in sources],
    }
    earlier = _read_run(output)
    if earlier is None:
        parts: list[Part] = []
    else:
        before = {**earlier.get("settings", {}), "sources": earlier.get("sources")}
        now = {**said["settings"], "sources": said["sources"]}
        check_same_run(before, now, output, "Give the same, or another folder with -o")
        folder, parts = str(earlier["folder"]), read_plan(output / PLAN)
    found = find_items(sources, leave_out=output)
    planned = {(_path(item, folder), item.first if item.groups else _ALL) for part in parts for item in part.items}
    new = [item for item in found if planned.isdisjoint(_covering(item))]
    if folder != os.getcwd():
        new = [item._replace(path=os.path.abspath(item.path)) for item in new]
    if new or earlier is None:
        parts += cut(new, workers, len(parts))
        # in this order: a run.json without a plan would be a run with nothing to do
        write_plan(output / PLAN, parts)
        write_atomic(output / RUN, json.dumps({**said, "folder": folder}, indent=2) + "\n")
    sweep(output)
    done = read_counts(output, [part.number for part in parts])
    if retry_errors:
        done = {number: counts for number, counts in done.items() if not counts.errors}
    return Plan(output, folder, parts, done)


def cut(items: Sequence[Item], workers: int, start: int = 0) -> list[Part]:
    """Items into parts, numbered from `start`: pictures together, anything larger by itself."""
    loose = sum(item.kind == PICTURE for item in items)
    size = min(MOST_IMAGES, max(FEWEST_IMAGES, math.ceil(loose / (4 * max(workers, 1)))))
    cuts: list[list[Item]] = []
    for item in items:
        together = item.kind == PICTURE and cuts and cuts[-1][0].kind == PICTURE and len(cuts[-1]) < size
        if together:
            cuts[-1].append(item)
        else:
            cuts.append([item])
    return [Part(number, tuple(each)) for number, each in enumerate(cuts, start)]


def _covering(item: Item) -> list[tuple[str, int | None]]:
    """The file and the first group of rows of what an item is done with: the same one, or the whole file."""
    path = _path(item, os.getcwd())
    return [(path, item.first), (path, _ALL)]


def _path(item: Item, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, item.path))


def _absolute(source: str) -> str:
    return os.path.abspath(os.path.expanduser(source))


def _read_run(output: Path) -> dict[str, Any] | None:
    """What an earlier run in the folder said of itself; None for a folder that is empty.

    Raises:
        PosezooError: there are files of something else in it.
    """
    path = output / RUN
    try:
        others = sorted(each.name for each in output.iterdir() if each.name != PLAN and each.name[0] != ".")
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(earlier, dict) and earlier.get("format") == FORMAT and isinstance(earlier.get("folder"), str):
                return earlier
            raise PosezooError(f"{path} was made by another version of posezoo: choose another folder with -o")
    except (OSError, ValueError) as err:
        raise PosezooError(f"cannot read {path}: {err}; choose another folder with -o") from None
    if others:
        raise PosezooError(f"the output folder {output} has other files in it ({others[0]}): choose another with -o")
    return None


def write_plan(path: Path, parts: Sequence[Part]) -> None:
    """Write all parts, a row an item."""
    pyarrow: Any = require("pyarrow", "batch", "posezoo batch")
    parquet: Any = require("pyarrow.parquet", "batch", "posezoo batch")
    rows = [(part.number, *item) for part in parts for item in part.items]
    names = ("part", *Item._fields)
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    # a name that is no Unicode comes back as it was
    columns[2] = tuple(os.fsencode(path) for path in columns[2])
    kinds = (pyarrow.int32(), pyarrow.string(), pyarrow.binary(), pyarrow.int32(), pyarrow.int32())
    arrays = [pyarrow.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(dict(zip(names, arrays, strict=True))), temporary, compression="zstd")


def read_plan(path: Path) -> list[Part]:
    """What `write_plan` wrote.

    Raises:
        PosezooError: there is no plan, or it is damaged.
    """
    pyarrow: Any = require("pyarrow", "batch", "posezoo batch")
    parquet: Any = require("pyarrow.parquet", "batch", "posezoo batch")
    try:
        columns = parquet.read_table(path).to_pydict()
        rows = zip(*(columns[name] for name in ("part", *Item._fields)), strict=True)
    except (OSError, pyarrow.ArrowException, KeyError) as err:
        raise PosezooError(f"cannot read the plan {path}: {' '.join(str(err).split())}") from None
    parts: dict[int, list[Item]] = {}
    for number, kind, name, first, count in rows:
        parts.setdefault(number, []).append(Item(kind, os.fsdecode(name), first, count))
    return [Part(number, tuple(items)) for number, items in parts.items()]
