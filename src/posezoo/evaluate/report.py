"""The result of an evaluation: the figures, how they came about, and beside them what the model's source claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from posezoo.words import counted
from posezoo.zoo.entry import Score

PERCENT = ("mpii", "posetrack18")
"""Datasets whose metrics are in percent; the others' are fractions."""
PIXELS = ("EPE",)

_WHOLE = "wholebody/"
_PARTS = ("body", "foot", "face", "lefthand", "righthand", "wholebody")
COLUMNS = {
    "crowdpose": ("AP", "AP50", "AP75", "APE", "APMedium", "APH"),
    "wholebody133": tuple(f"{part}/{name}" for part in _PARTS for name in ("AP", "AR")),
}
"""The order in which the zoos' tables have them, where it is not that of the metric itself; the rest follows."""


@dataclass
class Report:
    """One evaluation of one model on one dataset.

    Attributes:
        model: its name.
        dataset: its name.
        protocol: all that the figures depend on, in one line.
        settings: the same, field by field.
        metrics: name to figure, as measured here.
        claimed: what the model's source claims on this dataset, as printed there.
        counts: "images", "people", "predictions", "missing".
        missing: the pictures that were not there or not readable, and why.
        arguments: all that the figures depend on, with a digest of each file; see `refuse_other_result`.
        seconds: from the first picture to the last of this call, reading included; those of an earlier one are not.
        people_per_second: within them; None where nobody was left to look at, or several processes shared the work.
        versions: of what computed it.
        device: where, such as "onnx on cpu".
        date: when, ISO 8601.
        command: how.
        notes: whatever else one should know, such as that an earlier run was gone on with.
        files: what was written, by kind.
    """

    model: str
    dataset: str
    protocol: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    claimed: Sequence[Score] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    people_per_second: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    date: str = ""
    command: str = ""
    notes: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, see `finite`."""
        return {key: finite(value) for key, value in asdict(self).items()}

    def table(self) -> tuple[list[str], list[list[str]], list[str]]:
        """One line a metric: as measured, and a column for each claim, in the unit that the first claim is printed in.

        Returns:
            Columns, rows, and the notes: the protocol measured by, then that of each claim.
        """
        unit = self.claimed[0].unit if self.claimed else _own_unit(self.dataset)
        heads = [f"claimed [{number}]" for number in range(1, len(self.claimed) + 1)]
        rows = []
        for name in printed(self.metrics, self.dataset):
            cells = [_cell(_claim(score, name), name, score.unit, unit) for score in self.claimed]
            rows.append([name, _cell(self.metrics[name], name, _own_unit(self.dataset), unit), *cells])
        notes = [f"measured: {self.protocol}"]
        for number, score in enumerate(self.claimed, 1):
            flip = {True: ", with flip", False: ", no flip", None: ""}[score.flip]
            notes.append(f"[{number}] claimed: {score.protocol}{flip}")
        return [f"{self.dataset}, {unit}", "measured", *heads], rows, notes

    def text(self) -> str:
        """The table as plain text, with all that belongs to it."""
        columns, rows, notes = self.table()
        lines = [columns, *rows] if rows else []  # of a split without labels there is no figure
        widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(columns))]
        body = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        missing = f", {counted(self.counts['missing'], 'picture')} missing" if self.counts.get("missing") else ""
        pictures = counted(self.counts.get("images", 0), "picture")
        people = f"{counted(self.counts.get('people', 0), 'person', 'people')} in {pictures}{missing}"
        if "images" not in self.counts:  # a file that was judged: whose pictures they are of, nobody looked
            people = counted(self.counts.get("predictions", 0), "prediction")
        how = "; ".join(part for part in (people, self.device, self.date) if part)
        tail = [*notes, *self.notes, how, self.command]
        return "\n".join(line.rstrip() for line in [self.model, *body, *tail] if line) + "\n"


def ordered(metrics: Mapping[str, float], dataset: str) -> list[str]:
    """The names of the metrics in the order of the zoos' tables."""
    first = [name for name in COLUMNS.get(dataset, ()) if name in metrics]
    return first + [name for name in metrics if name not in first]


def printed(metrics: Mapping[str, float], dataset: str) -> list[str]:
    """As `ordered`, each figure once: those of a whole body also go by their names alone, for whoever asks for AP."""
    return [name for name in ordered(metrics, dataset) if f"{_WHOLE}{name}" not in metrics]


def finite(value: Any) -> Any:
    """Without the numbers that JSON does not have: None in their place."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_figure(value: float) -> bool:
    """Whether there was anybody to judge: -1 and NaN say that there was not."""
    return value != -1 and not math.isnan(value)


def _claim(score: Score, name: str) -> float | None:
    """What a source claims of a metric; of a whole body it may say just AP."""
    return score.metrics.get(name, score.metrics.get(name.removeprefix(_WHOLE)))


def _own_unit(dataset: str) -> str:
    return "percent" if dataset in PERCENT else "fraction"


def _cell(value: float | None, name: str, given: str, wanted: str) -> str:
    """A figure in the unit wanted; "-" where there was nobody to judge."""
    if value is None:
        return ""
    if not is_figure(value):
        return "-"
    if name in PIXELS:
        return f"{value:.2f} px"
    if given != wanted:
        value = value * 100 if wanted == "percent" else value / 100
    return f"{value:.4f}" if wanted == "fraction" else f"{value:.2f}"
