"""What is to run on a GPU, shown without one: no tensor stays on the CPU, and nothing overtakes what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("checks", ["checks_other_device.py", "checks_streams.py"])
@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices written in Python",
)
def test_a_device_of_its_own_does_what_the_cpu_does(checks: str) -> None:
    """In a process apart: a device that torch has been told of stays."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", checks]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]
