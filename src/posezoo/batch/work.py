"""What one worker does: the pictures of a part through an estimator, into the tables of the part."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from posezoo import __version__
from posezoo.batch.parts import Counts, PartWriter, tries_path
from posezoo.batch.plan import RUN, Part, Settings
from posezoo.batch.read import Entry, read_item
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.files import make_folder
from posezoo.formats.result import Result
from posezoo.media.ahead import Ahead, one_opencv_thread
from posezoo.media.images import Encoded, Picture, open_image
from posezoo.predict.follow import Keep
from posezoo.predict.request import Request
from posezoo.stream import ahead_of, estimate_some

if TYPE_CHECKING:
    from posezoo.types import Poses

MOST_TRIES = 3


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    Attributes:
        settings: what the results depend on; files are named in full.
        output: the folder of the results, in full.
        folder: where relative paths start.
        device: "auto", "cpu" or "cuda".
        threads: of each worker.
        batch_size: people a network call; None: what suits the device.
        version: of posezoo, which must be the same everywhere.
    """

    settings: Settings
    output: Path
    folder: str
    device: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    version: str = __version__


def open_estimator(job: Job) -> Estimator:
    """The pipeline that a job asks for.

    Raises:
        PosezooError: see `Estimator`; or this worker is no place for the job.
    """
    here = socket.gethostname()
    if job.version != __version__:
        raise PosezooError(f"the worker on {here} has posezoo {__version__}, and this is {job.version}: install that")
    if not (job.output / RUN).is_file():
        raise PosezooError(f"the worker on {here} does not see {job.output}: give a folder that all machines share")
    asked = job.settings
    return Estimator(
        asked.model,
        asked.weights,
        asked.detector,
        asked.runtime,
        job.device,
        asked.flip,
        threads=job.threads,
        batch_size=job.batch_size,
        precision=asked.precision,
    )


def do_part(part: Part, job: Job, estimator: Estimator) -> Counts:
    """Write the tables of a part; relative paths start in the present folder.

    Raises:
        PosezooError: what concerns all parts: the disk is full, or the network refuses every picture.
    """
    started = time.perf_counter()
    # the same people as posezoo predict keeps
    keep = Keep(Request([], job.output, min_score=job.settings.min_score), estimator)
    with PartWriter(job.output, part.number, estimator.skeleton) as tables:
        for entry, found, nbytes in _estimate(part, job.settings, estimator):
            tables.counts.bytes += nbytes
            if isinstance(entry.data, PosezooError):
                tables.fail(entry.source, entry.image, entry.data)
                continue
            assert isinstance(entry.data, Picture) and found is not None
            height, width = entry.data.image_rgb.shape[:2]
            tables.add(entry.source, Result(keep(found), entry.image, entry.frame, entry.time_s, (width, height)))
        tables.counts.seconds = time.perf_counter() - started
        tables.finish()
        return tables.counts


def _estimate(part: Part, settings: Settings, estimator: Estimator) -> Iterator[tuple[Entry, Poses | None, int]]:
    """Every entry in order, with its people where it could be read, and the bytes that were read for it."""
    ahead = ahead_of(estimator.batch_size)
    entries = (entry for item in part.items for entry in read_item(item, settings.every, settings.column))
    opening = partial(_open, max_megapixels=settings.max_megapixels)
    with (
        one_opencv_thread(),
        Ahead(opening, entries, _weight, most=2 * ahead) as opened,
        Ahead(_decode, opened, lambda pair: _weight(pair[0]), most=2 * ahead) as pictures,
    ):
        for (entry, nbytes), poses in estimate_some(estimator, pictures, _picture, ahead):
            yield entry, poses, nbytes


def _picture(pair: tuple[Entry, int]) -> Picture | None:
    data = pair[0].data
    return data if isinstance(data, Picture) else None


def _open(entry: Entry, max_megapixels: float | None) -> tuple[Entry, int]:
    """Read the file, and look at its beginning."""
    data = entry.data
    if not isinstance(data, Path | bytes):
        return entry, data.image_rgb.nbytes if isinstance(data, Picture) else 0
    try:
        encoded = replace(open_image(data, max_megapixels), name=entry.name)
    except PosezooError as err:
        return _failed(entry, err), 0
    return replace(entry, data=encoded), len(encoded.data)


def _decode(pair: tuple[Entry, int]) -> tuple[Entry, int]:
    entry, nbytes = pair
    if not isinstance(entry.data, Encoded):
        return pair
    try:
        return replace(entry, data=Picture(entry.data.decode(), entry.name)), nbytes
    except PosezooError as err:
        return _failed(entry, err), nbytes


def _failed(entry: Entry, error: PosezooError) -> Entry:
    """Bytes have no name of their own that the error could tell."""
    said = str(error).replace("the given bytes", f"{entry.image} in {entry.source}", 1)
    return replace(entry, data=PosezooError(said))


def _weight(entry: Entry) -> int:
    """The memory that an entry takes, or will."""
    data = entry.data
    if isinstance(data, Encoded):
        return data.decoded_bytes
    if isinstance(data, Picture):
        return data.image_rgb.nbytes
    if isinstance(data, Path):
        try:
            return os.stat(data).st_size
        except (OSError, ValueError):  # which opening it will tell of
            return 0
    return len(data) if isinstance(data, bytes) else 0


class _GivenUp(Exception):
    """A part is not tried again."""


def _count_try(path: Path) -> None:
    """Give a part up whose workers die over it: Ray would try it for ever."""
    try:
        make_folder(path.parent)
        with path.open("ab") as file:
            tries = file.tell()
            file.write(b".")
    except OSError as err:
        raise PosezooError(f"cannot write {path}: {err.strerror or err}") from None
    if tries >= MOST_TRIES:
        raise _GivenUp(f"its worker died {tries} times, as it does for want of memory")


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        number: of the part.
        counts: what is in it; None where it could not be done.
        error: why not.
        hopeless: no other part can be done either.
        about: what computed it.
    """

    number: int
    counts: Counts | None = None
    error: str = ""
    hopeless: bool = False
    about: str = ""


class Worker:
    """Opens the networks once, and does one part after the other; never raises."""

    def __init__(self, job: Job, opener: Callable[[Job], Estimator] = open_estimator) -> None:
        """Open the networks; what is wrong with them is said by the first part."""
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a broken file is reported once, by us
        self._job = job
        self._estimator: Estimator | None = None
        self._wrong = ""
        try:
            self._estimator = opener(job)
        except PosezooError as err:
            self._wrong = str(err)

    def __call__(self, part: Part) -> Outcome:
        """Do a part."""
        from posezoo.deploy.runtimes import describe

        if self._estimator is None:
            return Outcome(part.number, error=self._wrong, hopeless=True)
        try:
            self._enter_folder(part)
            tries = tries_path(self._job.output, part.number)
            _count_try(tries)
            try:
                counts = do_part(part, self._job, self._estimator)
            finally:  # this worker lives
                with suppress(OSError):
                    tries.unlink()
        except PosezooError as err:
            return Outcome(part.number, error=str(err), hopeless=True)
        except _GivenUp as err:
            return Outcome(part.number, error=str(err))
        except Exception as err:
            return Outcome(part.number, error=f"{type(err).__name__}: {' '.join(str(err).split())}")
        about = f"{self._estimator.spec.name}; {describe(self._estimator.runtime)}"
        return Outcome(part.number, counts, about=about)

    def _enter_folder(self, part: Part) -> None:
        """Relative paths mean here what they meant where the run was started."""
        if all(os.path.isabs(item.path) for item in part.items):
            return
        try:
            os.chdir(self._job.folder)
        except OSError:
            here = socket.gethostname()
            raise PosezooError(
                f"the worker on {here} does not see {self._job.folder}: give the sources by their full paths, in a "
                "folder that all machines share"
            ) from None
