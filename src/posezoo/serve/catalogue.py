"""The zoo and the keypoint sets as the API shows them; a client's name is looked up here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from posezoo.errors import PosezooError
from posezoo.serve.refusals import Refusal
from posezoo.skeletons import get_skeleton, list_skeletons
from posezoo.zoo import find_entry, get_entry, list_models
from posezoo.zoo.costs import get_cost
from posezoo.zoo.entry import Entry, Score
from posezoo.zoo.table import MAIN_METRICS, entry_dict

_SPEEDS = ("speed", "latency")


def model_rows() -> list[dict[str, Any]]:
    """A row for each pose network of the zoo."""
    return [_row(get_entry(name)) for name in list_models()]


def file_row(name: str, skeleton: str, input_size_wh: tuple[int, int]) -> dict[str, Any]:
    """The row of a model that is served from a file, of which the zoo knows nothing."""
    unknown = dict.fromkeys(("source", "family", "dataset", "params_m", "gflops", "claimed", "measured", "licence"))
    return {"name": name, **unknown, "speeds": [], "aliases": [], **_shape(skeleton, input_size_wh)}


def entries() -> dict[str, dict[str, Any]]:
    """Every pose network whole, as `posezoo show NAME --json` prints it, by name."""
    return {name: entry_dict(get_entry(name)) for name in list_models()}


def name_of(given: str) -> str:
    """The name of the pose network that goes by `given`: its name, an alias, a hash tag, a config or file.

    What a client sends is compared with names, and never with what is on this machine's disk.

    Raises:
        Refusal: no network goes by it, or several do (it lists them).
    """
    try:
        entry = find_entry(given)
    except PosezooError as err:
        raise Refusal("unknown_model", err) from None
    if entry is None:
        raise Refusal("unknown_model", f"the zoo has no model '{given[:120]}': /v1/models lists them")
    if entry.task != "pose":
        what = f"'{given[:120]}' is {entry.name}, which finds people and no joints"
        raise Refusal("unknown_model", f"{what}: /v1/models lists the pose networks")
    return entry.name


def skeleton_rows() -> dict[str, dict[str, Any]]:
    """Every keypoint set, by name; edges and mirror as rows of `joints`."""
    return {name: _skeleton(name) for name in list_skeletons()}


def _row(entry: Entry) -> dict[str, Any]:
    cost = get_cost(entry)
    return {
        "name": entry.name,
        "source": entry.source,
        "family": entry.family,
        "dataset": entry.dataset,
        **_shape(str(entry.skeleton), entry.input_size_wh),
        "params_m": cost and round(cost.params / 1e6, 2),
        "gflops": cost and round(cost.summary_gflops, 2),
        "claimed": _best(entry.claimed, entry.dataset),
        "measured": _best(entry.measured, entry.dataset),
        "speeds": [speed for kind in ("claimed", "measured") for speed in _speeds(entry, kind)],
        "licence": dict(entry.licence),
        "aliases": list(entry.aliases),
    }


def _shape(skeleton: str, input_size_wh: tuple[int, int]) -> dict[str, Any]:
    return {"skeleton": skeleton, "joints": len(get_skeleton(skeleton)), "input_size_wh": list(input_size_wh)}


def _best(scores: Sequence[Score], dataset: str) -> dict[str, Any] | None:
    """The best score by its main metric, in percent, on the dataset trained on if there is one; None without any."""
    for metric in MAIN_METRICS:
        found = [(value, score) for score in scores if (value := score.percent(metric)) is not None]
        found = [(value, score) for value, score in found if score.dataset == dataset] or found
        if found:
            value, score = max(found, key=lambda pair: pair[0])
            how = {"dataset": score.dataset, "flip": score.flip, "protocol": score.protocol}
            return {"metric": metric, "percent": round(value, 2), **how}
    return None


def _speeds(entry: Entry, kind: Literal["claimed", "measured"]) -> list[dict[str, Any]]:
    """What its source, or a measurement here, says of how fast it is."""
    scores: Sequence[Score] = getattr(entry, kind)
    return [
        {
            "kind": kind,
            "metric": name,
            "value": value,
            "unit": score.unit,
            "protocol": score.protocol,
            "flip": score.flip,
        }
        for score in scores
        for name, value in score.metrics.items()
        if name in _SPEEDS
    ]


def _skeleton(name: str) -> dict[str, Any]:
    skeleton = get_skeleton(name)
    sides = [skeleton.side(joint) for joint in skeleton.joints]
    return {
        "name": name,
        "joints": list(skeleton.joints),
        "edges": skeleton.edge_index.tolist(),
        "sides": ["none" if side == "center" else side for side in sides],
        "mirror": skeleton.mirror_index.tolist(),
    }
