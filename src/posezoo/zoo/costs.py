"""What an entry's network costs: counted once from the built network, kept in costs.toml, so that no torch is needed.

`scripts/count_costs.py` writes the file; the tests count again and compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from posezoo import toml
from posezoo.zoo.entry import Entry
from posezoo.zoo.store import HERE

PATH = HERE / "costs.toml"


@dataclass(frozen=True)
class Cost:
    """The size of a network and the work of one crop through it.

    Attributes:
        params: trainable parameters.
        macs: multiply-adds of convolutions and matrix products.
        summary_macs: the same as HRNet's model summary counts them, so that its "GFLOPs" can be compared: convolutions
            and linear layers only, and a deconvolution as if its whole kernel worked at every output pixel.
        arrays: arrays in its checkpoint, but for BatchNorm's counters.
    """

    params: int
    macs: int
    summary_macs: int
    arrays: int

    @property
    def gmacs(self) -> float:
        """Multiply-adds in units of 10^9."""
        return self.macs / 1e9

    @property
    def summary_gflops(self) -> float:
        """HRNet's "GFLOPs": `summary_macs` in units of 2^30."""
        return self.summary_macs / 2**30


@cache
def _costs() -> dict[str, Cost]:
    return {name: Cost(**row) for name, row in toml.load(PATH).items()}


def get_cost(entry: Entry) -> Cost | None:
    """An entry's cost, or None for one that is not in the file (one that was added since)."""
    return _costs().get(entry.name)


@cache
def arrays_of_archs() -> dict[str, int]:
    """The `Cost.arrays` of each architecture that an entry has: those of its entries are the same."""
    return {name.rpartition(".")[0]: cost.arrays for name, cost in _costs().items()}
