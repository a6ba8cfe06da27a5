"""What the user wants of `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posezoo.errors import PosezooError, unknown_name
from posezoo.formats import FORMATS, get_format

MIN_SCORE = 0.16  # half of those whom the embedded pair finds above it in COCO photographs are people, few below it
FPS = 25.0  # of frames that say nothing of their time
VIDEO_FORMATS = ("mp4", "avi", "gif")
TRACKERS = ("boxes", "flow")


@dataclass(frozen=True)
class Look:
    """How people are drawn; see `posezoo.draw.draw_poses`.

    Attributes:
        boxes: their boxes too.
        ids: their track ids, where they have any.
        names: the names of the joints.
        trails: where people came from, in the last second.
        side_by_side: the picture as it was on the left.
        theme: one of `posezoo.draw.THEMES`.
    """

    boxes: bool = False
    ids: bool = True
    names: bool = False
    trails: bool = False
    side_by_side: bool = False
    theme: str = "default"


@dataclass(frozen=True)
class Request:
    """What to do with the results.

    Attributes:
        sources: whatever `posezoo.media.sources.open_source` takes.
        output: the folder to write to; made where it does not exist.
        format: one of `posezoo.formats.FORMATS`. Results of pictures go to a file each or to one for all, as the format
            has it; those of a video to a file, or a folder, called as the video is.
        pictures: write the annotated pictures and videos too.
        min_score: leave out people whose score, the box's times the mean of the joints', is below it; None: `MIN_SCORE`
            for those a network found, and nobody whose box was given.
        max_megapixels: refuse larger pictures, see `posezoo.media.images.read_image`.
        min_box_area: leave out people whose box has fewer pixels.
        per_frame: a file for each picture or frame, where the format has one list for all.
        resume: go on with the JSON lines of a video that an earlier run began.
        results: the file or folder of the results within `output`, in place of the name that it has by the rules above.
        ending: of the names of OpenPose's and CMU's files, in place of their own.
        start: the first frame wanted, see `open_source`.
        end: the first frame no longer wanted.
        every: one frame of so many.
        track: how ids are given, one of `TRACKERS`; None: not at all.
        smooth: have the joints of followed people not jitter.
        fps: frames a second, where frames say nothing of their time.
        look: how people are drawn.
        video_format: one of `VIDEO_FORMATS`.
        videos: write the annotated video of a video; None: as `pictures` says.
        frame_pictures: write each frame of a video as an annotated picture, called by its number.
        pictures_folder: where annotated pictures go, within `output`.
        video_name: what the annotated video is called, without suffix; {} stands for the name of its source.
        merge_given: leave out poses that repeat a better one where the boxes are given too; else each box has its pose.
        asked: what decides how the estimator sees, by the option that says so: `resume` goes on only with the same.
        profile: watch each step of the estimator too.
    """

    sources: Sequence[str]
    output: Path
    format: str = "posezoo"
    pictures: bool = True
    min_score: float | None = None
    max_megapixels: float | None = None
    min_box_area: float = 0.0
    per_frame: bool = False
    resume: bool = False
    results: str | None = None
    ending: str | None = None
    start: str | float | None = None
    end: str | float | None = None
    every: int = 1
    track: str | None = None
    smooth: bool = False
    fps: float | None = None
    look: Look = field(default_factory=Look)
    video_format: str = "mp4"
    videos: bool | None = None
    frame_pictures: bool = False
    pictures_folder: str = ""
    video_name: str = "{}"
    merge_given: bool = False
    asked: Mapping[str, str | float | bool | None] = field(default_factory=dict)
    profile: bool = False

    def __post_init__(self) -> None:
        from posezoo.draw import get_theme
        from posezoo.media.images import check_megapixels
        from posezoo.media.span import make_span

        chosen = get_format(self.format)
        if self.max_megapixels is not None:
            check_megapixels(self.max_megapixels)
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise PosezooError(f"min-score must be between 0 and 1, but is {self.min_score:g}")
        if self.per_frame and not (chosen.each or chosen.lists):
            able = [each.name for each in FORMATS.values() if each.each or each.lists]
            raise PosezooError(f"{chosen.name} has one file for all; a file for each frame have {', '.join(able)}")
        if self.resume and (self.per_frame or get_format(self.format, video=True).name != "jsonl"):
            raise PosezooError("only JSON lines can be gone on with: --resume needs the format posezoo or jsonl")
        if self.video_format not in VIDEO_FORMATS:
            raise unknown_name("video format", self.video_format, VIDEO_FORMATS)
        if self.track is not None and self.track not in TRACKERS:
            raise unknown_name("tracker", self.track, TRACKERS)
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise PosezooError(f"fps must be above 0 and at most 1000, but is {self.fps:g}")
        get_theme(self.look.theme)
        make_span(self.start, self.end, self.every)

    def rate(self, fps: float | None = None) -> float:
        """Frames a second of a source that says so itself (`fps`), or does not."""
        return fps or self.fps or FPS

    def seconds(self, index: int, fps: float | None = None) -> float:
        """The time of a frame that says none, by its number in its source, whose own rate is `fps`."""
        return index / self.rate(fps)

    @property
    def write_videos(self) -> bool:
        """Whether a video gets an annotated one."""
        return self.pictures if self.videos is None else self.videos

    @property
    def follows(self) -> bool:
        """Whether people get ids."""
        return self.track is not None or self.smooth
