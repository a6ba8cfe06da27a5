"""The points of the chart: speeds that were measured here, joined with the accuracy of the same network.

Two rules keep apart what is not the same. A network computed in INT8 is never shown with the accuracy of its floating
point self, nor one with flip beside an accuracy without, or the other way round. And what a source claims is another
kind of point than what was measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posezoo.zoo import get_entry
from posezoo.zoo.costs import get_cost
from posezoo.zoo.entry import Entry, Score

METRIC = "AP"
CLAIMED, MEASURED = "claimed", "measured"
INT8 = "int8"


def points_of(lines: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """A point for every result and every accuracy that belongs to it.

    Args:
        lines: results of benchmarks, see `posezoo.bench.rows.read_csv`.

    Returns:
        The points, fastest first, and what was left out and why, a sentence each.

    Raises:
        PosezooError: a result names an entry that the zoo does not have.
    """
    points: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for line in lines:
        if line["entry"] is None:
            left_out["a file that does not say which model of the zoo it is"] += 1
            continue
        entry = get_entry(line["entry"])
        scores = [(kind, s) for kind in (CLAIMED, MEASURED) for s in getattr(entry, kind) if METRIC in s.metrics]
        # two pages of one source may state the same figure
        fitting = {(kind, s.dataset, s.percent(METRIC)): (kind, s) for kind, s in reversed(scores) if _belongs(s, line)}
        points += [_point(line, entry, kind, score) for kind, score in fitting.values()]
        if not fitting:
            left_out[_reason(line, [score for _, score in scores])] += 1
    points.sort(key=lambda point: -point["images_per_second"])
    return points, [f"left out {number}: {reason}" for reason, number in left_out.items()]


def _belongs(score: Score, line: Mapping[str, Any]) -> bool:
    """Whether an accuracy is that of the network as it was timed."""
    same_numbers = is_int8(score) == (line["precision"] == INT8)
    return same_numbers and (score.flip or False) == line["flip"]


def is_int8(score: Score) -> bool:
    """Whether a score is of a quantised network: its protocol says so."""
    return "quantised to int8" in score.protocol.lower()


def _reason(line: Mapping[str, Any], scores: Sequence[Score]) -> str:
    """Why a result has no accuracy to be drawn at."""
    if not scores:
        return f"no source gives an {METRIC}"
    if not any(is_int8(score) == (line["precision"] == INT8) for score in scores):
        return f"no {METRIC} is known of the network in {line['precision']}"
    with_flip = "with flip only: measure --flip too" if not line["flip"] else "without flip only: measure that too"
    return f"the {METRIC} is {with_flip}"


def _point(line: Mapping[str, Any], entry: Entry, kind: str, score: Score) -> dict[str, Any]:
    cost = get_cost(entry)
    return {
        **line,
        "model": entry.name,
        "file": None if line["model"] == entry.name else line["model"],
        "short": _short(entry),
        "family": entry.family,
        "zoo": entry.source,
        "dataset": score.dataset,
        "AP": score.percent(METRIC),
        "kind": kind,
        "protocol": score.protocol,
        "params_m": round(cost.params / 1e6, 2) if cost else None,
        "gmacs": round(cost.gmacs, 2) if cost else None,
        "setting": setting(line),
    }


def setting(line: Mapping[str, Any]) -> str:
    """What was timed, but for the model: "openvino int8, batch 1, 1 thread on AMD EPYC"."""
    threads = f"{line['threads']} {'thread' if line['threads'] == 1 else 'threads'} on "
    where = line["processor"] if line["device"] != "cpu" else threads + line["processor"]
    pipeline = "" if line["data"] == "dummy" else ", whole pipeline"
    return f"{line['runtime']} {line['precision']}, batch {line['batch_size']}, {where}{pipeline}"


def _short(entry: Entry) -> str:
    """A name to stand beside a point: the architecture, and the input where it is not the usual one."""
    width, height = entry.input_size_wh
    name = entry.arch.removeprefix("simple_pose_").removeprefix("pose_").replace("_pose_", " ")
    return name if (height, width) == (256, 192) else f"{name} {height}x{width}"
