"""Curves as a picture: lines where the numbers are, and axes that can be read."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from posezoo.train.curves import Panel, draw, label, smooth, ticks


def test_curves_are_drawn_where_the_numbers_are() -> None:
    line = [(float(n), float(n % 5)) for n in range(50)]
    panel = Panel("loss", {"a": line, "b": [(x, float("nan")) for x, _ in line]}, best=(10.0, 4.0))
    image = draw([panel, panel, Panel("empty", {}), Panel("one", {"a": [(3.0, 2.0)]})])
    assert image.shape == (660, 1040, 3) and image.dtype == np.uint8
    assert ((image == (0, 114, 178)).all(axis=2)).any()


def test_a_line_is_smoothed_by_its_neighbours() -> None:
    assert smooth([(0, 1.0), (1, 3.0)], share=2) == [(0.0, 2.0), (1.0, 2.0)] and smooth([]) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-3, 7, ["-2", "0", "2", "4", "6"]),
        (0, 0.00013, ["0", "5e-5", "1e-4"]),
        (0, 250_000, ["0", "5e4", "1e5", "1.5e5", "2e5", "2.5e5"]),
    ],
)
def test_ticks_are_round_and_short(low: float, high: float, expected: list[str]) -> None:
    assert [label(tick) for tick in ticks(low, high)] == expected
