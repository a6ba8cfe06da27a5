"""CLEAR MOT: how well people are followed (Bernardin and Stiefelhagen, EURASIP J. Image and Video Processing, 2008)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# a truth's track, a found one's, and the distance between them; only pairs that are near enough to be one
Near = tuple[int, int, float]


@dataclass(frozen=True)
class Followed:
    """What came of following one video: pairs made, how many of them changed partners, and their summed distance."""

    detections: int = 0
    switches: int = 0
    distance: float = 0.0

    def __add__(self, other: Followed) -> Followed:
        return Followed(
            self.detections + other.detections, self.switches + other.switches, self.distance + other.distance
        )


def follow(frames: Iterable[Sequence[Near]]) -> Followed:
    """Pair the truth with what was found, frame by frame.

    A pair lasts as long as both are near. The others are paired anew: as many as can be, with the least summed
    distance. One whose truth was last with another found track is a switch, however long ago that was.

    Args:
        frames: of one video, in time; in each frame the pairs that are near enough, ordered by truth.
    """
    last: dict[int, int] = {}
    detections, switches, total = 0, 0, 0.0
    for near in frames:
        kept: dict[int, Near] = {}
        for truth, found, distance in near:
            if last.get(truth) == found and found not in kept:
                kept[found] = (truth, found, distance)
        bound = {truth for truth, _, _ in kept.values()}
        free = [pair for pair in near if pair[0] not in bound and pair[1] not in kept]
        new = _assign(free)
        switches += sum(last.get(truth, found) != found for truth, found, _ in new)
        for truth, found, distance in (*kept.values(), *new):
            last[truth] = found
            detections += 1
            total += distance
    return Followed(detections, switches, total)


def _assign(near: Sequence[Near]) -> list[Near]:
    """As many of the pairs as can stand together, with the least summed distance."""
    truths, founds = (sorted({pair[side] for pair in near}) for side in (0, 1))
    if len(truths) == len(near) == len(founds):
        return list(near)
    # an impossible pair costs more than all possible ones together, so that few are made
    impossible = 1.0 + 2.0 * sum(distance for _, _, distance in near)
    cost = np.full((len(truths), len(founds)), impossible)
    for truth, found, distance in near:
        cost[truths.index(truth), founds.index(found)] = distance
    rows, columns = assignment(cost)
    return [
        (truths[r], founds[c], float(cost[r, c])) for r, c in zip(rows, columns, strict=True) if cost[r, c] < impossible
    ]


def assignment(cost: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairing of rows and columns with the least summed cost: each row of a wide matrix, each column of a tall one.

    The Hungarian method by shortest augmenting paths, O(n^2 m) (Jonker and Volgenant, Computing 38, 1987).

    Args:
        cost: (n, m) finite.

    Returns:
        rows and columns of the min(n, m) pairs.
    """
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assignment(cost.T)
        return rows, columns
    count, width = cost.shape
    row_of = np.full(width, -1)
    row_price, column_price = np.zeros(count), np.zeros(width)
    for start in range(count):
        shortest = np.full(width, np.inf)
        before = np.full(width, -1)
        done = np.zeros(width, bool)
        row, column, reached = start, -1, 0.0
        while True:
            length = reached + cost[row] - row_price[row] - column_price
            better = ~done & (length < shortest)
            shortest[better], before[better] = length[better], column
            column = int(np.where(done, np.inf, shortest).argmin())
            reached = shortest[column]
            done[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        seen = np.flatnonzero(done & (row_of >= 0))
        row_price[start] += reached
        row_price[row_of[seen]] += reached - shortest[seen]
        column_price[done] -= reached - shortest[done]
        while column >= 0:  # turn the path round
            previous = int(before[column])
            row_of[column] = start if previous < 0 else row_of[previous]
            column = previous
    columns = np.flatnonzero(row_of >= 0)
    order = np.argsort(row_of[columns])
    return row_of[columns][order], columns[order]
