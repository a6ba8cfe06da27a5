"""The driver: parts to workers on Ray Data, what became of them into a report."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from posezoo.batch.parts import Counts, read_counts, sweep
from posezoo.batch.plan import Part, Plan, Settings, make_plan
from posezoo.batch.sources import Item, find_items
from posezoo.errors import PosezooError, require
from posezoo.lock import locked

_WAVE = 256  # parts, and at least some for each worker, that are handed to Ray at once


@dataclass(frozen=True)
class Request:
    """What to do.

    Attributes:
        sources: paths, folders, globs and lists.
        output: the folder of the results.
        settings: what they depend on.
        address: of a Ray cluster, such as "auto" or "ray://head:10001"; None: this machine.
        workers: how many; None: one for every `threads` cores, or one a GPU.
        threads: of each worker.
        device: "auto", "cpu" or "cuda".
        batch_size: people a network call; None: what suits the device.
        retry_errors: do the parts again in which something could not be read.
    """

    sources: Sequence[str]
    output: Path
    settings: Settings = field(default_factory=Settings)
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    retry_errors: bool = False

    def __post_init__(self) -> None:
        from posezoo.deploy.runtimes import DEVICES, PRECISIONS, RUNTIMES
        from posezoo.errors import unknown_name

        for name in ("workers", "threads", "batch_size"):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise PosezooError(f"{name.replace('_', '-')} must be 1 or more, but is {getattr(self, name)}")
        asked = (self.device, self.settings.runtime, self.settings.precision)
        kinds = (("device", DEVICES), ("runtime", RUNTIMES), ("precision", PRECISIONS))
        for given, (what, valid) in zip(asked, kinds, strict=True):
            if given not in valid:
                raise unknown_name(what, given, valid)


@dataclass
class Report:
    """What became of a run.

    Attributes:
        counts: of all parts that are done, those of earlier runs too.
        now: of those that this run did.
        parts: how many there are.
        done: how many of them are done.
        done_before: by earlier runs.
        failed: what was wrong with parts that could not be done, by number.
        seconds: of this run, from the first part handed out.
        workers: how many there were.
        about: what computed.
        interrupted: stopped by Ctrl-C or SIGTERM.
    """

    counts: Counts = field(default_factory=Counts)
    now: Counts = field(default_factory=Counts)
    parts: int = 0
    done: int = 0
    done_before: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    workers: int = 0
    about: str = ""
    interrupted: bool = False

    @property
    def images_per_second(self) -> float:
        """Of this run."""
        return self.now.images / self.seconds if self.seconds else 0.0


def run_batch(request: Request, progress: Callable[[int, int], None] | None = None) -> Report:
    """Do all that is not done yet.

    Args:
        request: what to do.
        progress: called with (parts done, parts in all) after each.

    Raises:
        PosezooError: what concerns all parts: sources, output folder, model, cluster, a full disk. What was done until
            then stays done.
    """
    require("pyarrow", "batch", "posezoo batch")
    ray = require("ray", "batch", "posezoo batch")
    require("ray.data", "batch", "posezoo batch")
    find_items(request.sources, leave_out=request.output)  # a wrong name is told before Ray starts
    with locked(request.output, "-o", "posezoo batch"):
        plan = make_plan(
            request.sources,
            request.output,
            request.settings,
            request.workers or _cores(request),
            retry_errors=request.retry_errors,
        )
        report = Report(parts=len(plan.parts), done=len(plan.done), done_before=len(plan.done))
        for counts in plan.done.values():
            report.counts.add(counts)
        if plan.to_do():
            try:
                with _ray(ray, request) as cluster:
                    _do(plan, request, cluster, report, progress)
            except KeyboardInterrupt:
                report.interrupted = True
                _recount(plan, report)
            finally:
                sweep(plan.output)  # of workers that died
    return report


def _recount(plan: Plan, report: Report) -> None:
    """Parts may have been done that no word of came."""
    done = read_counts(plan.output, [part.number for part in plan.parts])
    report.counts, report.done = Counts(), len(done)
    for counts in done.values():
        report.counts.add(counts)


def _cores(request: Request) -> int:
    from posezoo.deploy.runtimes import default_threads

    return max(1, default_threads() // (request.threads or 1))


@dataclass(frozen=True)
class _Cluster:
    """How many workers there are, and what each takes of the cluster."""

    workers: int
    cpus: float
    gpus: float


@contextmanager
def _ray(ray: Any, request: Request) -> Iterator[_Cluster]:
    """A connection to a cluster, or one of this machine alone that ends with the block."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    threads = request.threads or 1
    if request.address is None:
        workers = request.workers or (0 if request.device == "cuda" else _cores(request))
        # one core more than the workers take: Ray Data may want one for itself
        options |= {"address": "local", "include_dashboard": False, "num_cpus": max(workers, 1) * threads + 1}
    else:
        if request.address.startswith("ray://"):
            require("grpc", "batch", "a ray:// address")
        _check_address(request.address)
        options |= {"address": request.address}
    with _quiet(), _obeying_sigterm() as obey_sigterm:
        try:
            with _silent_stderr():
                ray.init(**options)
            obey_sigterm()
        except SystemExit:  # what Ray makes of SIGTERM while it begins
            raise KeyboardInterrupt from None
        except (ConnectionError, RuntimeError, ValueError, OSError) as err:
            where = "cannot start Ray here" if request.address is None else f"no Ray cluster at {request.address}"
            raise PosezooError(f"{where}: {' '.join(str(err).split())[:300]}") from None
        try:
            yield _share(ray.cluster_resources(), request)
        finally:
            ray.shutdown()


@contextmanager
def _obeying_sigterm() -> Iterator[Callable[[], None]]:
    """SIGTERM is as Ctrl-C; to be called again once Ray has begun, whose answer to it is a stack of its C++ part."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def obey() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    before = signal.getsignal(signal.SIGTERM)
    obey()
    try:
        yield obey
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _check_address(address: str) -> None:
    """See that something listens there: Ray itself waits for minutes.

    Raises:
        PosezooError: nothing does, or it is no address.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or "/" in host or not 0 < int(port) < 65536:
        raise PosezooError(f"'{address}' is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:10001")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as err:
        raise PosezooError(f"no Ray cluster at {address}: {err.strerror or err}") from None


# nothing is reported to anyone, and what is wrong is said once, by us
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ part says on stderr that it will say nothing."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _share(there: Mapping[str, float], request: Request) -> _Cluster:
    """The workers that a cluster has room for.

    Raises:
        PosezooError: fewer than were asked for, or none.
    """
    threads, cpus, gpus = request.threads or 1, int(there.get("CPU", 0)), int(there.get("GPU", 0))
    on_gpu = request.device == "cuda" or (request.device == "auto" and gpus > 0 and _wants_gpu(request))
    if on_gpu:
        if not gpus:
            raise PosezooError("Ray sees no GPU: leave out --device cuda, or give the --address of a cluster with some")
        room, each, what = gpus, (min(1.0, cpus / gpus), 1.0), f"{gpus} GPUs"
    else:
        room, each, what = cpus // threads, (float(threads), 0.0), f"{cpus} cores"
    if not room:
        raise PosezooError(f"the cluster has {what}: no worker of {threads} threads fits; give --threads 1")
    workers = request.workers or (room if request.address is not None or on_gpu else _cores(request))
    if workers > room:
        raise PosezooError(f"the cluster has {what}: {workers} workers do not fit; give --workers {room} at most")
    return _Cluster(workers, *each)


def _wants_gpu(request: Request) -> bool:
    """Whether "auto" computes on a GPU where there is one: torch does; ONNX Runtime only where it was built for it."""
    from posezoo.deploy.runtimes.onnx import onnx_has_cuda

    settings = request.settings
    torch = settings.runtime in ("torch", "torch-compile") or Path(settings.model).suffix in (".pt2", ".safetensors")
    packaged = settings.model == "embedded" or Path(settings.model).suffix in (".onnx", ".xml")
    return torch or (settings.runtime in ("auto", "onnx") and (not packaged or onnx_has_cuda()))


def _do(
    plan: Plan, request: Request, cluster: _Cluster, report: Report, progress: Callable[[int, int], None] | None
) -> None:
    from posezoo.batch.work import Job

    job = Job(
        request.settings.absolute(),
        Path(os.path.abspath(request.output)),
        plan.folder,
        request.device,
        request.threads or 1,
        request.batch_size,
    )
    to_do, heard = plan.to_do(), set[int]()
    report.workers = min(cluster.workers, len(to_do))
    # Ray Data does not run in a Ray client: there its own loop has to be on the cluster too
    hand_out = _outcomes_from_afar if (request.address or "").startswith("ray://") else _outcomes
    wave = max(_WAVE, 20 * cluster.workers)
    started = time.perf_counter()
    try:
        for start in range(0, len(to_do), wave):
            for outcome in hand_out(to_do[start : start + wave], job, cluster):
                report.seconds = time.perf_counter() - started
                if outcome["hopeless"]:
                    raise PosezooError(outcome["error"])
                heard.add(int(outcome["number"]))
                _note(outcome, report)
                if progress:
                    progress(report.done, report.parts)
    finally:
        report.seconds = time.perf_counter() - started
    for part in to_do:
        if part.number not in heard:
            report.failed[part.number] = "Ray lost it"


def _note(outcome: Mapping[str, Any], report: Report) -> None:
    if outcome["error"]:
        report.failed[int(outcome["number"])] = outcome["error"]
        return
    counts = Counts(**{name: outcome[name] for name in asdict(Counts())})
    report.counts.add(counts)
    report.now.add(counts)
    report.done += 1
    report.about = outcome["about"]


def _outcomes(parts: Sequence[Part], job: Any, cluster: _Cluster) -> Iterator[Mapping[str, Any]]:
    """What becomes of each part, as it does."""
    ray: Any = require("ray", "batch", "posezoo batch")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what becomes of one part costs no other
    rows = [{"number": part.number, "items": [list(item) for item in part.items]} for part in parts]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _OnRay,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(parts)), max_tasks_in_flight_per_actor=2),
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus,
    )
    yield from dataset.iter_rows()


def _outcomes_from_afar(parts: Sequence[Part], job: Any, cluster: _Cluster) -> Iterator[Mapping[str, Any]]:
    """The same with the loop in a process of the cluster."""
    ray: Any = require("ray", "batch", "posezoo batch")
    loop = ray.remote(num_cpus=0)(_Loop).remote(parts, job, cluster)
    try:
        while (outcome := ray.get(loop.next.remote())) is not None:
            yield outcome
    finally:
        ray.kill(loop)


class _Loop:
    """What an iterator is on the other side."""

    def __init__(self, parts: Sequence[Part], job: Any, cluster: _Cluster) -> None:
        self._outcomes = _outcomes(parts, job, cluster)

    def next(self) -> Mapping[str, Any] | None:
        return next(self._outcomes, None)


class _OnRay:
    """A worker in the clothes of Ray Data: rows in, rows out."""

    def __init__(self, job: Any) -> None:
        from posezoo.batch.work import Worker
        from posezoo.media.images import limit_decoder

        limit_decoder(job.settings.max_megapixels)
        self._work = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part = Part(int(row["number"]), tuple(Item(*item) for item in row["items"]))
        outcome = self._work(part)
        counts = asdict(outcome.counts or Counts())
        said = {name: getattr(outcome, name) for name in ("number", "error", "hopeless", "about")}
        return {**said, **counts}
