"""The loop behind `posezoo predict`: sources -> results -> files. One bad picture never stops the others."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from posezoo.errors import PosezooError, unknown_name
from posezoo.files import make_folder, write_atomic
from posezoo.media.ahead import Ahead
from posezoo.media.images import find_images, write_image
from posezoo.stream import MOST_AHEAD, Found, estimate_files
from posezoo.suppress import rescore

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.types import Poses

FORMATS = ("posezoo", "coco")
COCO_FILE = "coco_results.json"
MIN_SCORE = 0.18  # half of those whom the embedded pair finds above it in COCO photographs are people, few below it


@dataclass(frozen=True)
class Request:
    """What to do with the results.

    Attributes:
        sources: files, folders and globs.
        output: the folder to write to; made where it does not exist.
        format: one of `FORMATS`: "posezoo" is one JSON file a picture, "coco" one results file for all.
        pictures: write the annotated pictures too.
        min_score: leave out people whose score, the box's times the mean of the joints', is below it; None: `MIN_SCORE`
            for those a network found, and nobody whose box was given.
        max_megapixels: refuse larger pictures, see `posezoo.media.images.read_image`.
    """

    sources: Sequence[str]
    output: Path
    format: str = "posezoo"
    pictures: bool = True
    min_score: float | None = None
    max_megapixels: float | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown_name("format", self.format, FORMATS)
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise PosezooError(f"min-score must be between 0 and 1, but is {self.min_score:g}")


@dataclass
class Report:
    """What became of the sources.

    Attributes:
        total: pictures found.
        written: one dict a picture: "image", "people", and the files "json" and "picture" where there are any.
        failed: one dict a source or picture that could not be processed: "source" and "error".
        seconds: of the loop, without loading the networks.
        results: the one results file of the coco format.
        interrupted: stopped by Ctrl-C.
    """

    total: int = 0
    written: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    results: str | None = None
    interrupted: bool = False

    @property
    def people(self) -> int:
        """In all pictures together."""
        return sum(row["people"] for row in self.written)

    @property
    def images_per_second(self) -> float:
        """Reading and writing included."""
        return len(self.written) / self.seconds if self.seconds else 0.0

    def fail(self, source: object, error: PosezooError) -> None:
        """Note a failure."""
        self.failed.append({"source": str(source), "error": str(error)})


class _Outcome(NamedTuple):
    """What became of a picture: a row of `Report.written`, or what was wrong; the people where they are wanted."""

    path: Path
    written: dict[str, Any] | PosezooError
    poses: Poses | None = None


def predict(
    request: Request,
    open_estimator: Callable[[], Estimator],
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Find the people in every picture of the sources and write what was found.

    Args:
        request: sources and output.
        open_estimator: makes the estimator; called once it is clear that there is something to do.
        progress: called with (pictures done, pictures in all) after each.

    Raises:
        PosezooError: what concerns all pictures: the output folder, the model. What concerns one is in the report.
    """
    report = Report()
    paths = _collect(request.sources, report)
    report.total = len(paths)
    if not paths:
        return report
    _prepare_output(request.output, paths)
    estimator = open_estimator()
    _check_boxes_file(estimator, paths)
    started = time.perf_counter()
    collected: list[tuple[Path, Poses]] = []
    with _writing(request, estimator, paths) as outcomes:
        try:
            for done, outcome in enumerate(outcomes, 1):
                _note(outcome, report, collected)
                if progress:
                    progress(done, report.total)
            if request.format == "coco":
                report.results = _write_coco(request.output, collected)
        except KeyboardInterrupt:
            report.interrupted = True
            for outcome in outcomes.stop():
                _note(outcome, report, collected)
    report.seconds = time.perf_counter() - started
    return report


def _collect(sources: Sequence[str], report: Report) -> list[Path]:
    """Every picture once, in order; sources that give none go into the report."""
    found: dict[Path, Path] = {}
    for source in sources:
        try:
            for path in find_images(source):
                found.setdefault(path.resolve(), path)
        except PosezooError as err:
            report.fail(source, err)
    return list(found.values())


def _prepare_output(output: Path, paths: Sequence[Path]) -> None:
    """Make the folder, and find out now rather than after the first picture whether it can be written."""
    if output.exists() and not output.is_dir():
        raise PosezooError(f"the output {output} is a file; choose a folder with -o")
    for path in paths:
        if path.parent.resolve() == output.resolve():
            raise PosezooError(f"the output folder {output} holds the source {path.name}; choose another with -o")
    try:
        make_folder(output)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as err:
        raise PosezooError(f"cannot write to the output folder {output}: {err.strerror or err}") from None


def _check_boxes_file(estimator: Estimator, paths: Sequence[Path]) -> None:
    """A boxes file that names none of the pictures is the wrong file; one that misses some had no box for them."""
    from posezoo.detect.boxes_file import BoxesFile

    detector = estimator.detector
    if isinstance(detector, BoxesFile) and all(detector.find(str(path)) is None for path in paths):
        example = next(iter(detector.by_name), None)
        named = f"it has, for example, '{example}'" if example is not None else "it is empty"
        raise PosezooError(f"the boxes file {detector.path} has none of the pictures ({named})")


def _least_score(request: Request, estimator: Estimator) -> float:
    """The score below which people are left out."""
    from posezoo.detect.embedded import PersonDetector

    if request.min_score is not None:
        return request.min_score
    return MIN_SCORE if isinstance(estimator.detector, PersonDetector) else 0.0


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each picture: its stem; where several share one, the later get -2, -3, ...

    Case does not tell names apart, since it does not on every file system.
    """
    stems = {path.stem.lower() for path in paths}
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken or (number > 1 and name.lower() in stems):
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        names[path] = name
    return names


@contextmanager
def _writing(request: Request, estimator: Estimator, paths: Sequence[Path]) -> Iterator[Ahead[Any, _Outcome]]:
    """What became of each picture, in order: drawn and written in threads while the network looks at the next ones."""
    names = output_names(paths)
    least = _least_score(request, estimator)
    ahead = estimator.batch_size  # with a person in each they fill a batch

    def write(item: tuple[Path, Found]) -> _Outcome:
        path, found = item
        try:
            return _write(request, path, names[path], found, least)
        except PosezooError as err:
            return _Outcome(path, err)

    with (
        estimate_files(estimator, paths, look_ahead=ahead, max_megapixels=request.max_megapixels) as found,
        Ahead(write, zip(paths, found, strict=True), _picture_bytes, most=MOST_AHEAD) as outcomes,
    ):
        yield outcomes


def _picture_bytes(item: tuple[Path, Found]) -> int:
    """The bytes that wait to be drawn on."""
    picture = item[1].picture
    return 0 if picture is None else picture.image_rgb.nbytes


def _write(request: Request, path: Path, name: str, found: Found, least: float) -> _Outcome:
    """The files of one picture, and what the report says of it."""
    from posezoo.draw import draw_poses
    from posezoo.formats.posezoo import to_json

    if isinstance(found.poses, PosezooError):
        raise found.poses
    assert found.picture is not None
    poses = found.poses[rescore(found.poses.box_scores, found.poses.scores) >= least]
    image = found.picture.image_rgb
    written: dict[str, Any] = {"image": os.fspath(path), "people": len(poses)}
    if request.pictures:
        drawn = request.output / f"{name}.jpg"
        write_image(drawn, draw_poses(image, poses))
        written["picture"] = os.fspath(drawn)
    if request.format == "posezoo":
        file = request.output / f"{name}.json"
        write_atomic(file, to_json(poses, image=os.fspath(path), size_wh=(image.shape[1], image.shape[0])))
        written["json"] = os.fspath(file)
    return _Outcome(path, written, poses if request.format == "coco" else None)


def _note(outcome: _Outcome, report: Report, collected: list[tuple[Path, Poses]]) -> None:
    """Put what became of a picture into the report, and its people where those of all go into one file."""
    if isinstance(outcome.written, PosezooError):
        report.fail(outcome.path, outcome.written)
        return
    report.written.append(outcome.written)
    if outcome.poses is not None:
        collected.append((outcome.path, outcome.poses))


def _write_coco(output: Path, results: Sequence[tuple[Path, Poses]]) -> str:
    from posezoo.formats.coco import to_json

    file = output / COCO_FILE
    write_atomic(file, to_json([poses for _, poses in results], [os.fspath(path) for path, _ in results]))
    return os.fspath(file)
