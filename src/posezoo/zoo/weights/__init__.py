"""Checkpoints of every zoo into our networks: readers, one key map per zoo, `load_weights`; and back (`convert`)."""

from __future__ import annotations

from posezoo.zoo.weights.load import identify, load_weights
from posezoo.zoo.weights.mxnet import read_params
from posezoo.zoo.weights.read import read_weights

__all__ = ["identify", "load_weights", "read_params", "read_weights"]
