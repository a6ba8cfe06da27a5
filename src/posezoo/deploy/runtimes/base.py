"""What every runtime is, where it computes, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posezoo.cpu import multiplies_bytes
from posezoo.errors import PosezooError
from posezoo.words import counted

RUNTIMES = ("auto", "onnx", "openvino", "torch", "torch-compile")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
DEVICES = ("auto", "cpu", "cuda")

_CPU_BATCH, _GPU_BATCH = 8, 64


class Runtime(Protocol):
    """A network that is ready to compute."""

    @property
    def name(self) -> str:
        """What computes it: "onnx", "openvino", "torch" or "torch-compile"."""
        ...

    @property
    def device(self) -> str:
        """Where, "cpu" or "cuda"."""
        ...

    @property
    def precision(self) -> str:
        """In which numbers its convolutions are computed: "fp32", "bf16", "fp16" or "int8"."""
        ...

    @property
    def threads(self) -> int:
        """With how many threads of the CPU."""
        ...

    def metadata(self) -> Mapping[str, Any]:
        """What posezoo wrote into the file that it came from; empty where it came from none, or from another's."""
        ...

    def __call__(self, batch: NDArray) -> list[NDArray[np.float32]]:
        """Every output for a batch, in the network's order, each of length N.

        Args:
            batch: (N, 3, h, w) float32, or (N, h, w, 3) uint8 where the network normalises itself.

        Raises:
            PosezooError: the network cannot take a batch of this shape.
        """
        ...


def describe(runtime: Runtime) -> str:
    """What really computes, such as "openvino on cpu, int8, 2 threads"."""
    said = f"{runtime.name} on {runtime.device}, {runtime.precision}"
    if runtime.device != "cpu":
        return said
    told = f"{said}, {counted(runtime.threads, 'thread')}"
    return f"{told}, its weights of 8 bits saturate on this CPU" if saturates(runtime) else told


def saturates(runtime: Runtime) -> bool:
    """Whether the file was quantised for a processor that adds products of 8 bits as they are, and this one does not.

    Its joints are then further off than `posezoo quantize` measured when it made the file.
    """
    made = runtime.metadata().get("calibration")
    return isinstance(made, Mapping) and made.get("weight_bits") == 8 and not multiplies_bytes()


def default_batch_size(device: str) -> int:
    """How many people a network call takes where nobody says: on a CPU few, since more are no faster there."""
    return _CPU_BATCH if device == "cpu" else _GPU_BATCH


def settle_threads(threads: int | None) -> int:
    """How many threads of the CPU to use: as many as are asked for, else `default_threads`.

    Raises:
        PosezooError: it is none, less, or no whole number.
    """
    if threads is None:
        return default_threads()
    if not isinstance(threads, int | np.integer):
        raise PosezooError(f"threads must be a whole number, but is {threads!r}")
    if threads < 1:
        raise PosezooError(f"threads must be 1 or more, but is {threads}")
    return int(threads)


def default_threads() -> int:
    """As many threads as this process may use cores, or what OMP_NUM_THREADS says.

    A container sees every core of its host; a thread for each would fight over the few that it was given. Two threads
    on one core that share its arithmetic gain nothing.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if said.isdecimal() and int(said) > 0:
        return int(said)
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = len({_core_of(cpu) for cpu in cpus})
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return cores


def _core_of(cpu: int) -> str:
    """What the threads of one core have in common; of each its own where the system does not tell."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def none_of(runtime: Runtime, batch: NDArray) -> list[NDArray[np.float32]]:
    """The outputs for no crop at all: many a graph does not compute those, so that one crop shows their shapes."""
    return [output[:0] for output in runtime(np.zeros((1, *batch.shape[1:]), batch.dtype))]


_BEGINNINGS = {".onnx": (b"\x08", "an ONNX file"), ".xml": (b"<", "an OpenVINO file"), ".pt2": (b"PK", "a .pt2 file")}


def check_kind(path: Path) -> None:
    """See that a file is there, and that it begins as its suffix says: the libraries' own words for it fill a screen.

    Raises:
        PosezooError: it is not there, cannot be read, or is no such file.
    """
    if not path.is_file():
        raise PosezooError(f"{path} is a folder: name a file in it" if path.is_dir() else f"no such file: {path}")
    begins, kind = _BEGINNINGS[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            head = file.read(8).removeprefix(b"\xef\xbb\xbf")
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None
    if not head.startswith(begins):
        raise PosezooError(f"{path} is not {kind}{'' if head else ': it is empty'}")


def settle_precision(asked: str, stored: str, file: object, who: str, also: Collection[str] = ()) -> str:
    """The precision to compute in: as asked, or as stored.

    Args:
        asked: one of `PRECISIONS`.
        stored: that of the network.
        file: where it is stored.
        who: what computes it.
        also: what else it can be computed in.

    Raises:
        PosezooError: it cannot be computed as asked.
    """
    chosen = stored if asked == "auto" else asked
    if chosen == stored or chosen in also:
        return chosen
    told = f"{file} is a network in {stored}"
    if chosen == "int8":
        raise PosezooError(f"{told}: make one in int8 of it with posezoo quantize, and give that")
    if stored == "int8":
        raise PosezooError(f"{told}: for {chosen} give what it was quantised from")
    raise PosezooError(f"{who} does not compute in {chosen}, and {told}: for {chosen} choose --runtime torch")


def refused(batch: NDArray, why: object) -> PosezooError:
    """The error for a batch that a network does not take."""
    return PosezooError(f"the network refused an input of shape {batch.shape}: {first_line(why)}")


def first_line(said: object) -> str:
    """What a library says, without the rest of its page."""
    return _lines(said)[0][:300]


def last_line(said: object) -> str:
    """What a library says that begins with where in its code it was."""
    return _lines(said)[-1][:300]


def _lines(said: object) -> list[str]:
    return [line.strip() for line in str(said).splitlines() if line.strip()] or [type(said).__name__]
