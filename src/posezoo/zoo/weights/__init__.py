"""Checkpoints of every zoo into our networks: readers, one key map per zoo, `load_weights`."""

from __future__ import annotations

from posezoo.zoo.weights.load import load_weights
from posezoo.zoo.weights.mxnet import read_params
from posezoo.zoo.weights.read import read_weights

__all__ = ["load_weights", "read_params", "read_weights"]
