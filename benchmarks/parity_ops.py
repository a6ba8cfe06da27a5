"""Every single operation of the fixtures that has a counterpart in posezoo, compared with it; `parity.py` runs them."""

from __future__ import annotations

import parity_ops_crop
import parity_ops_decode
import parity_ops_detect
import parity_ops_encode
import parity_ops_layers
import parity_ops_measures
import parity_ops_people
from parity_ops_read import Check, Result

__all__ = ["CHECKS", "Result"]

CHECKS: dict[str, Check] = {
    **parity_ops_crop.CHECKS,
    **parity_ops_decode.CHECKS,
    **parity_ops_detect.CHECKS,
    **parity_ops_encode.CHECKS,
    **parity_ops_layers.CHECKS,
    **parity_ops_measures.CHECKS,
    **parity_ops_people.CHECKS,
}
"""The name of a fixture's file, without its ending, to what compares it: (fixture, `fill.py`) to results."""
