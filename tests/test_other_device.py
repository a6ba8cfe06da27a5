"""That nothing which is to run on a GPU keeps a tensor on the CPU, shown without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices written in Python",
)
def test_a_device_of_its_own_computes_and_learns_what_the_cpu_does() -> None:
    """In a process apart: a device that torch has been told of stays."""
    checks = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "checks_other_device.py"]
    done = subprocess.run(checks, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]
