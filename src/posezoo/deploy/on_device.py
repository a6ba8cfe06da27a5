"""A torch network with all that is round it on its device: pictures go up, joints come back.

Crops, normalisation, flip and decode are the torch twins of what the CPU pipeline does. On CUDA nothing waits for the
device: pictures are copied from pinned memory on a stream of their own while the network computes the batch before, and
what follows from a batch of crops (network, flip, decode) is one CUDA graph, captured once for each of a few sizes. All
is computed on one other stream, whichever the caller's is: so the device does one call after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from posezoo.codecs.combined_torch import average_flip, decode
from posezoo.crop import Floats, Pixels, invert_affine
from posezoo.crop_torch import Pictures, crop_images, normalise, pack
from posezoo.errors import PosezooError

if TYPE_CHECKING:
    from posezoo.deploy.runtimes import TorchRuntime
    from posezoo.estimator import NetworkSpec

SIZES = (1, 8, 32, 64)  # batches are filled up to one of these, or to the largest allowed
WARM_UP = 3  # runs before a graph is captured: libraries choose their kernels and make their workspaces


@dataclass(frozen=True)
class Pending:
    """Joints that the device may still be computing.

    Attributes:
        joints: (M, K, 3) float32 in the host's memory, complete when `done` has happened.
        done: a CUDA event, or None where they are complete.
    """

    joints: Tensor
    done: Any = None

    def result(self) -> tuple[Floats, Floats]:
        """Wait for them: crop_xy (M, K, 2) in crop pixels and scores (M, K), both float32."""
        if self.done is not None:
            self.done.synchronize()
        joints = self.joints.numpy()
        return np.ascontiguousarray(joints[..., :2]), np.ascontiguousarray(joints[..., 2])


@dataclass(frozen=True)
class _Slot:
    """A batch of one size: `run` computes the joints (size, K, 3) of what lies in `crops`."""

    crops: Tensor
    run: Callable[[], Tensor]


class OnDevice:
    """From pictures and the affine of each person's crop to joints, on the device of a torch runtime.

    Attributes:
        spec: what belongs to the network's weights.
        flip: whether the mirrored crops are averaged in.
        batch_size: the most people a network call.
        device: where it computes.
        graphs: whether CUDA graphs are replayed; where one cannot be captured of a network, they are not.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        runtime: TorchRuntime,
        flip: bool = False,
        batch_size: int = 64,
        *,
        graphs: bool | None = None,
    ) -> None:
        """Take over a runtime's network.

        Args:
            spec: what belongs to its weights.
            runtime: its module is used as it is, whatever the type of its weights; their memory format becomes
                channels_last.
            flip: average over the mirrored crops too, as part of the same batch.
            batch_size: people a network call.
            graphs: replay CUDA graphs; None: on CUDA.

        Raises:
            PosezooError: no batch size, or a flip of a network that gives joints, not maps.
        """
        if batch_size < 1:
            raise PosezooError(f"batch_size must be 1 or more, but is {batch_size}")
        if flip and spec.output == "joints":
            raise PosezooError(f"{spec.name} decodes its maps itself, so that there are none to average: without flip")
        self.spec, self.flip, self.batch_size = spec, flip, batch_size
        self.device = torch.device(runtime.device)
        self._cuda = self.device.type == "cuda"
        self.graphs = self._cuda if graphs is None else graphs
        self._module = runtime.module.to(memory_format=torch.channels_last)
        self._dtype = next((p.dtype for p in runtime.module.parameters() if p.ndim > 1), torch.float32)
        self._slots: dict[int, _Slot] = {}
        self._uploads = torch.cuda.Stream(self.device) if self._cuda else None
        self._computes = torch.cuda.Stream(self.device) if self._cuda else None
        self._lock = threading.Lock()  # the slots belong to one call at a time

    def __call__(self, images: Sequence[Pixels], image_of: ArrayLike, to_crop: ArrayLike) -> tuple[Floats, Floats]:
        """The joints of all people; `submit`, and then wait.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
            image_of: (M,) which of the images each person is in; quickest where people of one image are neighbours.
            to_crop: (M, 2, 3) the affine from image pixels to crop pixels.

        Returns:
            crop_xy (M, K, 2) in crop pixels and scores (M, K), both float32, as the codec's `decode` gives them.
        """
        return self.submit(images, image_of, to_crop).result()

    def submit(self, images: Sequence[Pixels], image_of: ArrayLike, to_crop: ArrayLike) -> Pending:
        """Give the device all that a call has to do, and do not wait; arguments as for a call.

        The images have been read when this returns: the caller may change them then.

        Raises:
            PosezooError: the network has other joints than its skeleton, or the device's memory is too small.
        """
        which, from_crop = np.asarray(image_of, np.int64), invert_affine(to_crop)
        shape = (len(which), len(self.spec.skeleton.joints), 3)
        joints = torch.empty(shape, dtype=torch.float32, pin_memory=self._cuda)
        with self._lock, torch.inference_mode(), self._computing():
            try:
                for rows, pictures, part in self._uploaded(images, which, from_crop):
                    joints[rows].copy_(self._compute(pictures, *part), non_blocking=True)
            except torch.OutOfMemoryError:
                raise PosezooError(
                    f"the GPU's memory does not hold a batch of {self.batch_size}: --batch-size less"
                ) from None
            if self._computes is None:
                return Pending(joints)
            done = torch.cuda.Event()
            done.record(self._computes)
            return Pending(joints, done)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Work on the stream of the slots: after all that the caller's has been given, before what it is given next."""
        if self._computes is None:
            yield
            return
        callers = torch.cuda.current_stream(self.device)
        self._computes.wait_stream(callers)
        try:
            with torch.cuda.stream(self._computes):
                yield
        finally:
            callers.wait_stream(self._computes)

    def _uploaded(
        self, images: Sequence[Pixels], image_of: NDArray[np.int64], from_crop: NDArray[np.float64]
    ) -> Iterator[tuple[slice, Pictures, tuple[Tensor, Tensor]]]:
        """Batch by batch: its rows, its pictures on the device, and there each person's picture and inverse affine."""
        held: NDArray[np.int64] = np.zeros(0, np.int64)
        pictures = None
        for first in range(0, len(image_of), self.batch_size):
            rows = slice(first, min(first + self.batch_size, len(image_of)))
            with torch.cuda.stream(self._uploads):  # no stream, where there is no CUDA
                if pictures is None or not np.isin(image_of[rows], held).all():
                    held = np.unique(image_of[rows])
                    pictures = pack([images[row] for row in held], pinned=self._cuda).to(self.device)
                which, matrices = np.searchsorted(held, image_of[rows]), from_crop[rows]
                part = self._send(which), self._send(matrices)
            self._wait_for(pictures.pixels, pictures.starts, pictures.sizes_wh, *part)
            yield rows, pictures, part

    def _send(self, array: NDArray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return (tensor.pin_memory() if self._cuda else tensor).to(self.device, non_blocking=True)

    def _wait_for(self, *tensors: Tensor) -> None:
        """Let the stream that computes wait for uploads, and the allocator for the stream that computes."""
        if self._uploads is None or self._computes is None:
            return
        self._computes.wait_stream(self._uploads)
        for tensor in tensors:
            tensor.record_stream(self._computes)

    def _compute(self, pictures: Pictures, image_of: Tensor, from_crop: Tensor) -> Tensor:
        """The joints (n, K, 3) of a batch of people, valid until the next batch is computed."""
        spec, count = self.spec, len(image_of)
        slot = self._slot(next((s for s in SIZES if count <= s <= self.batch_size), self.batch_size))
        crops = crop_images(pictures, image_of, from_crop, spec.input_size_wh)
        if spec.input == "crops":
            slot.crops[:count].copy_(crops)
        else:
            normalise(crops, spec.mean, spec.std, spec.channels, out=slot.crops[:count])
        return slot.run()[:count]

    def _slot(self, size: int) -> _Slot:
        """The batch of that size, made when it is first needed."""
        if size not in self._slots:
            width, height = self.spec.input_size_wh
            if self.spec.input == "crops":
                crops = torch.zeros((size, height, width, 3), dtype=torch.uint8, device=self.device)
            else:
                crops = torch.zeros((size, 3, height, width), dtype=self._dtype, device=self.device)
                crops = crops.to(memory_format=torch.channels_last)
            run = self._capture(crops) if self.graphs else None
            self._slots[size] = _Slot(crops, run if run is not None else lambda: self._joints(crops))
        return self._slots[size]

    def _capture(self, crops: Tensor) -> Callable[[], Tensor] | None:
        """A CUDA graph of `_joints` for this batch; None where none can be captured.

        On the stream that computes: torch leaves the one of a capture that fails the current one.
        """
        tuned, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            for _ in range(WARM_UP):
                self._joints(crops)
            graph = torch.cuda.CUDAGraph()
            # other threads may use CUDA meanwhile
            with torch.cuda.graph(graph, stream=self._computes, capture_error_mode="thread_local"):
                joints = self._joints(crops)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # such as a network that asks the device for a number on its way
            self.graphs = False
            return None
        finally:
            torch.backends.cudnn.benchmark = tuned

        def replay() -> Tensor:
            graph.replay()
            return joints

        return replay

    def _joints(self, crops: Tensor) -> Tensor:
        """Network, flip and decode of a batch: (n, K, 3) float32, x and y in crop pixels and the score."""
        spec, joints = self.spec, len(self.spec.skeleton.joints)
        if self.flip:
            crops = torch.cat([crops, crops.flip(2 if spec.input == "crops" else 3)])
        output = self._module(crops)
        while not isinstance(output, Tensor):
            output = next(iter(output.values() if isinstance(output, dict) else output))
        if output.shape[1] != joints:
            raise PosezooError(
                f"{spec.name} gives {output.shape[1]} joints, but its skeleton {spec.skeleton.name} has {joints}"
            )
        if spec.output == "joints":
            return output.float()
        if self.flip:
            plain, mirrored = output.chunk(2)
            output = average_flip(spec.codec, plain, mirrored, spec.skeleton.mirror_index, spec.flip_shift)
        crop_xy, scores = decode(spec.codec, output, spec.input_size_wh)
        return torch.cat([crop_xy, scores[..., None]], dim=2)
