"""The command line, run in this process: what it printed, and how it ended."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from posezoo import cli


class Ran(NamedTuple):
    """What is left of a command: its exit code and its two streams."""

    code: int
    out: str
    err: str


def run(*words: object, **variables: str) -> Ran:
    """`posezoo` with these words and environment variables; what it raises but does not say is raised here."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in variables.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return Ran(int(ended.value.code or 0), *said)
