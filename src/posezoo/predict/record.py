"""What is written of a video: its results, frame by frame, and the annotated video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.formats import Result, get_format, open_writer
from posezoo.formats.jsonl import Resumed
from posezoo.media.images import write_image
from posezoo.media.sources import Frame
from posezoo.media.writer import VideoWriter
from posezoo.predict.paint import Painter
from posezoo.predict.request import Request
from posezoo.skeletons import Skeleton
from posezoo.stopwatch import Watch
from posezoo.types import Poses


class Seen(NamedTuple):
    """A frame and the people in it.

    Attributes:
        frame: as its source gave it.
        poses: those who are reported.
        passed_s: its time, counted by its number where the source says none.
    """

    frame: Frame
    poses: Poses
    passed_s: float


class Drawn(NamedTuple):
    """The people of a frame, and the annotated picture where one is wanted."""

    result: Result
    image_rgb: NDArray[np.uint8] | None


class Recorder:
    """Draws and writes frames, as a context manager; whatever ends its block, what was written until then is good.

    `draw` may run ahead of `write`, in another thread. An annotated video that cannot be written is given up, and the
    results go on.

    Attributes:
        painter: draws.
        results: the file or folder of the results.
        files: what there is once the block has ended: "results" and "video".
        goes_on_at: the frame at which a resumed run goes on; None: it begins anew.
        frames: those written so far.
        people: in all of them together.
        problem: why the video was given up, or the results could not be ended.
    """

    def __init__(
        self,
        request: Request,
        name: str,
        skeleton: Skeleton,
        fps: float | None,
        watch: Watch,
        before: Resumed | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """See that the results can be written; nothing of an earlier run is gone before the first frame comes.

        Args:
            request: what is wanted.
            name: what to call the files.
            skeleton: of all people.
            fps: of the source.
            watch: is told of the steps "draw", "write results" and "write images".
            before: what an earlier run left that is gone on with. A video file has an end that nothing can be added
                to, so that the annotated video of the rest is a file of its own.
            settings: what the results depend on, see `posezoo.predict.again`.

        Raises:
            PosezooError: the results cannot be written.
        """
        self.painter = Painter(request.look, skeleton)
        self.results = results_path(request, name)
        self.files: dict[str, str] = {}
        self.frames = self.people = 0
        self.problem: PosezooError | None = None
        self._broken: PosezooError | None = None
        self._request, self._watch = request, watch
        self._fps = request.rate(fps) / request.every
        self.goes_on_at = None if before is None or before.last is None else (before.last.frame or 0) + 1
        part = "" if self.goes_on_at is None else f"-from{self.goes_on_at}"
        shown = request.video_name.replace("{}", name)
        self._video_path = request.output / f"{shown}{part}.{request.video_format}"
        self._draws = request.write_videos or request.frame_pictures
        self._video: VideoWriter | None = None
        self._writer = open_writer(
            request.format,
            self.results,
            skeleton,
            video=True,
            per_frame=request.per_frame,
            resume=before or False,
            run=settings,
            ending=request.ending,
        )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if self.frames == 0 and self.goes_on_at is None:
                self._writer.discard()
                if self.results.is_dir():
                    with suppress(OSError):  # somebody else's files are in it
                        self.results.rmdir()
            else:
                self.files["results"] = os.fspath(self._writer.close()[0])
        except PosezooError as err:
            self.problem = err
        self._end_video()

    def draw(self, seen: Seen) -> Drawn:
        """The annotated picture of a frame."""
        frame, poses, passed_s = seen
        image = frame.image_rgb
        size_wh = (image.shape[1], image.shape[0])
        drawn = None
        if self._draws and self.problem is None:
            with self._watch("draw"):
                drawn = self.painter(image, poses, passed_s, spare=True)
        return Drawn(Result(poses, frame.name, frame.index, frame.time_s, size_wh), drawn)

    def write(self, drawn: Drawn) -> None:
        """The next frame.

        Raises:
            PosezooError: its results cannot be written; nor are those of any other after it, which would leave a hole.
        """
        if self._broken is not None:
            raise self._broken
        try:
            with self._watch("write results"):
                self._writer.add(drawn.result)
        except PosezooError as err:
            self._broken = err
            raise
        self.frames += 1
        self.people += len(drawn.result.poses)
        if drawn.image_rgb is None or self.problem is not None:
            return
        with self._watch("write images"):
            try:
                self._show(drawn.image_rgb, drawn.result)
            except PosezooError as err:
                self.problem = err

    def _show(self, image_rgb: NDArray[np.uint8], result: Result) -> None:
        if self._request.frame_pictures:
            write_image(self._request.output / self._request.pictures_folder / f"{result.frame}.jpg", image_rgb)
        if not self._request.write_videos:
            return
        size_wh = (image_rgb.shape[1], image_rgb.shape[0])
        if self._video is None:
            self._video = VideoWriter(self._video_path, size_wh, self._fps)
        if size_wh != self._video.size_wh:  # pictures from stdin may have any
            import cv2

            image_rgb = np.asarray(cv2.resize(image_rgb, self._video.size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        self._video.add(image_rgb, result.time_s)

    def _end_video(self) -> None:
        if self._video is None:
            return
        try:
            self._video.close()
            if self.problem is None:
                self.files["video"] = os.fspath(self._video_path)
        except PosezooError as err:
            self.problem = err


def results_path(request: Request, name: str) -> Path:
    """Where the results of a video go: a file, or a folder where the format has a file for each frame."""
    if request.results is not None:
        return request.output / request.results
    chosen = get_format(request.format, video=not request.per_frame)
    if chosen.each or request.per_frame:
        return request.output / name
    return request.output / f"{name}{chosen.suffix}"
