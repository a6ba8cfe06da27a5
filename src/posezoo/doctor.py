"""What is installed, what computes, and what is wrong with it: for `posezoo doctor` and for reports of faults."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from posezoo import __version__
from posezoo.words import counted

PATIENCE_S = 120.0  # for all packages of an extra to be imported
AGREE = 1e-3  # how far heatmaps of two runtimes may be apart, of their range
LEAST_FREE = 500_000_000  # bytes: the largest weights of the zoo, and some more

RUNTIMES = {"onnx": "core", "openvino": "deploy", "torch": "torch"}
"""What computes, and the extra that has it."""
MODULES = {"opencv-python-headless": "cv2", "vl-convert-python": "vl_convert"}  # where it is not the package's name
CLASHES = (
    ("cv2", ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")),
)  # packages that write the same files; the one that was installed last wins, in part
_NOT_FOR_USERS = ("all", "dev", "docs")
_SETTINGS = ("POSEZOO_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_IMPORT = (
    "import importlib, sys\nfor name in sys.argv[1:]:\n    print(name, flush=True)\n    importlib.import_module(name)"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, such as "torch".
        found: what is there, in a line.
        problem: what is wrong and the way out, in a line; None where nothing is.
        missing: whether it is not installed, which is no problem where nobody needs it.
    """

    name: str
    found: str
    problem: str | None = None
    missing: bool = False


def examine() -> Iterator[Finding]:
    """Look at everything in turn; a part that is not installed is no problem, one that does not work is."""
    where = Path(__file__).parent
    yield Finding("posezoo", f"{__version__} in {where}")
    yield _python()
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "unknown", "posezoo is imported but not installed: pip install -e . in its folder")
        return
    good: set[str] = set()
    work: set[str] = set()  # modules that can be imported
    for name, needs in wanted.items():
        finding = _packages(name, needs, work)
        if not finding.problem and not finding.missing:
            good.add(name)
        yield finding
    yield from _clashes()
    if "core" in good:
        yield _devices("torch" in good)
        yield from _runtimes([name for name, extra in RUNTIMES.items() if extra in good])
    yield _weights()
    settings = sorted(key for key in os.environ if key.startswith(_SETTINGS))
    yield Finding("settings", ", ".join(f"{key}={os.environ[key]}" for key in settings) or "none")


def requirements() -> dict[str, list[Requirement]]:
    """The packages that posezoo needs here, "core", and those of each extra that is for users."""
    about = importlib.metadata.metadata("posezoo")
    extras = [extra for extra in about.get_all("Provides-Extra") or () if extra not in _NOT_FOR_USERS]
    lines = [Requirement(line) for line in about.get_all("Requires-Dist") or ()]
    lines = [line for line in lines if line.name != "posezoo"]  # extras that take in others
    core = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    found = {"core": core}
    for extra in extras:
        with_it = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
        found[extra] = [line for line in with_it if line not in core]
    return {name: needs for name, needs in found.items() if needs}


def _python() -> Finding:
    from posezoo.cpu import cpu_name

    return Finding("python", f"{platform.python_version()}, {platform.system()} {platform.release()}, {cpu_name()}")


def _packages(name: str, needs: Sequence[Requirement], work: set[str]) -> Finding:
    """Whether all packages of an extra are there, new enough, and can be imported; `work` has those that were."""
    command = "pip install posezoo" if name == "core" else f"pip install 'posezoo[{name}]'"
    have, missing, old = [], [], []
    for need in needs:
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(need.name)
            continue
        have.append(f"{need.name} {version}")
        if not need.specifier.contains(version, prereleases=True):
            old.append(f"{need.name} is {version}, but {need.specifier} is needed")
    found = ", ".join(have)
    if missing:
        lacking = f"not installed: {', '.join(missing)}; {command}"
        return Finding(name, found, lacking) if name == "core" else Finding(name, lacking, missing=True)
    fault = f"{'; '.join(old)}; {command} --upgrade" if old else _import_fault(needs, work)
    return Finding(name, found, fault)


def module_of(need: Requirement) -> str:
    """What a package is imported by."""
    return MODULES.get(need.name, need.name.replace("-", "_"))


def _import_fault(needs: Sequence[Requirement], work: set[str]) -> str | None:
    """What is wrong with packages when they are imported, in a process of their own: some that are broken kill it."""
    modules = [module for module in map(module_of, needs) if module not in work]
    command = [sys.executable, "-c", _IMPORT, *modules]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"importing {', '.join(modules)} took more than {PATIENCE_S:.0f} s"
    if ran.returncode == 0:
        work.update(modules)
        return None
    module = ran.stdout.split()[-1] if ran.stdout.split() else modules[0]
    said = ran.stderr.strip().splitlines()
    why = f"signal {-ran.returncode}" if ran.returncode < 0 else said[-1] if said else f"exit code {ran.returncode}"
    return f"import {module} fails: {why}"


def _clashes() -> Iterator[Finding]:
    installed = {str(each.metadata["Name"]).lower() for each in importlib.metadata.distributions()}
    for module, packages in CLASHES:
        both = [package for package in packages if package in installed]
        if len(both) > 1:
            out = f"pip uninstall {' '.join(both)}, then pip install the one that you want"
            yield Finding(module, " and ".join(both), f"they overwrite each other's files; {out}")


def _devices(has_torch: bool) -> Finding:
    """What computes: threads, 8-bit weights, CUDA."""
    from posezoo.deploy.runtimes import default_threads, onnx_has_cuda

    threads = default_threads()
    found = f"cpu with {counted(threads, 'thread')}"
    cuda = ["onnx"] if onnx_has_cuda() else []
    if has_torch:
        import torch

        from posezoo.deploy.quantize import bits_for

        found += f", weights of {bits_for('auto')} bits in int8"
        if torch.cuda.is_available():
            cuda.append("torch")
            found += f"; {', '.join(torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count()))}"
    return Finding("devices", f"{found}; cuda for {' and '.join(cuda)}" if cuda else f"{found}; no cuda")


def _runtimes(names: Sequence[str]) -> Iterator[Finding]:
    """Let every runtime compute the packaged networks, and see that they agree."""
    from posezoo.deploy.runtimes import describe, open_runtime
    from posezoo.zoo import get_entry

    noise = np.random.default_rng(0)
    for what, model in (("pose", "embedded"), ("detector", "embedded-detector")):
        entry = get_entry(model)
        width, height = entry.input_size_wh
        picture = noise.normal(size=(1, 3, height, width)).astype(np.float32)
        wanted: list[np.ndarray] = []
        said, faults = [], []
        for name in names:
            try:
                runtime = open_runtime(entry, name)
                given = runtime(picture)
            except Exception as err:  # of whatever kind: a runtime that fails is what is looked for
                faults.append(f"{name}: {' '.join(str(err).split()) or type(err).__name__}")
                continue
            said.append(describe(runtime))
            wanted = wanted or given
            apart = max(float(np.abs(a - b).max() / (np.ptp(a) or 1)) for a, b in zip(wanted, given, strict=True))
            if not apart <= AGREE:
                faults.append(f"{name} differs from {names[0]} by {apart:.1g} of the range")
        yield Finding(what, "; ".join(said), "; ".join(faults) or None)


def _sizes(folder: Path) -> Iterator[int]:
    """The sizes of all files in a folder, in bytes; of what may not be looked at, or goes meanwhile, none."""
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(root, name))
                if stat.S_ISREG(status.st_mode):
                    yield status.st_size


def _weights() -> Finding:
    """The folder of downloaded weights: what is in it, and whether more can be written."""
    from posezoo.zoo import home

    folder = home()
    try:
        os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as err:
        return Finding("weights", str(folder), f"cannot look into {folder}: {err.strerror or err}; set POSEZOO_HOME")
    sizes = list(_sizes(folder))
    # os.path, for which what may not be looked at is not there
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    free = shutil.disk_usage(there).free
    count = f"{counted(len(sizes), 'file')}, {sum(sizes) / 1e6:.0f} MB"
    found = f"{folder}: {count}, {free / 1e9:.1f} GB free"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as err:
        return Finding("weights", found, f"cannot write to {there}: {err.strerror or err}; set POSEZOO_HOME")
    few = f"less than {LEAST_FREE / 1e6:.0f} MB free; set POSEZOO_HOME to a folder with more"
    return Finding("weights", found, few if free < LEAST_FREE else None)
