"""The processor: its name, and those of its instructions that decide how fast a network is."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "amx_int8": "AMX",
}  # what Linux calls them, and what their makers do; of the two AVX the better is told
_INTEGER_DOT = {"avx512_vnni", "avx_vnni", "amx_int8"}  # sums of two products that do not saturate


def cpu_name() -> str:
    """The model as it calls itself, and its instructions: "AMD EPYC (AVX-512, VNNI)".

    The same name stands on machines that differ by a factor of three in 8 bits.
    """
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.M)
    if not found:
        return platform.processor() or platform.machine()
    flags = cpu_flags()
    told = dict.fromkeys(name for flag, name in _FLAGS.items() if flag in flags)
    if "AVX-512" in told:
        told.pop("AVX2", None)
    return found[1].strip() + (f" ({', '.join(told)})" if told else "")


def cpu_flags() -> frozenset[str]:
    """The instruction sets as Linux names them; empty where there is no telling."""
    found = re.search(r"^flags\s*:(.*)$", _cpuinfo(), re.M)
    return frozenset(found[1].split()) if found else frozenset()


def multiplies_bytes() -> bool:
    """Whether products of 8 bits are added without an intermediate of 16 bits that could overflow.

    An x86 CPU without VNNI has one, and it saturates, silently. Where there is no telling, the answer is no.
    """
    return platform.machine().lower() in ("arm64", "aarch64") or bool(_INTEGER_DOT & cpu_flags())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return ""
