"""`Row`: what was measured of one network in one setting; as JSON, as CSV with all it depends on, and back."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from posezoo.bench.machine import machine_facts
from posezoo.errors import PosezooError
from posezoo.files import atomic_path

DUMMY, IMAGES = "dummy", "images"


class Stage(NamedTuple):
    """One step of the pipeline, in milliseconds a picture.

    Attributes:
        ms: by the clock.
        cpu_ms: of all threads of this process together.
    """

    ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Row:
    """One network in one setting.

    Attributes:
        model: as it was named.
        runtime: what really computed it.
        precision: in which numbers.
        batch_size: crops of a network call.
        threads: of the CPU.
        device: "cpu" or "cuda".
        latency_ms: the median: of a batch on dummy data; on images, of one of them through the whole pipeline.
        images_per_second: crops on dummy data (the network alone), images through the whole pipeline.
        data: "dummy" or "images".
        weights: "own", "random", or a file.
        flip: whether the mirrored crop was computed too, and both averaged.
        input: height x width of the network's input.
        entry: the zoo's entry that the network is, where one is known.
        spread: how far the middle half of the calls lies apart, as a share of the median.
        wall_ms: the median by the clock; not `latency_ms` where that is by the GPU's own events.
        cpu_ms: the median CPU time, of all threads.
        memory_mb: what it took more at the worst moment than there was before it was opened (on CUDA: of the GPU's
            memory, by torch); None where that is not known.
        calls: how many were timed.
        images: how many there were.
        people: how many were found in them.
        stages: the steps of the pipeline, by name, on images.
    """

    model: str
    runtime: str
    precision: str
    batch_size: int
    threads: int
    device: str
    latency_ms: float
    images_per_second: float
    data: str
    weights: str
    flip: bool
    input: str
    entry: str | None
    spread: float
    wall_ms: float
    cpu_ms: float
    memory_mb: float | None
    calls: int
    images: int | None = None
    people: int | None = None
    stages: Mapping[str, Stage] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, numbers rounded to what they mean."""
        found = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        if self.stages is not None:
            found["stages"] = {
                name: {"ms": round(stage.ms, 4), "cpu_ms": round(stage.cpu_ms, 4)}
                for name, stage in self.stages.items()
            }
        return found


_PLAIN = tuple(f.name for f in fields(Row) if f.name != "stages")
_FLOATS = ("latency_ms", "images_per_second", "spread", "wall_ms", "cpu_ms", "memory_mb")
_WHOLE = ("batch_size", "threads", "calls", "images", "people")


def with_facts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with what they depend on: the machine, the versions, the date and the command; without their stages."""
    facts = {device: machine_facts(device) for device in {row.device for row in rows}}
    return [{**{key: row.to_dict()[key] for key in _PLAIN}, **facts[row.device]} for row in rows]


def write_csv(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write the rows with what they depend on, and their stages as columns of their own.

    Raises:
        PosezooError: the file cannot be written.
    """
    lines = with_facts(rows)
    for row, line in zip(rows, lines, strict=True):
        for step, took in (row.to_dict()["stages"] or {}).items():
            line.update({f"{step} {kind}": value for kind, value in took.items()})
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def merge_csv(
    path: str | os.PathLike[str], lines: Sequence[Mapping[str, Any]], same: Sequence[str] = ("model", "processor")
) -> None:
    """Put what was measured now into a table, with what it depends on, beside what was measured elsewhere.

    Args:
        path: a CSV; made where there is none.
        lines: the new rows, of one set of columns; `machine_facts` is added to each.
        same: the columns that tell what was measured; a line of the file that agrees with a new one in all goes.
    """
    facts = machine_facts()
    now = [{**line, **facts} for line in lines]
    measured = {tuple(str(line[key]) for key in same) for line in now}
    kept: list[dict[str, Any]] = []
    if os.path.isfile(path):
        with open(path, newline="", encoding="utf-8") as file:
            kept = [line for line in csv.DictReader(file) if tuple(line.get(key) for key in same) not in measured]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(now[0]), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *now])


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What `write_csv` wrote, a dict a row: numbers as numbers, nothing as None, the stages left out.

    Raises:
        PosezooError: there is no such file, or it is another kind of file.
    """
    name = os.fspath(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise PosezooError(f"no such file: {name}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise PosezooError(f"cannot read {name}: {getattr(err, 'strerror', None) or err}") from None
    missing = [column for column in _PLAIN if not lines or column not in lines[0]]
    if missing:
        raise PosezooError(f"{name} is no file that posezoo benchmark --csv wrote: it has no {', '.join(missing[:4])}")
    facts = tuple(machine_facts())
    try:
        return [{key: _value(key, line.get(key)) for key in (*_PLAIN, *facts)} for line in lines]
    except ValueError as err:
        raise PosezooError(f"{name}: {err}") from None


def _value(key: str, text: str | None) -> Any:
    """A cell of the file as what it was."""
    if not text:
        return None
    if key in _FLOATS:
        return float(text)
    if key in _WHOLE:
        return int(text)
    return text == "True" if key == "flip" else text
