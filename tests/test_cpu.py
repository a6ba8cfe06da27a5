"""The processor's name and instructions, from what Linux tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from posezoo import cpu


@pytest.mark.parametrize(
    ("cpuinfo", "name", "bytes_"),
    [
        ("model name\t: Old Xeon\nflags\t\t: sse4_2 avx2\n", "Old Xeon (AVX2)", False),
        ("model name\t: New\nflags\t\t: avx2 avx512f avx512_vnni avx_vnni\n", "New (AVX-512, VNNI)", True),
        ("model name\t: Laptop\nflags\t\t: avx2 avx_vnni\n", "Laptop (AVX2, VNNI)", True),
        ("model name\t: Antique\nflags\t\t: sse2\n", "Antique", False),
        ("BogoMIPS\t: 50.0\nFeatures\t: asimd\n", "x86_64", False),
    ],
)
def test_a_processor_is_named_with_its_instructions(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, name: str, bytes_: bool
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: cpuinfo)
    monkeypatch.setattr("posezoo.cpu.platform.processor", lambda: "")
    monkeypatch.setattr("posezoo.cpu.platform.machine", lambda: "x86_64")
    assert cpu.cpu_name() == name and cpu.multiplies_bytes() is bytes_


def test_where_there_is_no_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path) -> str:
        raise FileNotFoundError(str(self))

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr("posezoo.cpu.platform.processor", lambda: "")
    monkeypatch.setattr("posezoo.cpu.platform.machine", lambda: "arm64")
    assert cpu.cpu_name() == "arm64" and cpu.multiplies_bytes() and not cpu.cpu_flags()
