"""An ONNX graph of others as a `Runtime`: what goes into which of its inputs, and batches as large as it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.runtimes import OnnxRuntime
from posezoo.deploy.runtimes.base import refused
from posezoo.errors import PosezooError

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
WHOLE = ("tensor(int64)", "tensor(int32)")
_UNBATCHED = 3  # sides of an input that takes one picture
_BOXES = 2  # sides of an output that has the boxes of one picture


class Port(NamedTuple):
    """An input or output of a graph; a side that is not fixed is None."""

    name: str
    shape: tuple[int | None, ...]
    type: str

    def __str__(self) -> str:
        sides = ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"{self.name} ({sides}) {self.type[7:-1]}"

    @property
    def colours_last(self) -> bool:
        """Whether a picture's colours stand last."""
        return self.shape[-1] == 3 and self.shape[-3] != 3

    @property
    def is_picture(self) -> bool:
        """Whether a picture may go into it; a side that is not fixed may be of colours."""
        if len(self.shape) not in (3, 4) or self.type not in DTYPES:
            return False
        return not {3, None}.isdisjoint((self.shape[-3], self.shape[-1]))

    @property
    def is_sizes(self) -> bool:
        """Whether the picture's width and height go into it."""
        return len(self.shape) == 2 and self.shape[-1] in (2, None) and "size" in self.name

    @property
    def is_mask(self) -> bool:
        """Whether it wants to know where there is picture."""
        return "mask" in self.name and len(self.shape) == 3


def listed(ports: Sequence[Port]) -> str:
    """Ports in one line."""
    return ", ".join(map(str, ports))


@dataclass(frozen=True)
class Session:
    """A graph of others.

    Attributes:
        opened: the ONNX Runtime session.
        image: the input that the picture goes to.
        others: its other inputs.
        outputs: what it gives.
    """

    opened: OnnxRuntime
    image: Port
    others: tuple[Port, ...]
    outputs: tuple[Port, ...]

    name = "onnx"

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.opened.device

    @property
    def precision(self) -> str:
        """In which numbers."""
        return self.opened.precision

    @property
    def threads(self) -> int:
        """With how many threads of the CPU."""
        return self.opened.threads

    @property
    def fixed_wh(self) -> tuple[int, int] | None:
        """The width and height that the graph is made for; None where it takes any."""
        height, width = self.image.shape[-3:-1] if self.image.colours_last else self.image.shape[-2:]
        return (width, height) if width and height else None

    def metadata(self) -> Mapping[str, Any]:
        """Nothing: the file is none of ours."""
        return {}

    def __call__(self, batch: NDArray) -> list[Any]:
        """Of every output what it is for each picture; these may be of several lengths.

        Args:
            batch: (N, 3, h, w), or (N, h, w, 3) where the graph wants colours last.

        Raises:
            PosezooError: the graph cannot take a batch of this shape.
        """
        most = self._batch or max(1, len(batch))
        found = [self._part(batch[start : start + most]) for start in range(0, len(batch), most)]
        return [[piece for part in found for piece in part[output]] for output in range(len(self.outputs))]

    @property
    def one_by_one(self) -> bool:
        """Whether its outputs are those of one picture, without a side for the batch, as torchvision's are."""
        bare = any(len(port.shape) == _BOXES and port.shape[-1] in (4, 5) for port in self.outputs)
        return bare or len(self.image.shape) == _UNBATCHED

    @property
    def _batch(self) -> int | None:
        """Pictures that one run takes; None: any number."""
        return 1 if self.one_by_one else self.image.shape[0]

    def _part(self, batch: NDArray) -> list[Any]:
        count = len(batch)
        if self._batch and self._batch > count:  # it is filled up
            batch = np.concatenate([batch, np.zeros((self._batch - count, *batch.shape[1:]), batch.dtype)])
        if self.image.colours_last and batch.shape[-1] != 3:
            batch = batch.transpose(0, 2, 3, 1)
        batch = np.ascontiguousarray(batch, DTYPES[self.image.type])
        feeds = {self.image.name: batch[0] if len(self.image.shape) == _UNBATCHED else batch}
        feeds |= {port.name: self._filled(port, batch) for port in self.others}
        try:
            given = self.opened.session.run(None, feeds)
        except Exception as err:  # the binding has no common base class for its errors
            raise refused(batch, err) from err
        if self.one_by_one:
            return [[output] for output in given]
        for port, output in zip(self.outputs, given, strict=True):
            if np.shape(output)[:1] != (len(batch),):
                raise refused(batch, f"{port} came as {np.shape(output)}, not one for each picture")
        return [list(output[:count]) for output in given]

    def _filled(self, port: Port, batch: NDArray) -> NDArray:
        """What goes into an input beside the picture: its width and height, or ones where there is picture."""
        height, width = batch.shape[1:3] if self.image.colours_last else batch.shape[2:]
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
        kind = kinds.get(port.type, np.float32)
        if port.is_sizes:
            return np.tile(np.array([width, height], kind), (len(batch), 1))
        return np.ones((len(batch), port.shape[1] or height, port.shape[2] or width), kind)


def session_of(path: Path, opened: OnnxRuntime) -> Session:
    """The graph that is opened, once it is clear what goes into each input.

    Raises:
        PosezooError: it takes no picture, or something that nobody knows.
    """
    inputs, outputs = ports_of(opened.session.get_inputs()), ports_of(opened.session.get_outputs())
    image = next((port for port in inputs if port.is_picture), None)
    if image is None:
        raise PosezooError(f"{path} takes {listed(inputs)}: a detector takes a picture, (N, 3, height, width)")
    others = tuple(port for port in inputs if port is not image)
    for port in others:
        if not (port.is_sizes or port.is_mask):
            raise PosezooError(f"{path} takes {port} beside the picture, and nobody knows what that is")
    return Session(opened, image, others, outputs)


def ports_of(ports: Sequence[Any]) -> tuple[Port, ...]:
    """Inputs or outputs, as a session of ONNX Runtime describes them."""
    sides = [tuple(side if isinstance(side, int) and side > 0 else None for side in port.shape) for port in ports]
    return tuple(Port(port.name, shape, port.type) for port, shape in zip(ports, sides, strict=True))
