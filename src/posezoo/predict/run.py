"""One source after another; all pictures together, at the end."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from posezoo.errors import PosezooError
from posezoo.files import matching
from posezoo.media.images import SUFFIXES
from posezoo.media.sources import PictureFiles, Source, open_source
from posezoo.predict.frames import predict_frames
from posezoo.predict.names import beside_videos, output_names, prepare_output, source_name
from posezoo.predict.pictures import Numbered, predict_pictures
from posezoo.predict.report import Report
from posezoo.predict.request import Request
from posezoo.stopwatch import watch_estimator

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

NOT_READ = (".heic", ".heif", ".avif")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts")

Progress = Callable[[int, int | None], None]


def predict(request: Request, open_estimator: Callable[[], Estimator], progress: Progress | None = None) -> Report:
    """Find the people in every picture and frame of the sources and write what was found.

    Args:
        request: sources and output.
        open_estimator: makes the estimator; called once it is clear that there is something to do.
        progress: called with (done, in all or None) after each picture, and after each frame of each video.

    Raises:
        PosezooError: what concerns all sources: the output folder, the model. What concerns one is in the report.
    """
    report = Report()
    opened = _Opened(open_estimator, request, report)
    pictures: dict[Path, Numbered] = {}  # those of all sources, each once
    count = 0  # of those that the sources so far have, wanted or not
    taken: set[str] = set()
    with closing(_sources(request, report)) as sources, opened:
        for source in sources:
            if isinstance(source, PictureFiles):
                for index, path in zip(source.indices, source.paths, strict=True):
                    pictures.setdefault(path.resolve(), Numbered(path, count + index))
                count += source.indices.stop
                continue
            prepare_output(request.output, _files(source))
            estimator, name = opened(), source_name(source.name, taken)
            try:
                predict_frames(source, name, request, estimator, report, progress)
            except PosezooError as err:
                report.fail(source.name, err)
            if report.interrupted:
                break
        report.total = len(pictures)
        if pictures and not report.interrupted:
            paths = [picture.path for picture in pictures.values()]
            prepare_output(request.output, paths)
            names, asked = output_names(paths, taken), beside_videos(request, taken)
            predict_pictures(list(pictures.values()), names, asked, opened(), report, progress)
    return report


def _sources(request: Request, report: Report) -> Generator[Source, None, None]:
    """One open source after the other; what cannot be opened goes into the report."""
    for given in request.sources:
        report.left_out += left_out(given)
    for spec in (each for given in request.sources for each in videos_of(given)):
        try:
            source = open_source(
                spec,
                start=request.start,
                end=request.end,
                every=request.every,
                max_megapixels=request.max_megapixels,
            )
        except PosezooError as err:
            report.fail(spec, err)
            continue
        for failure in source.failed:
            report.fail(failure.source, failure.error)
        with source:
            yield source


def videos_of(spec: str) -> list[str]:
    """The videos that a folder or a glob stands for where it has no pictures; anything else is itself."""
    found = _within(spec)
    if any(file.suffix.lower() in SUFFIXES for file in found):
        return [spec]
    return _named(found, VIDEO_SUFFIXES) or [spec]


def left_out(spec: str) -> list[str]:
    """The videos, and the pictures of kinds that are not read, in a folder or a glob beside pictures that are."""
    found = _within(spec)
    if not any(file.suffix.lower() in SUFFIXES for file in found):
        return []
    return _named(found, (*VIDEO_SUFFIXES, *NOT_READ))


def _within(spec: str) -> list[Path]:
    """What is in a folder, or goes by a glob; nothing for anything else."""
    path = Path(os.path.expanduser(spec))
    if os.path.isdir(path):
        return list(path.iterdir())
    if not os.path.exists(path) and "://" not in spec and glob.has_magic(spec):
        return list(map(Path, matching(path)))
    return []


def _named(files: Sequence[Path], suffixes: Sequence[str]) -> list[str]:
    return [str(file) for file in sorted(files) if file.suffix.lower() in suffixes and file.name[0] != "."]


def _files(source: Source) -> list[Path]:
    """The file that a source is, if it is one."""
    path = Path(source.name)
    return [path] if path.is_file() else []


class _Opened:
    """The estimator, made when it is first asked for, and watched as long as it is needed."""

    def __init__(self, open_estimator: Callable[[], Estimator], request: Request, report: Report) -> None:
        self._open, self._request, self._report = open_estimator, request, report
        self._estimator: Estimator | None = None
        self._restore: Callable[[], None] = lambda: None

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def __call__(self) -> Estimator:
        if self._estimator is None:
            self._estimator = self._open()
            if self._request.merge_given:
                self._estimator.merge = True
            if self._request.profile:
                self._restore = watch_estimator(self._estimator, self._report.profile)
        return self._estimator
