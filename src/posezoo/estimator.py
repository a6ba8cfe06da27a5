"""The pipeline, and the only place that joins its steps: image -> detect -> crop -> network -> decode -> suppress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.codecs import Codec, get_codec
from posezoo.crop import box_to_affine, crop_images, invert_affine, normalise, transform_points
from posezoo.deploy.metadata import check_values
from posezoo.deploy.runtimes import (
    METADATA_KEY,
    Runtime,
    TorchRuntime,
    default_batch_size,
    describe,
    is_network_file,
    open_runtime,
)
from posezoo.detect import Detector, get_detector
from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.media.images import Picture, check_megapixels, load_picture
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.suppress import oks_nms, person_scores
from posezoo.types import Boxes, Poses

if TYPE_CHECKING:
    from posezoo.deploy.on_device import OnDevice

LOOK_AHEAD = 8  # images whose people may share a batch
LOOK_AHEAD_PIXELS = 64_000_000  # and how many pixels of them are held at once
# poses this alike are one person, by the joints that count for a score: the others lie anywhere, so that by all joints
# and HRNet's 0.9 every fifth person shown was there twice
OKS_NMS, SEEN = 0.85, 0.2

ImageLike = str | os.PathLike[str] | NDArray[np.uint8] | Picture
BoxesLike = Boxes | ArrayLike | None


@dataclass(frozen=True)
class NetworkSpec:
    """What belongs to a pose network's weights, taken from its zoo entry or from its .onnx file.

    Attributes:
        name: of the entry or the file.
        skeleton: its joints.
        codec: how its output becomes joints.
        input_size_wh: the crop it wants.
        channels: "rgb" or "bgr", the order it wants.
        mean: three values in 0..1.
        std: three values in 0..1.
        box_scale: how much larger than the person's box the crop is.
        flip_shift: whether its flipped heatmaps are moved by a pixel.
        input: "planes" where it takes (N, 3, h, w) float32, normalised; "crops" where it takes (N, h, w, 3) uint8 RGB
            and normalises them itself.
        output: "maps" where it gives what the codec decodes; "joints" where it decodes itself and gives (N, K, 3)
            float32: x, y in pixels of the crop, and the score.
    """

    name: str
    skeleton: Skeleton
    codec: Codec
    input_size_wh: tuple[int, int]
    channels: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    box_scale: float
    flip_shift: bool
    input: Literal["planes", "crops"] = "planes"
    output: Literal["maps", "joints"] = "maps"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """From plain values, the skeleton and the codec by name.

        Raises:
            PosezooError: a value is missing or cannot be used, or a name is unknown.
        """
        needed = [f.name for f in fields(cls) if f.default is MISSING]
        check_values(values, str(values.get("name") or "the model"), needed)
        return cls(
            name=str(values["name"]),
            skeleton=get_skeleton(values["skeleton"]),
            codec=get_codec(values["codec"]),
            input_size_wh=tuple(values["input_size_wh"]),
            channels=values["channels"],
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            box_scale=float(values["box_scale"]),
            flip_shift=values["flip_shift"],
            input=values.get("input") or "planes",
            output=values.get("output") or "maps",
        )


class Estimator:
    """Finds people and their joints in images.

    Attributes:
        spec: what belongs to the network's weights.
        runtime: computes the network.
        detector: finds the people, or None where boxes are always given.
        flip: whether the mirrored crop is averaged in.
        batch_size: people a network call.
        merge: whether poses that repeat a better one are left out where the detector gives the boxes; None: unless
            they are a file's, of which each has its pose.
        max_megapixels: larger files are refused.
        opened: the name or file that the network was opened by, and the file of its weights; None: not known.

    Example:
        >>> poses = Estimator()("examples/astronaut.png")
        >>> poses[poses.person_scores > 0.16].keypoints_xy.shape    # as `posezoo predict` draws them
        (1, 17, 2)
    """

    spec: NetworkSpec
    runtime: Runtime
    detector: Detector | None
    batch_size: int
    max_megapixels: float | None
    merge: bool | None = None
    opened: tuple[str, str | None] | None = None
    _device: OnDevice | None = None
    _device_settings: tuple[Any, ...] = ()

    def __init__(
        self,
        name_or_file: str | os.PathLike[str] = "embedded",
        weights: str | os.PathLike[str] | None = None,
        detector: str | os.PathLike[str] | Detector | Callable[..., Any] | None = "embedded",
        runtime: str = "auto",
        device: str = "auto",
        flip: bool = False,
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        max_megapixels: float | None = None,
        precision: str = "auto",
    ) -> None:
        """Load the network and the detector.

        Args:
            name_or_file: a model of the zoo, or a file that posezoo exported, quantised, converted or trained.
            weights: a checkpoint (or an exported file) instead of the model's own weights.
            detector: a name, a file or a callable, see `posezoo.detect.get_detector`; None: boxes are always given.
            runtime: "auto", "onnx", "openvino", "torch" or "torch-compile", see `posezoo.deploy.runtimes.open_runtime`.
            device: "auto", "cpu" or "cuda".
            flip: average over the mirrored crop too: twice the time, a little more accurate.
            threads: CPU threads; None: as many as this process may use.
            batch_size: people a network call; None: what suits the device.
            max_megapixels: refuse larger files, see `posezoo.media.images.read_image`.
            precision: "auto", "fp32", "bf16", "fp16" or "int8", of the pose network; see `open_runtime`.

        Raises:
            PosezooError: an unknown name, a missing file, a missing extra, or no such device.
        """
        if batch_size is not None and not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise PosezooError(f"batch_size must be 1 or more, a whole number, but is {batch_size!r}")
        if max_megapixels is not None:
            check_megapixels(max_megapixels)
        self.spec, self.runtime = open_network(name_or_file, weights, runtime, device, threads, precision)
        self.opened = os.fspath(name_or_file), None if weights is None else os.fspath(weights)
        self.detector = None if detector is None else get_detector(detector, runtime, device, threads)
        self.flip, self.max_megapixels = flip, max_megapixels
        self.batch_size = int(batch_size) if batch_size else default_batch_size(self.runtime.device)

    @property
    def skeleton(self) -> Skeleton:
        """The joints of every result."""
        return self.spec.skeleton

    @property
    def flip(self) -> bool:
        """Whether the mirrored crop is averaged in.

        Raises:
            PosezooError: set for a network that decodes its maps itself: there are none to average.
        """
        return self._flip

    @flip.setter
    def flip(self, flip: bool) -> None:
        if flip and self.spec.output == "joints":
            raise PosezooError(
                f"{self.spec.name} decodes inside its graph, and a flip test averages maps: run it without flip, or "
                "export it without the decode"
            )
        self._flip = flip

    def __repr__(self) -> str:
        return f"Estimator({self.spec.name}, {describe(self.runtime)})"

    @overload
    def __call__(self, images: ImageLike, boxes_xyxy: BoxesLike = None) -> Poses: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, images: Sequence[ImageLike], boxes_xyxy: Sequence[BoxesLike] | None = None) -> list[Poses]: ...

    @overload
    def __call__(
        self, images: Iterator[ImageLike], boxes_xyxy: Iterable[BoxesLike] | None = None
    ) -> Iterator[Poses]: ...

    def __call__(self, images: Any, boxes_xyxy: Any = None) -> Poses | list[Poses] | Iterator[Poses]:
        """The people in one image, in a list of images, or (lazily, see `stream`) in an iterator of them.

        Args:
            images: a path or an (H, W, 3) uint8 RGB array; or a list, or an iterator, of these.
            boxes_xyxy: (N, 4) pixels, one person each; for a list of images a list, or an iterator, of such. Where
                boxes are given the detector does not run and the poses keep the boxes' order, one pose a box.

        Returns:
            `Poses` for one image, a list of them for a list, an iterator of them for an iterator.

        Raises:
            PosezooError: an image that cannot be read or is no uint8 RGB array; boxes that are not (N, 4), finite
                and of no negative size.
        """
        if isinstance(images, Iterator):
            return self.stream(images, boxes_xyxy)
        stack = isinstance(images, np.ndarray) and images.ndim == 4
        if stack or (isinstance(images, list | tuple) and not isinstance(images, Picture)):
            given = None if boxes_xyxy is None else list(islice(_one_by_one(boxes_xyxy), len(images) + 1))
            if given is not None and len(given) != len(images):
                found = len(given) if len(given) < len(images) else "more"
                raise PosezooError(f"{len(images)} images were given, but boxes for {found}")
            return list(self.stream(images, given))
        return next(self.stream([images], None if boxes_xyxy is None else [boxes_xyxy]))

    def stream(
        self,
        images: Iterable[ImageLike],
        boxes_xyxy: Iterable[BoxesLike] | None = None,
        look_ahead: int = LOOK_AHEAD,
    ) -> Iterator[Poses]:
        """One `Poses` an image, in order, reading only a few images ahead so that their people share batches.

        Args:
            images: paths or arrays, as for a call; any number of them.
            boxes_xyxy: for each image (N, 4) boxes, or None to run the detector.
            look_ahead: how many images are read together, as long as they are not too large for that; 1 where each
                result is wanted before the next image is read, as of a camera.

        Raises:
            PosezooError: see `__call__`; those of the images before it are yielded first. So with any other error that
                `images` raises.
        """
        for chunk in self._chunks(images, boxes_xyxy, look_ahead):
            yield from self._estimate([picture for picture, _ in chunk], [boxes for _, boxes in chunk])

    def _chunks(
        self, images: Iterable[ImageLike], boxes_xyxy: Iterable[BoxesLike] | None, look_ahead: int
    ) -> Iterator[list[tuple[Picture, Boxes | None]]]:
        if isinstance(images, str | bytes | os.PathLike):
            raise PosezooError("stream wants a list or an iterator of images: call the Estimator for a single one")
        given = None if boxes_xyxy is None else _one_by_one(boxes_xyxy)
        chunk: list[tuple[Picture, Boxes | None]] = []
        pixels = 0
        try:
            for index, image in enumerate(images):
                chunk.append(self._load(index, image, given))
                pixels += chunk[-1][0].image_rgb[..., 0].size
                if len(chunk) >= look_ahead or pixels >= LOOK_AHEAD_PIXELS:
                    yield chunk
                    chunk, pixels = [], 0
        except Exception:
            if chunk:  # what was read before
                yield chunk
            raise
        if chunk:
            yield chunk

    def _load(self, index: int, image: ImageLike, given: Iterator[Any] | None) -> tuple[Picture, Boxes | None]:
        """An image and the boxes given for it."""
        try:
            picture = load_picture(image, self.max_megapixels)
            return picture, None if given is None else _as_boxes(next(given, _MISSING))
        except PosezooError as err:
            raise err if isinstance(image, str | os.PathLike) else PosezooError(f"image {index}: {err}") from None

    def _estimate(self, pictures: list[Picture], given: list[Boxes | None]) -> Iterator[Poses]:
        boxes = self._detect(pictures, given)
        keypoints_xy, scores = self._people([p.image_rgb for p in pictures], boxes)
        merge = not isinstance(self.detector, BoxesFile) if self.merge is None else self.merge
        start = 0
        for image_boxes, fixed in zip(boxes, given, strict=True):
            rows = slice(start, start + len(image_boxes))
            start = rows.stop
            poses = Poses(keypoints_xy[rows], scores[rows], image_boxes.xyxy, image_boxes.scores, self.skeleton)
            yield self._suppress(poses) if fixed is None and merge else poses

    @staticmethod
    def _suppress(poses: Poses) -> Poses:
        """Without the poses that repeat a better one (two boxes round one person), in the order of the boxes."""
        x1, y1, x2, y2 = poses.boxes_xyxy.T
        areas = (x2 - x1) * (y2 - y1)
        sigmas = poses.skeleton.oks_sigmas
        kept = oks_nms(poses.keypoints_xy, person_scores(poses), areas, sigmas, OKS_NMS, poses.scores, SEEN)
        return poses[np.sort(kept)]

    def _detect(self, pictures: list[Picture], given: list[Boxes | None]) -> list[Boxes]:
        """The given boxes, and the detector's for the images that have none."""
        rows = [row for row, boxes in enumerate(given) if boxes is None]
        if rows and self.detector is None:
            raise PosezooError("this Estimator has no detector: give boxes_xyxy, or detector='embedded'")
        found: list[Boxes] = []
        if rows and self.detector is not None:
            given_back = self.detector([pictures[r].image_rgb for r in rows], names=[pictures[r].name for r in rows])
            try:
                found = [_as_boxes(boxes) or Boxes.empty() for boxes in _one_by_one(given_back)]
            except PosezooError as err:
                raise PosezooError(f"what the detector gives: {err}") from None
            if len(found) != len(rows):
                raise PosezooError(f"the detector gave boxes for {len(found)} of {len(rows)} images")
        by_row = dict(zip(rows, found, strict=True))
        return [by_row[row] if boxes is None else boxes for row, boxes in enumerate(given)]

    def _people(self, images: list[NDArray[np.uint8]], boxes: list[Boxes]) -> tuple[NDArray, NDArray]:
        """Joints in image pixels (M, K, 2) and scores (M, K) of all M people of all images, in batches."""
        spec, total = self.spec, sum(map(len, boxes))
        image_of = np.repeat(np.arange(len(images)), [len(b) for b in boxes])
        every_box = np.concatenate([b.xyxy for b in boxes]) if boxes else np.zeros((0, 4))
        to_crop = box_to_affine(every_box, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
        if (on_device := self._on_device()) is not None:
            crop_xy, scores = on_device(images, image_of, to_crop)
            return transform_points(invert_affine(to_crop), crop_xy), scores
        width, height = spec.input_size_wh
        crops = np.empty((min(total, self.batch_size), height, width, 3), np.uint8)
        planes = np.empty((len(crops) if spec.input == "planes" else 0, 3, height, width), np.float32)
        joints = len(spec.skeleton.joints)
        crop_xy, scores = np.zeros((total, joints, 2), np.float32), np.zeros((total, joints), np.float32)
        for start in range(0, total, self.batch_size):
            batch = slice(start, min(start + self.batch_size, total))
            count = batch.stop - batch.start
            for image in np.unique(image_of[batch]):
                rows = start + np.flatnonzero(image_of[batch] == image)  # neighbours: people are ordered by image
                part = crops[rows[0] - start : rows[-1] + 1 - start]
                crop_images(images[image], to_crop[rows], spec.input_size_wh, out=part)
            if spec.input == "planes":
                normalise(crops[:count], spec.mean, spec.std, spec.channels, out=planes[:count])
            crop_xy[batch], scores[batch] = self._joints((planes if spec.input == "planes" else crops)[:count])
        return transform_points(invert_affine(to_crop), crop_xy), scores

    def _on_device(self) -> OnDevice | None:
        """All from crop to decode on the GPU, where torch computes there; made anew when a setting has changed."""
        runtime = self.runtime
        if not (isinstance(runtime, TorchRuntime) and runtime.fixed and runtime.device.startswith("cuda")):
            return None
        from posezoo.deploy.on_device import OnDevice

        settings = (self.spec, runtime, self.flip, self.batch_size)
        if self._device_settings != settings:
            self._device, self._device_settings = OnDevice(*settings), settings
        return self._device

    def _joints(self, batch: NDArray) -> tuple[NDArray, NDArray]:
        """Joints in crop pixels (N, K, 2) and scores (N, K) of a batch of crops, as the network takes them."""
        spec, found = self.spec, self._network(batch)
        return (
            (found[..., :2], found[..., 2]) if spec.output == "joints" else spec.codec.decode(found, spec.input_size_wh)
        )

    def _network(self, batch: NDArray) -> NDArray[np.float32]:
        """What the network gives for a batch of crops, averaged with that of the mirrored crops where `flip` is set."""
        found = self.runtime(batch)[0]
        joints = len(self.skeleton.joints)
        if found.shape[1] != joints:
            raise PosezooError(
                f"{self.spec.name} gives {found.shape[1]} joints, but its skeleton {self.skeleton.name} has {joints}"
            )
        if not self.flip:
            return found
        mirrored = self.runtime(batch[..., ::-1] if self.spec.input == "planes" else batch[:, :, ::-1])[0]
        return self.spec.codec.average_flip(found, mirrored, self.skeleton.mirror_index, self.spec.flip_shift)


def open_network(
    name_or_file: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
) -> tuple[NetworkSpec, Runtime]:
    """A pose network ready to compute, and what belongs to its weights; arguments as for `Estimator`."""
    name = os.fspath(name_or_file)
    if is_network_file(name):
        if weights is not None:
            raise PosezooError(f"{name} has its weights inside: give a model's name together with weights")
        opened = open_runtime(name, runtime, device, threads, precision=precision)
        metadata = opened.metadata()
        if not metadata:
            raise PosezooError(
                f"{name} has no '{METADATA_KEY}' metadata (skeleton, codec, input size...): export it with posezoo, "
                f"or name the model and give the file as its weights (-m NAME --weights {name})"
            )
        return NetworkSpec.of({"name": name, **metadata}), opened
    from posezoo.zoo import get_entry, list_models
    from posezoo.zoo.owner import entry_of, facts_with

    entry = entry_of(name, weights)
    if entry.task != "pose":
        raise PosezooError(f"{entry.name} finds people, not their joints: give a pose model (posezoo list shows them)")
    opened = open_runtime(entry, runtime, device, threads, weights, precision)
    values = facts_with(entry, weights)
    said = opened.metadata()  # of a file that posezoo exported: all that belongs to it, which then holds
    made_of = said.get("entry")
    # an alias may stand for several entries of an architecture, and the file tells which
    meant = {entry.name} if name == entry.name else {n for n in list_models() if get_entry(n).arch == entry.arch}
    if made_of and made_of not in meant:
        raise PosezooError(f"{weights} is an export of {made_of}, not of {entry.name}: give it alone (-m {weights})")
    return NetworkSpec.of({**values, **said}), opened


_MISSING = object()


def _as_boxes(boxes: Any) -> Boxes | None:
    if boxes is _MISSING:
        raise PosezooError("boxes_xyxy ends before the images do")
    return boxes if boxes is None or isinstance(boxes, Boxes) else Boxes(boxes)


def _one_by_one(boxes_xyxy: Any) -> Iterator[Any]:
    if isinstance(boxes_xyxy, str | bytes | Mapping | Boxes) or not np.iterable(boxes_xyxy):  # a text is letters
        raise PosezooError(f"boxes_xyxy must be a list or an iterator of (N, 4) boxes, not {type(boxes_xyxy).__name__}")
    return iter(boxes_xyxy)
