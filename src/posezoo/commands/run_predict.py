"""What `predict` and `demo` share: to run a request with a bar, to say what became of it, and the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from posezoo.terminal import INTERRUPTED, USER_ERROR, fail, print_json, print_table, progress_bar
from posezoo.words import counted

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.predict import Report, Request


def quiet_opencv() -> None:
    """A broken file is reported once, by us; to be called before OpenCV is imported."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


def run_request(request: Request, open_estimator: Callable[[], Estimator], as_json: bool) -> None:
    """Predict, and print a summary.

    Raises:
        typer.Exit: something could not be processed, or Ctrl-C came.
    """
    from posezoo.predict import predict

    opened: list[Estimator] = []

    def opening() -> Estimator:
        opened.append(open_estimator())
        return opened[0]

    with progress_bar("images") as advance:
        report = predict(request, opening, advance)  # type: ignore[arg-type]
    used = opened[0] if opened else None
    if as_json:
        print_json(_report_dict(report, request, used))
    elif lines := _summary(report, request.output, used):
        typer.echo("\n".join(lines))
        if request.profile:
            _print_profile(report)
    _end(report)


def _end(report: Report) -> None:
    """Say what was left out and what went wrong, and exit as that is."""
    if report.left_out:
        first, more = report.left_out[0], len(report.left_out) - 1
        others = f" and {counted(more, 'other file')}" if more else ""
        typer.echo(f"note: left out beside the pictures: {first}{others}; name a video to have it read", err=True)
    if len(report.failed) > 1 and (report.total or report.videos):
        typer.echo(f"{len(report.failed)} could not be processed:", err=True)
    for failure in report.failed:
        fail(failure["error"])
    if report.interrupted:
        done = [f"{len(report.written)} of {counted(report.total, 'picture')}"] if report.total else []
        done += [f"{counted(row['frames'], 'frame')} of {row['source']}" for row in report.videos[-1:]]
        fail(f"stopped by Ctrl-C after {' and '.join(done) or 'nothing'}")
        raise typer.Exit(INTERRUPTED)
    if report.failed:
        raise typer.Exit(USER_ERROR)


def _summary(report: Report, output: Path, estimator: Estimator | None) -> list[str]:
    from posezoo.deploy.runtimes import describe

    network = f" ({estimator.spec.name}; {describe(estimator.runtime)})" if estimator is not None else ""
    failed = {failure["source"] for failure in report.failed}
    # of one that gave nothing its error says all
    lines = [_video_line(row, network) for row in report.videos if row["frames"] or row["source"] not in failed]
    if report.total:
        people = sum(row["people"] for row in report.written)
        text = f"{counted(len(report.written), 'picture')}, {counted(people, 'person', 'people')}"
        if report.written and estimator is not None:
            seconds = report.seconds - sum(row["seconds"] for row in report.videos)
            speed = len(report.written) / seconds if seconds else 0.0
            text += f", {speed:.1f} pictures/s{network} -> {report.results or output}"
        lines.append(text)
    return lines


def _video_line(row: dict[str, Any], network: str) -> str:
    text = f"{row['source']}: {counted(row['frames'], 'frame')}"
    if row["resumed"] is not None:
        text += f" from frame {row['resumed']} on"
    # somebody in ten frames is ten finds, and one person where people are followed
    text += f", {counted(row['people'], 'pose')}"
    if row["tracks"] is not None:
        text += f" of {counted(row['tracks'], 'person', 'people')}"
    text += f", {row['fps']:.1f} frames/s{network}"
    files = [row[key] for key in ("results", "video") if key in row]
    if files:
        text += f" -> {', '.join(files)}"
    lost = [f"{row[key]} {word}" for key, word in (("skipped", "damaged"), ("dropped", "too fast")) if row[key]]
    return text + (f"; frames left out: {', '.join(lost)}" if lost else "")


def _print_profile(report: Report) -> None:
    rows = [
        [row["stage"], row["where"], f"{row['seconds']:.2f}", f"{row['ms']:.2f}", f"{row['fps'] or 0:.1f}"]
        for row in report.stages()
    ]
    rows.append(["all together", "", f"{report.seconds:.2f}", f"{1e3 * report.seconds / max(report.images, 1):.2f}"])
    rows[-1].append(f"{report.images_per_second:.1f}")
    typer.echo()
    print_table(["stage", "thread", "seconds", "ms an image", "images/s"], rows)


def _report_dict(report: Report, request: Request, estimator: Estimator | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "images": len(report.written),
        "frames": report.images - len(report.written),
        "people": report.people,
        "seconds": round(report.seconds, 4),
        "images_per_second": round(report.images_per_second, 3),
        "output": str(request.output),
        "results": report.results,
        "interrupted": report.interrupted,
        "files": report.written,
        "videos": report.videos,
        "failed": report.failed,
        "left_out": report.left_out,
    }
    if estimator is not None:
        runtime = estimator.runtime
        found |= {"model": estimator.spec.name, "runtime": runtime.name, "device": runtime.device}
        found |= {"precision": runtime.precision, "threads": runtime.threads, "batch_size": estimator.batch_size}
    if request.profile:
        found["profile"] = report.stages()
    return found
