"""`Row`: what was measured of one network in one setting; as JSON, as CSV with all it depends on, and back."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from posezoo.bench.machine import machine_facts
from posezoo.deploy.runtimes.base import DEVICES, PRECISIONS
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
        spread: how far the middle half of the calls lies apart, as a share of the median; None of a single call.
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
    spread: float | None
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

    A spreadsheet may have had it in its hands meanwhile: TRUE is True, and a mark at its beginning is none of its text.

    Raises:
        PosezooError: there is no such file, it is another kind of file, or a cell holds what it cannot have held.
    """
    name = os.fspath(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            lines = [(reader.line_num, line) for line in reader]
    except FileNotFoundError:
        raise PosezooError(f"no such file: {name}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise PosezooError(f"cannot read {name}: {getattr(err, 'strerror', None) or err}") from None
    if missing:
        raise PosezooError(f"{name} is no file that posezoo benchmark --csv wrote: it has no {', '.join(missing[:4])}")
    return [
        {
            column: _value(line[column] or "", cell, f"{name}, line {number}, {column}")
            for column, cell in _COLUMNS.items()
        }
        for number, line in lines
    ]


class _Cell(NamedTuple):
    """What a cell holds: `read` makes it of the text, or raises ValueError or KeyError; `wants` says it in words."""

    read: Callable[[str], Any]
    wants: str
    may_be_empty: bool = False


def _value(text: str, cell: _Cell, where: str) -> Any:
    """A cell of the file as what it was."""
    text = text.strip()
    if not text and cell.may_be_empty:
        return None
    try:
        return cell.read(text)
    except (ValueError, KeyError):
        raise PosezooError(f"{where}: {repr(text) if text else 'nothing'}, where {cell.wants} should be") from None


def _above_zero(value: Any) -> Any:
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _from_zero(value: Any) -> Any:
    return value and _above_zero(value)


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _one_of(*names: str) -> _Cell:
    return _Cell({name: name for name in names}.__getitem__, " or ".join(names))


_TEXT = _Cell(_text, "text")
_COUNT = _Cell(lambda text: _above_zero(int(text)), "a whole number above 0")
_ABOVE = _Cell(lambda text: _above_zero(float(text)), "a number above 0")
_FROM = _Cell(lambda text: _from_zero(float(text)), "a number, 0 or more,")
_COLUMNS: dict[str, _Cell] = {
    **dict.fromkeys((*_PLAIN, "machine", "processor", "versions", "date", "command"), _TEXT),
    **dict.fromkeys(("latency_ms", "images_per_second"), _ABOVE),
    **dict.fromkeys(("wall_ms", "cpu_ms"), _FROM),
    **dict.fromkeys(("spread", "memory_mb"), _FROM._replace(may_be_empty=True)),
    **dict.fromkeys(("batch_size", "threads", "calls"), _COUNT),
    "images": _COUNT._replace(may_be_empty=True),
    "people": _Cell(lambda text: _from_zero(int(text)), "a whole number, 0 or more,", may_be_empty=True),
    "entry": _TEXT._replace(may_be_empty=True),
    "precision": _one_of(*PRECISIONS[1:]),  # but for "auto"
    "device": _one_of(*DEVICES[1:]),
    "data": _one_of(DUMMY, IMAGES),
    "flip": _Cell(lambda text: {"true": True, "1": True, "false": False, "0": False}[text.casefold()], "True or False"),
}
