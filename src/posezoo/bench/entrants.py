"""Who takes part in a race: a network alone on dummy data, or the whole pipeline on pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posezoo.bench.measure import Call, Contestant, Memory, Timing, time_call, time_cuda_call
from posezoo.bench.random_weights import RANDOM, random_weights
from posezoo.bench.rows import DUMMY, IMAGES, Row
from posezoo.bench.stages import Pipeline
from posezoo.errors import PosezooError, require

if TYPE_CHECKING:
    from posezoo.bench.run import Request
    from posezoo.deploy.runtimes import Runtime
    from posezoo.estimator import NetworkSpec
    from posezoo.zoo import Entry

OWN = "own"


class Setting(NamedTuple):
    """One network to be opened."""

    name: str
    runtime: str
    precision: str


@dataclass(frozen=True)
class Entrant:
    """Somebody in the race.

    Attributes:
        contestant: what is called and timed.
        facts: what of its row is known before the race.
        pipeline: where it is the whole pipeline.
    """

    contestant: Contestant
    facts: Mapping[str, Any]
    pipeline: Pipeline | None = None

    def row(self, timing: Timing) -> Row:
        """What to tell of its times."""
        figures: dict[str, Any] = {"data": DUMMY}
        done, latencies = self.facts["batch_size"], 1  # crops, and latencies, a call
        if self.pipeline is not None:
            done = latencies = len(self.pipeline.paths)
            stages = self.pipeline.stages(len(timing.samples))
            figures = {"data": IMAGES, "images": done, "people": self.pipeline.people, "stages": stages}
        return Row(
            **self.facts,
            **figures,
            latency_ms=1e3 * timing.latency / latencies,
            wall_ms=1e3 * timing.wall / latencies,
            cpu_ms=1e3 * timing.cpu / latencies,
            images_per_second=done / timing.latency,
            spread=timing.spread,
            calls=len(timing.samples),
        )


def check_name(name: str) -> None:
    """Raise where a name means nothing, before anything is measured.

    Raises:
        PosezooError: there is no such file, or no such model.
    """
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.zoo import get_entry

    if not is_network_file(name):
        get_entry(name)
    elif not os.path.isfile(name):
        raise PosezooError(f"no such file: {name}")


def networks(request: Request, setting: Setting, folder: Path) -> Iterator[Entrant]:
    """A network alone, an entrant for each batch size, called once.

    Args:
        request: how it is asked for.
        setting: which one.
        folder: for files that are needed until the race is over.

    Raises:
        PosezooError: it cannot be opened or computed.
    """
    from posezoo.deploy.runtimes import default_batch_size
    from posezoo.estimator import open_network

    weights, told = _weights(request, setting, folder)
    memory = Memory()
    spec, runtime = open_network(
        setting.name, weights, setting.runtime, request.device, request.threads, precision=setting.precision
    )
    if request.flip and spec.output == "joints":
        raise PosezooError("it decodes inside its graph, so that there are no maps to average: measure it without flip")
    for size in sorted(set(request.batch_sizes)) or [default_batch_size(runtime.device)]:
        contestant = alone(spec, runtime, size, request.flip)
        memory.restart()
        contestant.call()
        facts = _facts(request, setting.name, spec, runtime, told)
        yield Entrant(contestant, {**facts, "batch_size": size, "memory_mb": _megabytes(memory, runtime)})


def pipelines(request: Request, setting: Setting, folder: Path, paths: Sequence[Path]) -> Iterator[Entrant]:
    """The whole pipeline on pictures, an entrant for each batch size, called once; see `networks`."""
    from posezoo.estimator import Estimator

    weights, told = _weights(request, setting, folder)
    sizes: list[int | None] = [*sorted(set(request.batch_sizes))]
    for given in sizes or [None]:
        memory = Memory()
        estimator = Estimator(
            setting.name,
            weights,
            runtime=setting.runtime,
            device=request.device,
            flip=request.flip,
            threads=request.threads,
            batch_size=given,
            precision=setting.precision,
        )
        facts = _facts(request, setting.name, estimator.spec, estimator.runtime, told)
        pipeline = Pipeline(estimator, paths)
        memory.restart()
        pipeline()
        more = {"batch_size": estimator.batch_size, "memory_mb": _megabytes(memory, estimator.runtime)}
        yield Entrant(Contestant(pipeline, time_call), {**facts, **more}, pipeline)


def _weights(request: Request, setting: Setting, folder: Path) -> tuple[str | os.PathLike[str] | None, str]:
    """What to open a model with (None: what it has itself), and what to call its weights."""
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.zoo import get_entry
    from posezoo.zoo.store import on_this_machine

    name, weights, told = setting.name, request.weights, OWN
    if is_network_file(name):
        if request.random:
            raise PosezooError(f"{name} has its weights inside: --random is for models of the zoo")
        if weights is not None and all(map(is_network_file, request.names)):
            raise PosezooError(f"{name} has its weights inside: --weights is for models of the zoo")
        return None, OWN
    entry = get_entry(name)
    has_own = entry.onnx is not None or on_this_machine(entry.weights) is not None
    if weights is not None:
        told = os.fspath(weights)
    elif request.random or not (has_own or request.images is not None):
        weights, told = random_weights(entry, folder), RANDOM
    elif entry.onnx is not None:
        return None, OWN
    return _exported(entry, weights, setting, folder) or weights, told


def _exported(entry: Entry, weights: str | os.PathLike[str] | None, setting: Setting, folder: Path) -> Path | None:
    """A file for the runtime, made beforehand: the memory that making it takes is not the network's.

    None where the runtime needs none, or is to say itself why it cannot have one.
    """
    from posezoo.deploy.runtimes import is_network_file

    suffix = {"onnx": ".onnx", "openvino": ".xml"}.get(setting.runtime)
    is_graph = weights is not None and is_network_file(weights) and Path(weights).suffix.lower() != ".safetensors"
    if suffix is None or is_graph or setting.precision not in ("auto", "fp32"):
        return None
    path = folder / f"{entry.name}{suffix}"
    if not path.is_file():
        from posezoo.deploy.export import export

        if setting.runtime == "openvino":
            require("openvino", "deploy", "the OpenVINO runtime")  # before the long work
        export(entry.name, path, setting.runtime, weights=weights)
    return path


def _facts(request: Request, name: str, spec: NetworkSpec, runtime: Runtime, weights: str) -> dict[str, Any]:
    """What of a row does not depend on the times."""
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.zoo import get_entry

    is_file = is_network_file(name)
    inside = runtime.metadata() if is_file else {}
    width, height = spec.input_size_wh
    return {
        "model": name if is_file else get_entry(name).name,
        "entry": inside.get("entry") if is_file else get_entry(name).name,
        "runtime": runtime.name,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "device": runtime.device,
        "weights": inside.get("weights") or weights,
        "flip": request.flip,
        "input": f"{height}x{width}",
    }


def _megabytes(memory: Memory, runtime: Runtime) -> float | None:
    """The memory at the worst moment; None where it is not known, as of another than torch on the GPU."""
    from posezoo.deploy.runtimes import TorchRuntime

    if runtime.device == "cuda" and not isinstance(runtime, TorchRuntime):
        return None
    peak = memory.peak(runtime.device)
    return None if peak is None else peak / 1e6


def alone(spec: NetworkSpec, runtime: Runtime, size: int, flip: bool = False) -> Contestant:
    """A network on a batch that is the same each time, and on its mirror image where `flip` is set."""
    from posezoo.deploy.runtimes import TorchRuntime

    width, height = spec.input_size_wh
    rng = np.random.default_rng(0)
    if spec.input == "crops":
        batch: Any = rng.integers(0, 256, (size, height, width, 3), np.uint8)
    else:
        batch = rng.standard_normal((size, 3, height, width), np.float32)
    batches = [batch, np.ascontiguousarray(batch[:, :, ::-1] if spec.input == "crops" else batch[..., ::-1])]
    batches = batches[: 1 + flip]
    if runtime.device == "cuda" and isinstance(runtime, TorchRuntime):
        return Contestant(resident(runtime.module, runtime.device, batches), time_cuda_call)
    return Contestant(lambda: [runtime(each) for each in batches], time_call)


def resident(module: Any, device: str, batches: Sequence[Any]) -> Call:
    """A call of a torch module on batches that lie on its device before the clock starts; its results stay there."""
    import torch

    numbers = next((p.dtype for p in module.parameters() if p.ndim > 1), torch.float32)
    there = [torch.from_numpy(each).to(device) for each in batches]
    there = [x.to(numbers, memory_format=torch.channels_last) if x.is_floating_point() else x for x in there]

    def call() -> None:
        with torch.inference_mode():
            for each in there:
                module(each)

    return call
