"""The loop over the frames of a video, a camera or a stream: one pass over each, in bounded memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.formats import jsonl
from posezoo.media.ahead import Ahead, one_opencv_thread
from posezoo.media.sources import LIVE, Frame, Source
from posezoo.predict.again import check_same, run_settings
from posezoo.predict.follow import Follow, Keep
from posezoo.predict.record import Drawn, Recorder, Seen, results_path
from posezoo.predict.report import Report
from posezoo.predict.request import Request
from posezoo.skeletons import Skeleton
from posezoo.stopwatch import Watch, timed
from posezoo.stream import estimate_frames, read_frames
from posezoo.types import Poses

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

MOST_WAITING = 16  # frames that wait to be drawn, and again to be written; their memory is bounded too


def predict_frames(
    source: Source,
    name: str,
    request: Request,
    estimator: Estimator,
    report: Report,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Find the people in every frame of a source and write what was found as it comes.

    A source that ends early, or whose results cannot be written any more, is told of in the report; what was done
    until then is kept.

    Args:
        source: a video, a camera or a stream.
        name: what to call the files.
        request: what to do with the results.
        estimator: finds the people.
        report: is told of everything.
        progress: called with (frames done, about how many there are) after each.

    Raises:
        PosezooError: the results file cannot be begun, or gone on with; or the boxes are those of another video.
    """
    watch, began = report.profile, time.perf_counter()
    settings = run_settings(request)
    before = _done_before(request, source, name, settings, estimator.skeleton)
    _check_boxes(estimator, source)
    _forget(estimator)
    keep = Keep(request, estimator)
    first_id = 1 if before is None else max(before.next_track_id, 1)
    follow = Follow(request, estimator.skeleton, watch, first_id) if request.follows else None

    def followed(found: Iterator[tuple[Frame, Poses]]) -> Iterator[Seen]:
        for frame, poses in found:
            kept = keep(poses)
            passed_s = request.seconds(frame.index, source.fps) if frame.time_s is None else frame.time_s
            yield Seen(frame, kept if follow is None else follow(kept, frame.image_rgb, passed_s), passed_s)

    recorder = Recorder(request, name, estimator.skeleton, source.fps, watch, before, settings)
    with recorder, one_opencv_thread(), read_frames(source, after=(recorder.goes_on_at or 0) - 1, watch=watch) as feed:
        found = followed(estimate_frames(estimator, source, feed, watch))
        with (
            Ahead(recorder.draw, found, _waiting, threads=recorder.painter.threads, most=MOST_WAITING) as drawn,
            Ahead(recorder.write, drawn, _waiting_drawn, threads=1, most=MOST_WAITING) as written,
        ):
            _run(written, source, report, progress, watch)
    for error in (feed.error, recorder.problem):
        if error is not None:
            report.fail(source.name, error)
    seconds = time.perf_counter() - began
    report.seconds += seconds
    report.videos.append(_row(source, recorder, follow, seconds))


def _run(
    written: Ahead[Any, None],
    source: Source,
    report: Report,
    progress: Callable[[int, int | None], None] | None,
    watch: Watch,
) -> None:
    """Have every frame written."""
    try:
        for done, _ in enumerate(timed(watch, "wait for writing", written), 1):
            if progress:
                progress(done, source.total)
    except KeyboardInterrupt:
        report.interrupted = True
        for _ in written.stop():  # waits for the frame that is being written
            pass
    except PosezooError as err:
        report.fail(source.name, err)


def _done_before(
    request: Request, source: Source, name: str, settings: Mapping[str, Any], skeleton: Skeleton
) -> jsonl.Resumed | None:
    """What an earlier run left, where it is to be gone on with."""
    if not request.resume:
        return None
    if source.kind == LIVE:
        raise PosezooError(f"{source.name} cannot be gone on with: what it showed is over; run it without --resume")
    file = results_path(request, name)
    before = jsonl.resume(file, skeleton)
    check_same(before.run, settings, file)
    return before


def _check_boxes(estimator: Estimator, source: Source) -> None:
    """A boxes file of another video is the wrong file: none of its numbers is a frame of this one."""
    if isinstance(estimator.detector, BoxesFile) and source.kind != LIVE:
        numbers = (re.search(r"(\d+)(?:\.jpg)?$", name) for name in estimator.detector.by_name)
        estimator.detector.check_has_any(f"{source.name}#{int(number[1])}" for number in numbers if number)


def _forget(estimator: Estimator) -> None:
    """Whom a detector follows is in none of the next video's frames."""
    reset = getattr(estimator.detector, "reset", None)
    if reset is not None:
        reset()


def _waiting(item: Seen) -> int:
    return item.frame.image_rgb.nbytes


def _waiting_drawn(item: Drawn) -> int:
    return 0 if item.image_rgb is None else item.image_rgb.nbytes


def _row(source: Source, recorder: Recorder, follow: Follow | None, seconds: float) -> dict[str, Any]:
    """A row of `Report.videos`."""
    return {
        "source": source.name,
        "frames": recorder.frames,
        "people": recorder.people,
        "tracks": None if follow is None else follow.people,
        "skipped": source.skipped,
        "dropped": getattr(source, "dropped", 0),
        "resumed": recorder.goes_on_at,
        "seconds": round(seconds, 4),
        "fps": round(recorder.frames / seconds, 3) if seconds else 0.0,
        **recorder.files,
    }
