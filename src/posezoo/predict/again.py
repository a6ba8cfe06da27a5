"""What the results of a video depend on: kept in the first of its lines, so that a run goes on only with the same.

Two models or two ways of taking frames in one file look like one run, and no reader could tell where they meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from posezoo.identity import check_same_run, hash_of
from posezoo.predict.request import Request

_SAID = ("start", "every", "smooth", "fps", "min_score", "min_box_area")  # fields of `Request`


def run_settings(request: Request) -> dict[str, Any]:
    """The settings that decide the results, by the option that says so; of a file, what is in it counts, not its place.

    Raises:
        PosezooError: a file cannot be read.
    """
    own: dict[str, Any] = {f"--{name.replace('_', '-')}": getattr(request, name) for name in _SAID}
    own |= {"--track": request.track is not None, "--flow": request.track == "flow"}
    return {option: _said(value) for option, value in {**request.asked, **own}.items()}


def _said(value: Any) -> Any:
    if not isinstance(value, str) or not Path(value).is_file():
        return value
    state = Path(value).stat()
    return f"{Path(value).name} (sha256 {_sha256(Path(value), state.st_size, state.st_mtime_ns)[:16]})"


@lru_cache(maxsize=16)  # weights are large, and every video of a run asks
def _sha256(file: Path, size: int, changed: int) -> str:
    return hash_of(file)


def check_same(before: Mapping[str, Any] | None, now: Mapping[str, Any], file: Path) -> None:
    """See that an earlier run had the same settings; those that one of the two does not say are passed over.

    Raises:
        PosezooError: it had others; the line names them.
    """
    said = before or {}
    mend = "Give the same, or another folder with -o, or begin anew without --resume"
    check_same_run(said, {option: value for option, value in now.items() if option in said}, file, mend)
