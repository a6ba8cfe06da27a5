"""The zoo as text: what `posezoo list` and `posezoo show` print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from posezoo.errors import PosezooError, unknown_name
from posezoo.zoo.costs import get_cost
from posezoo.zoo.entry import Entry, Score

# what a dataset's evaluation is summed up in; a score has one of them
MAIN_METRICS = ("AP", "Mean", "PCK/Mean", "Mean_acc", "Total")
_SMALLER_IS_BETTER = ("params", "GFLOPs", "latency")

Table = tuple[list[str], list[list[str]]]


def entry_dict(entry: Entry) -> dict[str, Any]:
    """An entry as JSON holds it, with what its network costs."""
    cost = get_cost(entry)
    return {**asdict(entry), "cost": cost and asdict(cost)}


def sort_entries(entries: Sequence[Entry], metric: str, on: str | None = None) -> list[Entry]:
    """Best first by a metric as claimed, or by "name", "params" or "GFLOPs", smallest first; without it, last.

    Args:
        entries: what to sort.
        metric: its name in any case, such as "AP" or "mean@0.1".
        on: count scores on this dataset only.

    Raises:
        UnknownNameError: none of the entries has such a metric.
    """
    if metric.lower() == "name":
        return sorted(entries, key=lambda entry: entry.name)
    scores = [score for entry in entries for score in _scores(entry, on)]
    known = {name.lower(): name for score in scores for name in score.metrics}
    known.update({name.lower(): name for name in ("params", "GFLOPs")})
    if metric.lower() not in known:
        raise unknown_name("metric", metric, ["name", *known.values()], "(such as AP, Mean, params, GFLOPs or name)")
    name = known[metric.lower()]

    def rank(entry: Entry) -> float:
        if name in ("params", "GFLOPs"):
            cost = get_cost(entry)
            return math.inf if cost is None else cost.params if name == "params" else cost.summary_macs
        return min((_rank(score, name) for score in _scores(entry, on)), default=math.inf)

    return sorted(entries, key=rank)


def summary_table(entries: Iterable[Entry]) -> Table:
    """One line an entry; the claim is the best of its main metric on the dataset it was trained on, in percent."""
    columns = ["model", "HxW", "keypoints", "#params", "GFLOPs", "claimed", "measured"]
    rows = []
    for entry in entries:
        cost = get_cost(entry)
        sizes = [f"{cost.params / 1e6:.1f}M", f"{cost.summary_gflops:.1f}"] if cost else ["", ""]
        best = [_best(entry.claimed, entry.dataset), _best(entry.measured, None)]
        rows.append([entry.name, _size(entry), entry.skeleton or "", *sizes, *best])
    return columns, rows


def score_table(
    entries: Iterable[Entry], on: str, sort: str | None = None
) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """One line for every score that a source claims on a dataset, with all its numbers: accuracies in percent.

    Sources print percent or fractions; in one column they would be read as one unit.

    Args:
        entries: of which models.
        on: the dataset.
        sort: a metric, best first; what is none leaves the entries' order.

    Returns:
        Columns, rows, and the protocols, each after the number in brackets by which the last column points to it.

    Raises:
        PosezooError: none of the entries has a score on it.
    """
    lines = [(entry, score) for entry in entries for score in _scores(entry, on)]
    if not lines:
        raise PosezooError(f"none of these models claims a score on {on}")
    metrics = list(dict.fromkeys(name for _, score in lines for name in score.metrics))
    by = next((name for name in metrics if sort is not None and name.lower() == sort.lower()), None)
    if by is not None:
        lines.sort(key=lambda line: _rank(line[1], by))
    protocols = list(dict.fromkeys(score.protocol for _, score in lines))
    rows = []
    for entry, score in lines:
        values = [_in_percent(score, name) if name in score.metrics else "" for name in metrics]
        flip = {True: "yes", False: "no", None: ""}[score.flip]
        rows.append([entry.name, _size(entry), *values, flip, f"[{protocols.index(score.protocol) + 1}]"])
    numbered = [[f"[{number}]", protocol] for number, protocol in enumerate(protocols, 1)]
    return ["model", "HxW", *metrics, "flip", ""], rows, numbered


def entry_fields(entry: Entry) -> list[list[str]]:
    """Everything about one entry, field by field; a score or a file of weights a line; empty ones left out."""
    rows = []
    for key, value in asdict(entry).items():
        if key in ("claimed", "measured"):
            rows += [[key, score_line(score)] for score in getattr(entry, key)]
        elif key == "claimed_cost":
            rows += _cost_rows(entry)
        elif key == "weights":
            rows += [[key, _weights_line(weights)] for weights in value]
        elif key == "input_size_wh":
            rows.append(["input", f"{value[0]} wide, {value[1]} high"])
        elif isinstance(value, dict):
            rows += [[f"{key} {name}", str(part)] for name, part in value.items()]
        elif value not in (None, "", ()):
            rows.append([key, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)])
    return rows


def score_line(score: Score) -> str:
    """A score in one line: its numbers as printed, then how they came about."""
    numbers = "  ".join(f"{name} {_number(score, name)}" for name in score.metrics)
    flip = {True: ", with flip", False: ", no flip", None: ""}[score.flip]
    return f"{numbers}  on {score.dataset}{flip}: {score.protocol}"


def _weights_line(weights: dict[str, Any]) -> str:
    state = "dead link" if weights["dead"] else ""
    return "  ".join(part for part in (weights["file"], *weights["urls"], state, weights["note"]) if part)


def _cost_rows(entry: Entry) -> list[list[str]]:
    """Counted parameters and work beside what the source says."""
    cost = get_cost(entry)
    if cost is None:
        return [[f"{name} claimed", f"{value:g}"] for name, value in entry.claimed_cost.items()]
    params = _beside(cost.params / 1e6, entry.claimed_cost.get("params"), " M", 2)
    gflops = _beside(cost.summary_gflops, entry.claimed_cost.get("gflops"), "", 2)
    how = f"as HRNet's summary counts; {cost.gmacs:.2f} x 10^9 multiply-adds"
    return [["parameters", params], ["GFLOPs", f"{gflops}, {how}"]]


def _beside(counted: float, claimed: float | None, unit: str, digits: int) -> str:
    text = f"{counted:.{digits}f}{unit} counted"
    if claimed is None:
        return text
    return f"{text}, {claimed:g}{unit} claimed, difference {counted - claimed:+.{digits}f}{unit}"


def _scores(entry: Entry, on: str | None) -> list[Score]:
    return [score for score in entry.claimed if on in (None, score.dataset)]


def _rank(score: Score, metric: str) -> float:
    """Smaller for a better score, over sources that print in percent or fractions; infinite without the metric."""
    if metric not in score.metrics:
        return math.inf
    percent = score.percent(metric)
    value = score.metrics[metric] if percent is None else percent
    return value if metric in _SMALLER_IS_BETTER else -value


def _number(score: Score, metric: str) -> str:
    """As printed; a unit that is neither percent nor a fraction stands behind it."""
    digits = {"fraction": 3, "percent": 1}.get(score.unit)
    value = score.metrics[metric]
    return f"{value:g} {score.unit}" if digits is None else f"{value:.{digits}f}"


def _in_percent(score: Score, metric: str) -> str:
    """An accuracy in percent; whatever else it is, with its unit."""
    percent = score.percent(metric)
    return _number(score, metric) if percent is None else f"{percent:.1f}"


def _best(scores: Iterable[Score], dataset: str | None) -> str:
    """The best main metric, in percent, on a dataset (on the first one's, where it is None)."""
    for metric in MAIN_METRICS:
        found = [(value, s.dataset) for s in scores if (value := s.percent(metric)) is not None]
        found = [(value, name) for value, name in found if dataset in (None, name)] or found
        if found:
            value, name = max(found)
            return f"{metric} {value:.1f} {name}"
    return ""


def _size(entry: Entry) -> str:
    width, height = entry.input_size_wh
    return f"{height}x{width}"
