"""The core install beside one with torch: size, cold start, pictures a second on the same photographs.

    python benchmarks/core_install.py .venv .venv-dev examples [--rounds 7] [-o results/core_install.csv]

The runs of the two environments alternate; figures are medians. Only the ratio is to be relied on: it comes from one
run on one machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("core", type=Path, help="environment with the core install")
    parser.add_argument("torch", type=Path, help="environment with the torch extra")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    environments = {"core, onnx": (arguments.core, "onnx"), "with torch, torch": (arguments.torch, "torch")}
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in environments}
    for _ in range(arguments.rounds):
        for name, (folder, runtime) in environments.items():
            for what, value in measure(folder, runtime, arguments.sources, arguments.threads).items():
                rows[name].setdefault(what, []).append(value)
    table = [["figure", *environments, "ratio"], ["size of the environment, MB", *sizes(environments), ""]]
    for what in rows["core, onnx"]:
        core, torch = (median(rows[name][what]) for name in environments)
        table.append([what, f"{core:.2f}", f"{torch:.2f}", f"{torch / core:.2f}"])
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {arguments.threads} thread, median of {arguments.rounds}"
    table.append([machine, "", "", ""])
    for row in table:
        print(f"{row[0]:58} {row[1]:>12} {row[2]:>18} {row[3]:>8}")
    if arguments.output:
        with arguments.output.open("w", newline="") as file:
            csv.writer(file).writerows(table)


def sizes(environments: dict[str, tuple[Path, str]]) -> list[str]:
    """Megabytes on disk of each environment, without pip and setuptools."""
    found = []
    for folder, _ in environments.values():
        files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
        tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        found.append(f"{sum(p.stat().st_size for p in files if not set(tools) & set(p.parts)) / 1e6:.0f}")
    return found


def measure(environment: Path, runtime: str, sources: list[str], threads: int) -> dict[str, float]:
    """One round in one environment."""
    python, command = environment / "bin" / "python", environment / "bin" / "posezoo"
    figures = {
        "import posezoo, s": wall([python, "-c", "import posezoo"]),
        "posezoo --help, s": wall([command, "--help"]),
    }
    with tempfile.TemporaryDirectory() as output:
        arguments = ["--runtime", runtime, "--threads", str(threads), "-o", output, "--json"]
        start = time.perf_counter()
        done = subprocess.run([command, "predict", *sources, *arguments], check=True, capture_output=True)
        whole = time.perf_counter() - start
    report = json.loads(done.stdout)
    figures["cold start: predict less its loop (imports, loading), s"] = whole - report["seconds"]
    figures["seconds a picture"] = report["seconds"] / report["images"]
    return figures


def wall(command: list[str | Path]) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
