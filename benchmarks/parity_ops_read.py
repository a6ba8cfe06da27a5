"""How the fixtures of single operations are read, and what comparing with one of them gives.

A fixture holds arrays whole (`shape`, `data`) or as samples (`shape`, `sum`, `values` at `fill.sample_index`), and
names its inputs as calls of `fill.py`, such as "4*make_heatmaps(2,17,64,48,seed=6)".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]
Fixture = dict[str, Any]

# of the peer's standard deviation: two runs of a peer differ by up to 1.7e-5 of it
TOLERANCE = 1e-4
# pixels for each pixel of the largest coordinate: the peers compute places in float32, this is 8 of its steps
FLOAT32 = 1e-6
# grey levels: between OpenCV 4.8 and 5.0 a crop differs by up to as much
GREY_LEVELS = 2.0
# grey levels of the mean over a crop: between those versions 0.013
MEAN_GREY_LEVEL = 0.05

_CALL = re.compile(r"(?:([\d.]+)\s*\*\s*)?(make_\w+)\(([^()]*)\)")


@dataclass(frozen=True)
class Result:
    """One comparison: what of the peer's, with which function of posezoo, how far apart, and how far is still equal."""

    what: str
    ours: str
    error: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.error <= self.tolerance  # not where the error is no number


Check = Callable[[Fixture, ModuleType], list[Result]]


def make(text: str, fill: ModuleType) -> Any:
    """What the call of `fill.py` in a fixture's text gives."""
    match = _CALL.search(text)
    if match is None:
        raise ValueError(f"no call of fill.py in '{text}'")
    factor, function, arguments = match.groups()
    positional, named = [], {}
    for argument in filter(None, (a.strip() for a in arguments.split(","))):
        name, _, value = argument.rpartition("=")
        if name:
            named[name.strip()] = int(value)
        else:
            positional.append(int(value))
    made = getattr(fill, function)(*positional, **named)
    return made if factor is None else (made * float(factor)).astype(made.dtype)


def array(entry: Any) -> Doubles:
    """A whole array, or a list of them stacked."""
    if isinstance(entry, list):
        return np.array([array(part) for part in entry])
    return np.array(entry["data"], np.float64).reshape(entry["shape"])


def distance(got: ArrayLike, wanted: ArrayLike) -> float:
    """The largest difference; infinite where shapes differ, a number is none, or there is nothing to compare."""
    ours, theirs = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if ours.shape != theirs.shape or ours.size == 0:
        return float("inf")
    largest = float(np.abs(ours - theirs).max())
    return largest if np.isfinite(largest) else float("inf")


def sampled_distance(got: ArrayLike, entry: dict[str, Any], fill: ModuleType) -> tuple[float, float]:
    """The largest difference at a fixture's samples, and that of the means of the whole arrays."""
    ours = np.asarray(got, np.float64)
    if list(ours.shape) != entry["shape"]:
        return float("inf"), float("inf")
    samples = ours.reshape(-1)[fill.sample_index(ours.size, len(entry["values"]))]
    return distance(samples, entry["values"]), distance(ours.sum(), entry["sum"]) / ours.size


def map_result(what: str, ours: str, got: ArrayLike, entry: dict[str, Any], fill: ModuleType) -> Result:
    """An array of a network or codec against the peer's, whole or sampled, in units of the peer's spread."""
    if "values" in entry:
        error, spread = max(sampled_distance(got, entry, fill)), float(np.std(entry["values"]))
    else:
        error, spread = distance(got, array(entry)), float(np.std(array(entry)))
    return Result(what, ours, error / (spread or 1.0), TOLERANCE)


def place_result(what: str, ours: str, got: ArrayLike, wanted: ArrayLike) -> Result:
    """Coordinates, in pixels."""
    largest = float(np.abs(np.asarray(wanted, np.float64)).max(initial=0.0))
    return Result(what, ours, distance(got, wanted), max(TOLERANCE, FLOAT32 * largest))


def number_result(what: str, ours: str, got: ArrayLike, wanted: ArrayLike) -> Result:
    """Scores, weights, similarities and the like, none of them much above 1."""
    return Result(what, ours, distance(got, wanted), TOLERANCE)


def same_result(what: str, ours: str, got: ArrayLike, wanted: ArrayLike) -> Result:
    """Rows or pixels chosen: 0 where they are the same, else 1."""
    same = np.array_equal(np.asarray(got), np.asarray(wanted))
    return Result(what, ours, 0.0 if same else 1.0, 0.0)


def worst(results: Sequence[Result]) -> Result:
    """The result of several cases of one thing: the one nearest to, or furthest beyond, its tolerance."""
    return max(results, key=lambda result: result.error - result.tolerance)
