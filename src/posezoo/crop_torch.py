"""The crops of many people from many pictures at once, on tensors: for a device that the pictures were uploaded to.

The same pixels as `posezoo.crop` cuts, from pictures of any sizes that lie one behind another in one buffer, so that
one short sequence of kernels serves them all. OpenCV 5 samples at exact positions, and so does this; OpenCV 4 rounds
them to 1/32 of a pixel, which at hard edges is a difference of a few grey levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from posezoo.constant_torch import constant
from posezoo.crop import Pixels
from posezoo.errors import PosezooError, unknown_name

CHUNK_PIXELS = 1 << 22  # crop pixels sampled at once: about 100 bytes of the device's memory each
_FAR = 2.0**29  # pixels; a position farther out than that is outside every picture, and two of them still are an int32


@dataclass(frozen=True)
class Pictures:
    """Pictures of any sizes in one buffer.

    Attributes:
        pixels: (P + 1, 3) uint8, the rows of every picture one behind another, and one black pixel.
        starts: (I,) int64, the row of `pixels` that each picture begins at.
        sizes_wh: (I, 2) int64, the pictures' widths and heights.
    """

    pixels: Tensor
    starts: Tensor
    sizes_wh: Tensor

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.pixels.device

    def to(self, device: torch.device | str) -> Pictures:
        """The same on another device; a copy from pinned memory is only begun, not waited for."""
        moved = (tensor.to(device, non_blocking=True) for tensor in (self.pixels, self.starts, self.sizes_wh))
        return Pictures(*moved)


def pack(images_rgb: Sequence[Pixels], pinned: bool = False) -> Pictures:
    """Pictures in one buffer in the host's memory.

    Args:
        images_rgb: (H, W, 3) uint8 each, of any sizes, even none.
        pinned: in memory that CUDA copies from by itself, while the host goes on.

    Raises:
        PosezooError: a picture is no (H, W, 3) uint8 array.
    """
    for index, image in enumerate(images_rgb):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise PosezooError(f"image {index} must be (H, W, 3) uint8, but is {image.shape} {image.dtype}")
    areas = [image.shape[0] * image.shape[1] for image in images_rgb]
    ends = np.cumsum([0, *areas])
    pixels = torch.empty((int(ends[-1]) + 1, 3), dtype=torch.uint8, pin_memory=pinned)
    buffer = pixels.numpy()
    buffer[-1] = 0
    for image, start, area in zip(images_rgb, ends, areas, strict=False):
        buffer[start : start + area].reshape(image.shape)[:] = image
    # a picture without pixels has neither rows nor columns: whoever looks there meets the black pixel at the end
    sizes = np.array([image.shape[1::-1] if image.size else (0, 0) for image in images_rgb], np.int64).reshape(-1, 2)
    starts, sizes_wh = torch.from_numpy(ends[:-1].astype(np.int64)), torch.from_numpy(sizes)
    if pinned:
        starts, sizes_wh = starts.pin_memory(), sizes_wh.pin_memory()
    return Pictures(pixels, starts, sizes_wh)


def crop_images(
    pictures: Pictures, image_of: ArrayLike | Tensor, crop_to_image: ArrayLike | Tensor, size_wh: Sequence[int]
) -> Tensor:
    """Cut each person out of that person's picture, bilinear, black outside; see `posezoo.crop.crop_images`.

    Args:
        pictures: on the device that is to do it.
        image_of: (N,) which of the pictures each person is in.
        crop_to_image: (N, 2, 3), the inverse of the affine that `posezoo.crop.crop_images` takes
            (`posezoo.crop.invert_affine`).
        size_wh: the crops' width and height.

    Returns:
        (N, h, w, 3) uint8 on the pictures' device.
    """
    width, height = int(size_wh[0]), int(size_wh[1])
    which = torch.as_tensor(image_of, dtype=torch.int64, device=pictures.device)
    matrices = torch.as_tensor(crop_to_image, dtype=torch.float64, device=pictures.device)
    crops = torch.empty((len(which), height, width, 3), dtype=torch.uint8, device=pictures.device)
    step = max(1, CHUNK_PIXELS // (width * height))
    for first in range(0, len(which), step):
        part = slice(first, first + step)
        starts, sizes_wh = pictures.starts[which[part]], pictures.sizes_wh[which[part]]
        crops[part] = sample(pictures.pixels, starts, sizes_wh, matrices[part], width, height)
    return crops


def sample(pixels: Tensor, starts: Tensor, sizes_wh: Tensor, crop_to_image: Tensor, width: int, height: int) -> Tensor:
    """The crops (N, height, width, 3) uint8 of N people whose pictures begin at `starts` (N,); see `crop_images`."""
    index = torch.int32 if len(pixels) < 2**31 else torch.int64
    (columns, across), (rows, down) = (
        _neighbours(crop_to_image[:, axis], sizes_wh[:, axis], width, height) for axis in (0, 1)
    )
    starts, strides = starts.to(index)[:, None, None], sizes_wh[:, 0].to(index)[:, None, None]
    total = torch.zeros((len(starts), height, width, 3), device=pixels.device)
    for row, from_row in zip(rows, down, strict=True):
        begin = starts + row * strides
        for column, from_column in zip(columns, across, strict=True):
            colours = pixels.index_select(0, (begin + column).flatten()).view(total.shape)
            total += colours * (from_row * from_column)[..., None]
    return total.round_().to(torch.uint8)


def _neighbours(line: Tensor, size: Tensor, width: int, height: int) -> tuple[list[Tensor], list[Tensor]]:
    """One axis: for each crop pixel the two pixels of the picture beside its place, and how much it takes of each.

    Args:
        line: (N, 3) float64, the row of the affine that gives this axis.
        size: (N,) the picture's size along it.
        width: the crop's.
        height: the crop's.

    Returns:
        Two int32 (N, height, width), inside the picture, and two float32 weights, 0 for a pixel that would be outside.
    """
    device = line.device
    origin = line[:, 2].clamp(-_FAR, _FAR).floor()  # apart: float32 is exact to a thousandth of a pixel up to here only
    slope_x, slope_y, rest = (value.float()[:, None, None] for value in (line[:, 0], line[:, 1], line[:, 2] - origin))
    column = torch.arange(width, device=device, dtype=torch.float32)
    row = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    place = (column * slope_x + (row * slope_y + rest)).clamp(-_FAR, _FAR)
    before = place.floor()
    share = place - before
    first = before.int() + origin.int()[:, None, None]
    last = (size.int() - 1)[:, None, None]
    pixels, weights = [], []
    for pixel, weight in ((first, 1 - share), (first + 1, share)):
        inside = (pixel >= 0) & (pixel <= last)
        pixels.append(torch.minimum(pixel, last).clamp(min=0))
        weights.append(weight * inside)
    return pixels, weights


def normalise(
    crops: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    channels: Literal["rgb", "bgr"] = "rgb",
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
    out: Tensor | None = None,
) -> Tensor:
    """`(crop / 255 - mean) / std`, channels first; see `posezoo.crop.normalise`.

    Args:
        crops: (N, h, w, 3) uint8 RGB.
        mean: three values in 0..1, in the order of `channels`.
        std: three values in 0..1, in the order of `channels`.
        channels: the order that the network wants.
        dtype: of the result.
        memory_format: of the result.
        out: (N, 3, h, w) to write into, of any floating type and memory format; a new tensor where not given.

    Returns:
        (N, 3, h, w) on the device of the crops: `out` where given.
    """
    if channels not in ("rgb", "bgr"):
        raise unknown_name("channel order", str(channels), ("rgb", "bgr"))
    factor, shift = constant(crops.device, _factor_and_shift, tuple(mean), tuple(std)).unbind()
    ordered = crops if channels == "rgb" else crops.flip(3)
    planes = torch.addcmul(shift, ordered.float(), factor).permute(0, 3, 1, 2)
    return planes.to(dtype, memory_format=memory_format) if out is None else out.copy_(planes)


def _factor_and_shift(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """What a byte is multiplied with, and what is then added, (2, 3) float32."""
    spread = np.asarray(std, np.float64)
    return np.stack([1 / (255 * spread), -np.asarray(mean, np.float64) / spread]).astype(np.float32)
