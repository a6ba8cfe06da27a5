"""The loop over picture files: read ahead, estimated together, drawn and written in threads. None stops the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.formats import Result, ResultWriter, get_format, open_writer
from posezoo.media.ahead import Ahead
from posezoo.media.images import open_image, write_image
from posezoo.predict.follow import Follow, Keep
from posezoo.predict.paint import Painter
from posezoo.predict.report import Report
from posezoo.predict.request import Request
from posezoo.stopwatch import timed
from posezoo.stream import MOST_AHEAD, Found, estimate_files

if TYPE_CHECKING:
    from posezoo.estimator import Estimator


class Numbered(NamedTuple):
    """A picture file.

    Attributes:
        path: of the file.
        number: of the picture in the sequence that all sources are, one after the other; those not wanted count.
    """

    path: Path
    number: int


class _Kept(NamedTuple):
    """A picture with the people that are reported, and its time, counted by its number."""

    path: Path
    found: Found
    passed_s: float


class _Outcome(NamedTuple):
    """What became of a picture: a row of `Report.written`, or what was wrong; its people where one file has all."""

    path: Path
    written: dict[str, Any] | PosezooError
    result: Result | None = None


def predict_pictures(
    numbered: Sequence[Numbered],
    names: dict[Path, str],
    request: Request,
    estimator: Estimator,
    report: Report,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Find the people in every picture and write what was found.

    Args:
        numbered: the pictures in their order.
        names: what to call the results of each.
        request: what to do with the results.
        estimator: finds the people.
        report: is told of everything.
        progress: called with (pictures done, pictures in all) after each.

    Raises:
        PosezooError: what concerns all pictures. What concerns one is in the report.
    """
    paths = [picture.path for picture in numbered]
    if isinstance(estimator.detector, BoxesFile):
        estimator.detector.check_has_any(map(str, paths))
    chosen = get_format(request.format)
    target = request.output if request.results is None else request.output / request.results
    writer = open_writer(
        request.format,
        target,
        estimator.skeleton,
        per_frame=request.per_frame,
        name=lambda result: names[Path(result.image)],
        ending=request.ending,
    )
    each = chosen.each or request.per_frame

    def stop() -> None:
        """A list of a part would look like a whole one; lines are known to end anywhere. Nothing is no result."""
        (writer.close if chosen.name == "jsonl" and report.written else writer.discard)()

    pictures = _Pictures(request, estimator, names, report, writer if each else None)
    began = time.perf_counter()
    try:
        with (
            estimate_files(
                estimator,
                paths,
                look_ahead=estimator.batch_size,  # with a person in each they fill a batch
                opening=partial(open_image, max_megapixels=request.max_megapixels),
                watch=report.profile,
            ) as found,
            Ahead(
                pictures.write,
                pictures.kept(zip(numbered, found, strict=True)),
                _picture_bytes,
                threads=pictures.painter.threads,
                most=MOST_AHEAD,
            ) as outcomes,
        ):
            try:
                for done, outcome in enumerate(timed(report.profile, "wait for writing", outcomes), 1):
                    _note(outcome, report, writer)
                    if progress:
                        progress(done, len(paths))
            except KeyboardInterrupt:
                report.interrupted = True
                for outcome in outcomes.stop():
                    _note(outcome, report, writer)
        if report.interrupted or not report.written:
            stop()
        files = writer.close()
        report.results = None if each or not files else os.fspath(files[0])
    except BaseException:
        stop()
        raise
    finally:
        report.seconds += time.perf_counter() - began


@dataclass
class _Pictures:
    """The steps after the estimator."""

    request: Request
    estimator: Estimator
    names: dict[Path, str]
    report: Report
    writer: ResultWriter | None  # that of files for each picture, which may be written in any order
    painter: Painter = field(init=False)

    def __post_init__(self) -> None:
        self.painter = Painter(self.request.look, self.estimator.skeleton)

    def kept(self, found: Iterator[tuple[Numbered, Found]]) -> Iterator[_Kept]:
        """Whoever stays, followed from picture to picture where that is wanted."""
        request, watch = self.request, self.report.profile
        keep = Keep(request, self.estimator)
        follow = Follow(request, self.estimator.skeleton, watch) if request.follows else None
        for (path, number), (picture, poses) in found:
            passed_s = request.seconds(number)
            if picture is not None and not isinstance(poses, PosezooError):
                poses = keep(poses)
                if follow:
                    poses = follow(poses, picture.image_rgb, passed_s)
            yield _Kept(path, Found(picture, poses), passed_s)

    def write(self, kept: _Kept) -> _Outcome:
        """The files of one picture, and what the report says of it."""
        try:
            return self._write(kept)
        except PosezooError as err:
            return _Outcome(kept.path, err)

    def _write(self, kept: _Kept) -> _Outcome:
        path, (picture, poses), passed_s = kept
        if isinstance(poses, PosezooError):
            raise poses
        assert picture is not None
        image, watch = picture.image_rgb, self.report.profile
        written: dict[str, Any] = {"image": os.fspath(path), "people": len(poses)}
        if self.request.pictures:
            with watch("draw"):
                drawn = self.painter(image, poses, passed_s)
            file = self.request.output / self.request.pictures_folder / f"{self.names[path]}.jpg"
            with watch("write images"):
                write_image(file, drawn)
            written["picture"] = os.fspath(file)
        result = Result(poses, os.fspath(path), size_wh=(image.shape[1], image.shape[0]))
        if self.writer is None:
            return _Outcome(path, written, result)
        with watch("write results"):
            written["json"] = os.fspath(self.writer.add(result) or "")
        return _Outcome(path, written)


def _picture_bytes(kept: _Kept) -> int:
    """The bytes that wait to be drawn on."""
    return 0 if kept.found.picture is None else kept.found.picture.image_rgb.nbytes


def _note(outcome: _Outcome, report: Report, writer: ResultWriter) -> None:
    """Put what became of a picture into the report, and its people where those of all go into one file."""
    if isinstance(outcome.written, PosezooError):
        report.fail(outcome.path, outcome.written)
        return
    if outcome.result is not None:
        writer.add(outcome.result)
    report.written.append(outcome.written)
