"""Persons a second on a GPU: the network alone, with all that is round it on the device, and from JPEG files.

    python benchmarks/gpu_throughput.py -o results/gpu_throughput.csv               # on a machine with a CUDA device
    PYTHONPATH=src python3 benchmarks/gpu_throughput.py -o $OUT/gpu_throughput.csv  # there, without an installation
    python benchmarks/gpu_throughput.py --device cpu --quick                        # a rehearsal anywhere

About five minutes on an H100. The networks have random weights (their speed is that of trained ones), folded and in
channels_last; the pictures are random, with the statistics of photographs. Each batch is that of the zoos' own tables,
64 people. What is measured, each in its own rows:

    network     a batch of crops lies on the device: called as it is, replayed as a CUDA graph, or compiled and replayed
    device      pictures lie on the device: crops, normalisation, network and decode; only joints come back
    pictures    pictures lie in the host's memory, and are uploaded while the batch before is computed
    files       JPEG files are read and decoded, by as many threads as there are CPUs, and then the same

Milliseconds are a batch's: the median between CUDA events for the first two, the mean by the wall clock for the others.
The share is that of the rate of an 8192 x 8192 x 8192 matrix product of random numbers in the same precision, measured
in the same run; a multiply-add counts as two operations. The speeds that the zoos' pages state stand in rows of their
own, with their hardware: they were taken on other machines, by other programs. GluonCV's page says that its chart was
measured on a V100 with batches of 64, but no number of that chart has been kept.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import shlex
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from posezoo.crop import box_to_affine, invert_affine
from posezoo.crop_torch import pack
from posezoo.deploy.export import fold_batchnorm
from posezoo.deploy.on_device import OnDevice
from posezoo.deploy.runtimes import TorchRuntime
from posezoo.errors import PosezooError
from posezoo.estimator import NetworkSpec
from posezoo.files import atomic_path
from posezoo.media.images import read_image
from posezoo.zoo import get_entry, get_model, list_models
from posezoo.zoo.costs import get_cost
from posezoo.zoo.entry import Entry

MODELS = (
    "simple_pose_resnet50_v1b.alphapose_coco_256x192",
    "fastpose_resnet50.alphapose_coco_256x192",
    "pose_hrnet_w32.alphapose_coco_256x192",
)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PICTURE_WH = (640, 480)  # the size of most of COCO's
PEOPLE_A_PICTURE = 8
IN_FLIGHT = 2  # batches whose joints nobody has waited for yet


@dataclass(frozen=True)
class Row:
    """A line of the result; what was not measured is None."""

    what: str
    model: str
    precision: str
    how: str
    batch_size: int
    milliseconds: float | None
    persons_per_second: float | None
    tflops: float | None
    share_of_matrix_product: float | None
    hardware: str


@dataclass(frozen=True)
class Load:
    """How much is measured."""

    batch_size: int
    rounds: int  # of device work, timed with events
    batches: int  # of a stream of pictures
    product: int  # rows and columns of the matrices


FULL, QUICK = Load(64, 60, 60, 8192), Load(2, 2, 2, 256)


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, help="default: bf16 fp16, and on the CPU fp32")
    parser.add_argument("--quick", action="store_true", help="two tiny batches of each: a rehearsal, no measurement")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--compile-until", type=float, default=330.0, metavar="SECONDS", help="start no compile later")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "error: torch found no CUDA device: --device cpu --quick rehearses without one\n")
    arguments.precision = arguments.precision or (["fp32"] if arguments.device == "cpu" else ["bf16", "fp16"])
    try:
        entries = [get_entry(name) for name in arguments.models]
    except PosezooError as err:
        parser.exit(2, f"error: {err}\n")
    load, device = QUICK if arguments.quick else FULL, torch.device(arguments.device)
    rows: list[Row] = []
    cv2.setNumThreads(1)  # a picture is one thread's work
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for row in measured(arguments, entries, load, device, Path(folder)):
            rows.append(row)
            print(_told(row), flush=True)  # what was measured is on the screen, whatever happens later
            if arguments.output:
                store(arguments.output, rows)
    show(rows)


def measured(
    arguments: argparse.Namespace, entries: list[Entry], load: Load, device: torch.device, folder: Path
) -> Iterator[Row]:
    """Every row, the quick ones first; `folder` is for pictures."""
    began = time.perf_counter()
    peak = {}
    for precision in arguments.precision:
        row = matrix_product(load.product, precision, device)
        peak[precision] = row.tflops
        yield row
    for entry in entries:
        yield from claims(entry)
    stream = Stream.of(load, folder)
    for entry in entries:
        for precision in arguments.precision:
            yield from of_network(entry, precision, load, device, stream, peak[precision])
    if arguments.no_compile:
        return
    for entry in entries:
        if time.perf_counter() - began < arguments.compile_until:
            yield compiled(entry, arguments.precision[0], load, device, peak[arguments.precision[0]])


# ---- what is measured


def matrix_product(size: int, precision: str, device: torch.device) -> Row:
    """What the device's matrix units give, on random numbers: zeros would be quicker."""
    left, right = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    milliseconds = timed(lambda: left @ right, 20, device)
    tflops = 2 * size**3 / milliseconds / 1e9
    what = f"{size} x {size} x {size}"
    return Row("matrix product", what, precision, "torch", 1, milliseconds, None, tflops, 1.0, hardware(device))


def claims(entry: Entry) -> Iterator[Row]:
    """The speeds that a zoo's page states for networks of the same architecture."""
    for name in list_models():
        other = get_entry(name)
        for score in other.claimed if other.arch == entry.arch else ():
            if score.unit == "iter/s":
                how, speed = f"says the page of {other.source}", 64 * score.metrics["speed"]
                yield Row("claimed", name, "", how, 64, None, speed, None, None, score.protocol)


def of_network(
    entry: Entry, precision: str, load: Load, device: torch.device, stream: Stream, peak: float | None
) -> Iterator[Row]:
    """All of one network in one precision, but what is compiled."""
    module, spec = network(entry, precision, device), spec_of(entry)
    base = Row("", entry.name, precision, "", load.batch_size, None, None, None, None, hardware(device))
    crops = random_crops(entry, precision, load, device)
    calls: dict[str, Callable[[], Any]] = {"eager": lambda: module(crops)}
    if device.type == "cuda":
        calls["CUDA graph"] = captured(module, crops)
    for how, call in calls.items():
        yield rated(base, entry, peak, what="network", how=how, milliseconds=timed(call, load.rounds, device))
    del calls, call
    runtime = TorchRuntime(module, device.type, precision=precision)
    pipeline = OnDevice(spec, runtime, batch_size=load.batch_size)
    uploaded, where, from_crop = stream.on_device(spec, device)
    with pipeline._computing():
        milliseconds = timed(lambda: pipeline._compute(uploaded, where, from_crop), load.rounds, device)
    how = "CUDA graph" if pipeline.graphs else "eager"
    yield rated(base, entry, peak, what="device", how=how, milliseconds=milliseconds)
    for what, milliseconds in (
        ("pictures", stream.from_pictures(pipeline, load)),
        ("files", stream.from_files(pipeline, load)),
    ):
        yield rated(base, entry, peak, what=what, how=how, milliseconds=milliseconds)


def compiled(entry: Entry, precision: str, load: Load, device: torch.device, peak: float | None) -> Row:
    """The network alone, compiled for this batch."""
    crops = random_crops(entry, precision, load, device)
    module = torch.compile(network(entry, precision, device), dynamic=False)
    base = Row("network", entry.name, precision, "", load.batch_size, None, None, None, None, hardware(device))
    began = time.perf_counter()
    module(crops)
    how = f"compiled in {time.perf_counter() - began:.0f} s"
    call = captured(module, crops) if device.type == "cuda" else lambda: module(crops)
    return rated(base, entry, peak, how=how, milliseconds=timed(call, load.rounds, device))


# ---- pictures and people


@dataclass(frozen=True)
class Stream:
    """Pictures with people, batch after batch, as long as one likes.

    Attributes:
        pictures: for each of a few batches its pictures, (H, W, 3) uint8 RGB.
        files: the same as JPEG files.
        image_of: (batch size,) which picture of its batch each person is in.
        boxes_xyxy: for each batch (batch size, 4).
    """

    pictures: list[list[np.ndarray]]
    files: list[list[Path]]
    image_of: np.ndarray
    boxes_xyxy: list[np.ndarray]

    @classmethod
    def of(cls, load: Load, folder: Path) -> Stream:
        """A stream of four batches, over and over, with its files in a folder."""
        rng = np.random.default_rng(0)
        image_of = np.arange(load.batch_size) // PEOPLE_A_PICTURE
        pictures = [[photograph(rng) for _ in range(image_of[-1] + 1)] for _ in range(4)]
        files = [[folder / f"{batch}_{row}.jpg" for row in range(image_of[-1] + 1)] for batch in range(len(pictures))]
        for paths, some in zip(files, pictures, strict=True):
            for path, picture in zip(paths, some, strict=True):
                cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        return cls(pictures, files, image_of, [people(rng, load.batch_size) for _ in pictures])

    def affine(self, spec: NetworkSpec, number: int) -> np.ndarray:
        """The affine of each crop of a batch."""
        boxes = self.boxes_xyxy[number % len(self.pictures)]
        return box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)

    def on_device(self, spec: NetworkSpec, device: torch.device) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The first batch where the network computes: pictures, whose they are, and the inverse affines."""
        where, from_crop = torch.from_numpy(self.image_of), torch.from_numpy(invert_affine(self.affine(spec, 0)))
        return pack(self.pictures[0]).to(device), where.to(device), from_crop.to(device)

    def from_pictures(self, pipeline: OnDevice, load: Load) -> float:
        """Milliseconds a batch, from pictures to joints in the host's memory."""
        return self._streamed(pipeline, load, lambda number: self.pictures[number % len(self.pictures)])

    def from_files(self, pipeline: OnDevice, load: Load) -> float:
        """Milliseconds a batch, from JPEG files to joints in the host's memory."""
        with ThreadPoolExecutor(workers()) as pool:
            ahead = deque(pool.map(read_image, self.files[n % len(self.files)]) for n in range(2 * IN_FLIGHT))

            def pictures(number: int) -> list[np.ndarray]:
                ahead.append(pool.map(read_image, self.files[(number + len(ahead)) % len(self.files)]))
                return list(ahead.popleft())

            return self._streamed(pipeline, load, pictures)

    def _streamed(self, pipeline: OnDevice, load: Load, pictures: Callable[[int], list[np.ndarray]]) -> float:
        """Milliseconds between two batches' joints, with a few batches in flight."""
        pending: deque = deque()
        arrived = []
        for number in range(load.batches + IN_FLIGHT + 1):
            pending.append(pipeline.submit(pictures(number), self.image_of, self.affine(pipeline.spec, number)))
            if len(pending) > IN_FLIGHT:
                pending.popleft().result()
                arrived.append(time.perf_counter())
        return 1e3 * (arrived[-1] - arrived[0]) / (len(arrived) - 1)


def photograph(rng: np.random.Generator) -> np.ndarray:
    """A random picture, (H, W, 3) uint8, with as much of the coarse and as little of the fine as a photograph has."""
    width, height = PICTURE_WH
    total = np.zeros((height, width, 3), np.float32)
    for cells in (2, 5, 12, 30, 75, 160):
        grid = rng.normal(size=(cells, cells * width // height, 3)).astype(np.float32)
        total += cv2.resize(grid, PICTURE_WH, interpolation=cv2.INTER_CUBIC) * (60 / cells**0.5)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def people(rng: np.random.Generator, count: int) -> np.ndarray:
    """So many boxes (count, 4) of a person's shape."""
    heights = rng.uniform(0.2, 0.9, count) * PICTURE_WH[1]
    sides = np.stack([heights * rng.uniform(0.3, 0.8, count), heights], axis=1)
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(PICTURE_WH) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


# ---- networks and time


def network(entry: Entry, precision: str, device: torch.device) -> torch.nn.Module:
    """An entry's network with random weights, as it is deployed."""
    torch.manual_seed(0)
    folded = fold_batchnorm(get_model(entry.name))
    return folded.to(device, DTYPES[precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def spec_of(entry: Entry) -> NetworkSpec:
    """What belongs to an entry's weights."""
    return NetworkSpec.of({f.name: getattr(entry, f.name, None) for f in fields(NetworkSpec)})


def random_crops(entry: Entry, precision: str, load: Load, device: torch.device) -> torch.Tensor:
    """A batch (N, 3, h, w) in channels_last."""
    width, height = entry.input_size_wh
    crops = torch.randn(load.batch_size, 3, height, width, device=device).to(DTYPES[precision])
    return crops.to(memory_format=torch.channels_last)


def captured(module: Callable[[torch.Tensor], Any], crops: torch.Tensor) -> Callable[[], None]:
    """A CUDA graph of a network for this batch."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            module(crops)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(crops)
    return graph.replay


def timed(call: Callable[[], Any], rounds: int, device: torch.device) -> float:
    """The median of so many rounds, in milliseconds, after a warm-up."""
    for _ in range(max(1, rounds // 6)):
        call()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(rounds):
            call()
            marks.append(time.perf_counter())
        return 1e3 * median(np.diff(marks).tolist())
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    return median(first.elapsed_time(second) for first, second in pairwise(events))


def rated(base: Row, entry: Entry, peak: float | None, **changes: Any) -> Row:
    """A row with its milliseconds, and what follows from them."""
    speed, cost = 1e3 * base.batch_size / changes["milliseconds"], get_cost(entry)
    tflops = None if cost is None else 2 * cost.macs * speed / 1e12
    share = None if tflops is None or not peak else tflops / peak
    return replace(base, persons_per_second=speed, tflops=tflops, share_of_matrix_product=share, **changes)


def hardware(device: torch.device) -> str:
    """The device by name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def workers() -> int:
    """As many as this process may use CPUs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the result


def show(rows: list[Row]) -> None:
    """Two tables: what was measured, and what the zoos' pages say."""
    for title, chosen in (
        ("measured here, random weights", [row for row in rows if row.what != "claimed"]),
        ("what the zoos' pages say, of other hardware and other programs", [r for r in rows if r.what == "claimed"]),
    ):
        columns = [f.name for f in fields(Row) if any(getattr(row, f.name) not in (None, "") for row in chosen)]
        table = Table(*(name.replace("_", " ") for name in columns), title=title)
        for row in chosen:
            table.add_row(*(_number(getattr(row, name)) for name in columns))
        if chosen:
            Console(width=200).print(table)


def store(path: Path, rows: list[Row]) -> None:
    """The rows so far as CSV."""
    facts = {
        "machine": f"{workers()} CPUs",
        "versions": f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
        "date": str(datetime.date.today()),
        "command": shlex.join(["python", "benchmarks/gpu_throughput.py", *sys.argv[1:]]),
    }
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), *facts])
        writer.writeheader()
        for row in rows:
            written = {key: _number(value) for key, value in asdict(row).items()}
            writer.writerow(written if row.what == "claimed" else {**written, **facts})


def _told(row: Row) -> str:
    return "  ".join(_number(value) for value in asdict(row).values() if value not in (None, ""))


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
