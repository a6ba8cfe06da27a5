"""A model over a dataset: pictures are streamed, people share batches across them, and a killed run goes on.

With several processes (`accelerate launch`, torchrun: WORLD_SIZE, RANK and LOCAL_RANK are set) each takes every n-th
picture; the first one gathers what the others found and judges it all, so the figure is that of one process.
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo import __version__
from posezoo.bench.machine import own_command
from posezoo.codecs import codec_name
from posezoo.data.readers import read_dataset
from posezoo.deploy.runtimes import describe, is_network_file
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.evaluate import judge
from posezoo.evaluate.journal import Journal
from posezoo.evaluate.pipeline import apply, estimate, joint_columns, judgeable, trial_poses
from posezoo.evaluate.plan import Task, plan, present, refuse_missing
from posezoo.evaluate.protocol import Protocol, get_protocol, need_boxes, protocol_of
from posezoo.evaluate.report import Report
from posezoo.evaluate.report_files import (
    FILES,
    UNKNOWN,
    now,
    refuse_other_result,
    stamp,
    versions,
    write_result,
)
from posezoo.lock import LOCK, locked
from posezoo.skeletons import Skeleton
from posezoo.zoo import Entry
from posezoo.zoo.owner import entry_of

Model = Entry | Estimator | str | os.PathLike[str]
Progress = Callable[[int, int], None]

_COMPUTING = {"onnx": ["onnxruntime"], "openvino": ["openvino"], "torch": ["torch"], "torch-compile": ["torch"]}
MAX_MISSING = 0.01  # the share of pictures that may be absent before a figure means nothing


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run needs, once everything that can be wrong with its arguments has been looked at.

    Attributes:
        entry: of the zoo, or None for a network that is in none.
        dataset: its name.
        skeleton: the joints of its annotations.
        columns: where each of those is among the joints that the network gives.
        tasks: the pictures that are there.
        missing: the others, and why.
        estimator: ready to compute as the protocol says.
        protocol: with everything filled in that it left to the model.
        files: what was read, with a digest where that says more than the name.
        labelled: whether anybody is, so that there is something to judge by.
        processes: how many share the pictures.
    """

    entry: Entry | None
    dataset: str
    skeleton: Skeleton
    columns: NDArray[np.int64]
    tasks: list[Task]
    missing: dict[str, str]
    estimator: Estimator
    protocol: Protocol
    files: Mapping[str, str]
    labelled: bool
    processes: int

    @property
    def computed_by(self) -> str:
        """Such as "onnx on cpu, fp32, 2 threads"."""
        return describe(self.estimator.runtime)

    @property
    def arguments(self) -> dict[str, Any]:
        """All that the predictions depend on, and how they are spread over processes."""
        runtime = self.estimator.runtime
        return {
            "model": self.estimator.spec.name,
            "dataset": self.dataset,
            **self.files,
            "boxes": "" if self.protocol.on_ground_truth else stamp(self.protocol.boxes),
            "protocol": self.protocol.to_dict(),
            "runtime": [runtime.name, runtime.device, runtime.precision],
            "processes": self.processes,
            "version": __version__,
        }


def run_evaluation(
    entry: Model,
    dataset: str,
    images: Path | Sequence[Path],
    annotations: Path,
    protocol: Protocol | None = None,
    out_dir: Path = Path("evaluation"),
    batch_size: int | None = None,
    device: str = "auto",
    runtime: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    precision: str = "auto",
    max_missing: float = MAX_MISSING,
    shard: tuple[int, int] | None = None,
    command: str | None = None,
) -> Report | None:
    """Run a model over a dataset and judge what it finds.

    Writes `predictions.json` (what `posezoo evaluate --predictions` reads), `report.json` and `report.txt` to
    `out_dir`; and, while it runs, `running.0of1.jsonl`, from which the same call goes on where it was stopped. Whether
    its poses can be judged is found before the network has seen a picture. Of a split whose labels are not published
    nothing is judged: its predictions are what the dataset's server takes.

    Args:
        entry: a model of the zoo, its name or a file that `Estimator` takes; or an `Estimator` that is open already.
        dataset: its name.
        images: the folder of its pictures, or several that may be it.
        annotations: its file (or folder of files).
        protocol: how; None: as the model's zoo does.
        out_dir: where results go; made where it does not exist.
        batch_size: people a network call, None: what suits the device; no figure depends on it.
        device: "auto", "cpu" or "cuda".
        runtime: see `posezoo.deploy.runtimes.open_runtime`.
        resume: go on with an earlier run of the same arguments, and leave the result of other ones as it is; False:
            begin anew, and replace whatever result is there. What an estimator found whose weights are not known (one
            that `Estimator` itself did not open) is never gone on with.
        progress: called with the pictures done and their number, of this process.
        weights: a checkpoint instead of the model's own weights.
        threads: of the CPU; no figure depends on them.
        precision: see `posezoo.deploy.runtimes.open_runtime`.
        max_missing: the share of the pictures that may be absent, unreadable or of another size than the annotations
            say; nobody counts as found in them.
        shard: (rank, processes), where it is not to be taken from the environment.
        command: what to say the command was; None: that of this process.

    Returns:
        The report; None in every process but the first.

    Raises:
        PosezooError: a dataset, model or file that cannot be used, too many pictures missing, or another run's result
            in `out_dir`, or another run that is writing one.
    """
    rank, processes = processes_of_environment() if shard is None else shard
    model = _model(entry, weights)
    source = model.source if isinstance(model, Entry) else ""
    protocol = get_protocol(protocol_of(source), dataset) if protocol is None else protocol
    need_boxes(protocol, dataset)
    people = read_dataset(dataset, annotations, images)
    tasks, missing = present(plan(people, dataset, protocol), max_missing)
    settings = {"runtime": runtime, "device": device, "threads": threads, "precision": precision}
    estimator = _open(model, weights, processes, batch_size=batch_size, **settings)
    if protocol.decode is not None and estimator.spec.output == "joints":
        raise PosezooError(
            f"{estimator.spec.name} decodes inside its graph: the protocol cannot choose decode={protocol.decode}"
        )
    run = _Run(
        entry=model if isinstance(model, Entry) else None,
        dataset=dataset,
        skeleton=people.skeleton,
        columns=joint_columns(estimator, people.skeleton),
        tasks=tasks,
        missing=missing,
        estimator=estimator,
        protocol=apply(protocol, estimator),
        files={"images": str(images), "annotations": stamp(annotations), "weights": _weights(model, weights)},
        labelled=bool((people.weights > 0).any()),
        processes=processes,
    )
    if run.labelled:
        _try(run, annotations)
    with locked(out_dir, "-o", "evaluation", f"{LOCK}.{rank}" if rank else LOCK):
        if resume:
            refuse_other_result(out_dir, run.arguments)
        goes_on = resume and run.files["weights"] != UNKNOWN
        with Journal.open(_journal(out_dir, rank, processes), run.arguments, goes_on) as journal:
            seconds, speed = _look(run, tasks[rank::processes], journal, progress)
            if rank:
                return None
            for other in range(1, processes):
                journal.join(_journal(out_dir, other, processes), run.arguments)
        predictions = _gather(run, journal, max_missing)
        report = _report(run, predictions, annotations)
        report = replace(
            report,
            seconds=seconds,
            people_per_second=speed if processes == 1 else None,
            command=own_command() if command is None else command,
            notes=[*report.notes, *([journal.note] if journal.note else [])],
        )
        write_result(out_dir, report, predictions)
        for other in range(processes):
            _journal(out_dir, other, processes).unlink(missing_ok=True)
    return report


def processes_of_environment() -> tuple[int, int]:
    """(rank, number of processes) as `accelerate launch` and torchrun tell it; (0, 1) where nothing is said."""
    try:
        rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    except ValueError:
        rank, processes = -1, 0
    if not 0 <= rank < processes:
        told = ", ".join(f"{name}={os.environ.get(name)}" for name in ("RANK", "WORLD_SIZE"))
        raise PosezooError(f"the environment names no process of several: {told}")
    return rank, processes


def _model(entry: Model, weights: str | os.PathLike[str] | None) -> Entry | Estimator | str:
    """A name of the zoo as its entry; a file as its path."""
    if isinstance(entry, Entry | Estimator):
        return entry
    name = os.fspath(entry)
    return name if is_network_file(name) else entry_of(name, weights)


def _open(
    model: Entry | Estimator | str, weights: str | os.PathLike[str] | None, processes: int, **settings: Any
) -> Estimator:
    """An estimator without a detector, of which this run may change the settings."""
    if isinstance(model, Estimator):
        return copy.copy(model)
    local = os.environ.get("LOCAL_RANK", "")
    if processes > 1 and local.isdecimal():  # each process its own GPU, before any library has looked which there are
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(local) % len(visible)] if visible else local
    name = model.name if isinstance(model, Entry) else model
    return Estimator(name, weights, detector=None, **settings)


def _weights(model: Entry | Estimator | str, weights: str | os.PathLike[str] | None) -> str:
    """What tells a network's weights from others of its name: the stamp of their file, "" for a zoo's own."""
    if not isinstance(model, Estimator):
        return stamp(weights or model)
    if model.opened is None:
        return UNKNOWN
    name, weights = model.opened
    spec = {field.name: getattr(model.spec, field.name) for field in fields(model.spec)}
    spec |= {"skeleton": model.skeleton.name, "codec": codec_name(model.spec.codec)}
    facts = hashlib.sha256(repr(spec).encode()).hexdigest()[:16]
    return f"{stamp(weights or (name if is_network_file(name) else None)) or 'its own'} with {facts}"


def _try(run: _Run, annotations: Path) -> None:
    """Judge what stands for the poses of one picture: what cannot be judged is to be said before the work.

    Raises:
        PosezooError: the annotations cannot be judged by.
    """
    for task in run.tasks[:1]:
        poses = trial_poses(task, run.estimator.skeleton)
        found = judgeable(task, poses, run.protocol, run.estimator, run.skeleton, run.columns)
        judge(found, run.dataset, annotations, {}, own=True)


def _look(run: _Run, tasks: list[Task], journal: Journal, progress: Progress | None) -> tuple[float, float | None]:
    """Look at the pictures that the journal does not have; the seconds it took, and the people a second."""
    todo = [task for task in tasks if task.row not in journal.found]
    done, people, started = len(tasks) - len(todo), 0, time.perf_counter()
    for task, found in estimate(run.estimator, todo):
        if isinstance(found, PosezooError):
            journal.fail(task.row, str(found))
        else:
            journal.add(task.row, judgeable(task, found, run.protocol, run.estimator, run.skeleton, run.columns))
            people += len(found)
        done += 1
        if progress is not None:
            progress(done, len(tasks))
    journal.finish()
    seconds = time.perf_counter() - started
    return round(seconds, 3), round(people / seconds, 1) if people else None


def _gather(run: _Run, journal: Journal, max_missing: float) -> list[dict[str, Any]]:
    """The predictions of all pictures in the dataset's order; pictures that could not be read are missing ones."""
    paths = {task.row: str(task.path) for task in run.tasks}
    pictures = len(run.tasks) + len(run.missing)
    run.missing.update({paths[row]: why for row, why in journal.unreadable.items()})
    refuse_missing(run.missing, pictures, max_missing)
    predictions = [prediction for task in run.tasks for prediction in journal.found.get(task.row, ())]
    if not predictions:
        raise PosezooError(f"{run.estimator.spec.name} found nobody in {pictures} pictures: nothing to judge")
    return predictions


def _report(run: _Run, predictions: list[dict[str, Any]], annotations: Path) -> Report:
    """The figures, if there are any, and all that was settled before the network ran."""
    claimed = run.entry.claimed if run.entry is not None and run.labelled else ()
    unjudged = f"not judged, as nobody in {annotations} is labelled: {FILES['predictions']} is for the dataset's server"
    return Report(
        model=run.estimator.spec.name,
        dataset=run.dataset,
        protocol=run.protocol.describe(run.dataset),
        settings=run.protocol.to_dict(),
        metrics=judge(predictions, run.dataset, annotations, {}, own=True) if run.labelled else {},
        claimed=[score for score in claimed if score.dataset == run.dataset and score.unit in ("percent", "fraction")],
        counts={
            "images": len(run.tasks),
            "people": sum(len(task.boxes) for task in run.tasks),
            "predictions": len(predictions),
            "missing": len(run.missing),
        },
        missing=run.missing,
        arguments=run.arguments,
        versions=versions("opencv-python-headless", *_COMPUTING.get(run.estimator.runtime.name, ())),
        device=run.computed_by + (f", {run.processes} processes" if run.processes > 1 else ""),
        date=now(),
        notes=[] if run.labelled else [unjudged],
    )


def _journal(out_dir: Path, rank: int, processes: int) -> Path:
    return out_dir / f"running.{rank}of{processes}.jsonl"
