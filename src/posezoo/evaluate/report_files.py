"""The files of a result: one folder has one, and another run's is never replaced unasked."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posezoo import __version__
from posezoo.bench.machine import own_command
from posezoo.errors import PosezooError
from posezoo.evaluate.predictions import read_predictions
from posezoo.evaluate.report import Report
from posezoo.files import write_atomic
from posezoo.identity import digest_of
from posezoo.lock import locked

FILES = {"predictions": "predictions.json", "report": "report.json", "table": "report.txt"}
_HOW = ("processes", "version")  # what may differ between two runs that tell of the same thing
UNKNOWN = "not known"  # an argument that is never that of another run


def refuse_other_result(folder: Path, arguments: Mapping[str, Any]) -> None:
    """See before the work that it would not replace what another run found.

    A run finds its unfinished work by its folder, so that the folder cannot be chosen anew each time: two runs of one
    folder are the same run again, or a mistake.

    Args:
        folder: where a result is to be written.
        arguments: all that the result depends on; the same again may replace it.

    Raises:
        PosezooError: it has a result of other arguments, or one that does not say of which.
    """
    path = folder / FILES["report"]
    if not path.exists():
        return
    try:
        earlier = json.loads(path.read_bytes())
        said, what = dict(earlier["arguments"]), f"the result of {earlier['model']} on {earlier['dataset']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        what = "a file that does not say which run it is of"
    else:
        asked = json.loads(json.dumps(arguments))
        differ = [
            key
            for key in {**asked, **said}
            if key not in _HOW and (said.get(key) != asked.get(key) or asked.get(key) == UNKNOWN)
        ]
        if not differ:
            return
        if asked.keys() == said.keys():
            what = f"{what}: {_told(differ[0], said, asked)}"
        else:
            what += f", {'of a file' if 'predictions' in said else 'of a network that ran'}"
    raise PosezooError(
        f"{path} is {what}; name another folder (-o DIR; in Python out_dir=DIR), or replace it (--fresh; in Python "
        "resume=False)"
    )


def write_result(folder: Path, report: Report, predictions: object = None) -> None:
    """Write the report as JSON and as text, and the predictions where there are any to write; tell it of them.

    Raises:
        PosezooError: the folder cannot be written to.
    """
    contents = {}
    if predictions is not None:
        contents["predictions"] = json.dumps(predictions, separators=(",", ":"), allow_nan=False)
    report.files = {kind: str(folder / FILES[kind]) for kind in (*contents, "report", "table")}
    told = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    contents |= {"report": f"{told}\n", "table": report.text()}
    for kind, text in contents.items():
        write_atomic(folder / FILES[kind], text)


def judge_file(
    predictions: Path,
    dataset: str,
    annotations: Path,
    options: Mapping[str, Any] | None = None,
    out_dir: Path | None = None,
    resume: bool = True,
    command: str | None = None,
) -> Report:
    """Judge a file of predictions as it is, as `evaluate_predictions` does, and write down how.

    Args:
        predictions: the file.
        dataset: its name.
        annotations: its file (or folder of files).
        options: of the dataset's metric.
        out_dir: where `report.json` and `report.txt` go; None: nowhere.
        resume: leave the result of another run in `out_dir` as it is; False: replace it.
        command: what to say the command was; None: that of this process.

    Raises:
        PosezooError: see `evaluate_predictions`; or another run's result is in `out_dir`.
    """
    from posezoo.evaluate import judge, options_of

    options = options_of(dataset, options or {})
    arguments = {
        "predictions": "" if out_dir is None else stamp(predictions),
        "dataset": dataset,
        "annotations": "" if out_dir is None else stamp(annotations),
        "options": options,
    }
    if out_dir is not None and resume:
        refuse_other_result(out_dir, arguments)
    given = read_predictions(predictions)
    # an empty list is refused by the file's name
    found = judge(given or predictions, dataset, annotations, options)
    asked = "".join(f", {name}={value}" for name, value in options.items())
    report = Report(
        model=str(predictions),
        dataset=dataset,
        protocol=f"the file as it is, by the metric of {dataset}{asked}, on {annotations}",
        settings=options,
        metrics=found,
        counts={"predictions": len(given)},
        arguments=arguments,
        versions=versions(),
        date=now(),
        command=own_command() if command is None else command,
    )
    if out_dir is not None:
        with locked(out_dir, "-o", "evaluation"):
            if resume:  # another run may have written meanwhile
                refuse_other_result(out_dir, arguments)
            write_result(out_dir, report)
    return report


def now() -> str:
    """ISO 8601, with the zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def versions(*packages: str) -> dict[str, str]:
    """Of what computes: posezoo, Python, numpy and these packages, as far as they are installed."""
    found = {"posezoo": __version__, "python": platform.python_version()}
    for package in ("numpy", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # another build of the same, such as onnxruntime-gpu
            continue
    return found


def stamp(what: Any) -> str:
    """Something that changes with the contents of a file, or of the JSON files in a folder; "" for what is neither."""
    if not isinstance(what, str | os.PathLike):
        return ""
    path = Path(what)
    return f"{path} {digest_of(path, '*.json')[:16]}"


def _told(key: str, earlier: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """An argument that is another one now, in words; of a protocol the setting, rather than the name it gives."""
    before, after = earlier.get(key), asked.get(key)
    if after == UNKNOWN:
        return f"the {key} of this estimator are not known, so that it may be another network's"
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        inside = [name for name in {**after, **before} if before.get(name) != after.get(name)]
        return f"{key} {_told(max(inside, key=lambda name: name != 'name'), before, after)}"
    words = {None: "not said", "": "the model's own"}
    return f"{key} was {words.get(before, before)}, now {words.get(after, after)}"
