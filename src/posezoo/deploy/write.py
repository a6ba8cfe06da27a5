"""Exported files: whole or not at all, with their metadata inside, and only if they compute what they should."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posezoo.deploy.agree import Agreement
from posezoo.deploy.graph import to_onnx
from posezoo.deploy.metadata import METADATA_FILE, METADATA_KEY
from posezoo.deploy.runtimes import Runtime, open_onnx, open_openvino, open_torch
from posezoo.deploy.runtimes.base import last_line
from posezoo.errors import PosezooError, require
from posezoo.files import atomic_path, make_folder

_OPENERS: Mapping[str, Callable[..., Runtime]] = {
    "onnx": open_onnx,
    "openvino": open_openvino,
    "torch-export": open_torch,
}


def write_graph(
    program: Any,
    outputs: Sequence[str],
    path: Path,
    to: str,
    metadata: Mapping[str, Any],
    half: bool,
    check: Callable[[Runtime], Agreement],
) -> Agreement:
    """Write a graph as a whole: beside its place first, and there only if it passes the check.

    Args:
        program: of `posezoo.deploy.graph.trace`.
        outputs: a name for each output.
        path: the file.
        to: "onnx", "openvino" or "torch-export".
        metadata: stored as JSON inside.
        half: store the weights in half precision.
        check: compares what computes the file with the network.

    Returns:
        What `check` found.

    Raises:
        PosezooError: it cannot be written, or the check fails; nothing is left behind.
    """
    with pair_path(path) if to == "openvino" else atomic_path(path) as temporary:
        if to == "torch-export":
            _save_program(program, temporary, metadata)
        elif to == "onnx":
            _save_onnx(to_onnx(program, outputs), temporary, metadata, half)
        else:
            save_openvino(to_onnx(program, outputs), temporary, metadata, half)
        runtime = _OPENERS[to](temporary, "cpu", torch.get_num_threads())
        try:
            return check(runtime)
        except PosezooError as err:
            raise PosezooError(f"{path} was not written, since the graph is not the network: {err}") from None


def _save_program(program: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    content = io.BytesIO()  # of a disk that is full torch's own writer ends the whole process
    torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    path.write_bytes(content.getbuffer())


def _save_onnx(proto: Any, path: Path, metadata: Mapping[str, Any], half: bool) -> None:
    import onnx

    if half:
        _store_half(onnx, proto.graph)
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata))
    onnx.save(proto, path)


def save_openvino(proto: Any, path: Path, metadata: Mapping[str, Any], half: bool = False) -> None:
    """Write an ONNX model (an `onnx.ModelProto`) as OpenVINO's .xml, and its .bin beside it.

    Args:
        proto: the model.
        path: the .xml.
        metadata: stored as JSON under "posezoo".
        half: store the weights in half precision.

    Raises:
        OSError: a file cannot be written.
    """
    ov = require("openvino", "deploy", "export to OpenVINO")
    model = ov.Core().read_model(proto.SerializeToString())
    model.set_rt_info(json.dumps(dict(metadata)), [METADATA_KEY])
    try:
        ov.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as err:  # also of a full disk
        raise OSError(last_line(err)) from None


@contextmanager
def pair_path(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for a file with a .bin beside it: both get their names when the block ends well, or neither."""
    target, beside = path, path.with_suffix(".bin")
    try:
        make_folder(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.") as folder:
            temporary = Path(folder) / f"{target.stem}.xml"  # OpenVINO writes no .XML
            yield temporary
            earlier = Path(folder) / "earlier"
            if beside.exists():
                beside.replace(earlier)
            try:
                temporary.with_suffix(".bin").replace(beside)
                temporary.replace(target)
            except BaseException:
                beside.unlink(missing_ok=True)
                if earlier.exists():
                    earlier.replace(beside)
                raise
    except OSError as err:
        raise PosezooError(f"cannot write {target}: {err.strerror or err}") from err


def _store_half(onnx: Any, graph: Any) -> None:
    """Replace each large float32 weight by a float16 one and a cast, which a runtime folds away when it loads."""
    casts = []
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < 2:  # biases and norms stay as they are
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def write_network(proto: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write an ONNX graph as a whole, for the runtime that the suffix is of, .onnx or .xml; unchecked."""
    if path.suffix.lower() == ".xml":
        with pair_path(path) as temporary:
            save_openvino(proto, temporary, metadata)
        return
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    del copied.metadata_props[:]
    entry = copied.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata))
    with atomic_path(path) as temporary:
        onnx.save(copied, temporary)
