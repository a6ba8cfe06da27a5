"""MXNet's weights files: every age is read, GluonCV's names too, and a damaged or hostile file is an error."""

from __future__ import annotations

import gzip
import json
import os
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build, outline  # noqa: E402
from posezoo.zoo.weights import gluoncv, load_weights, read_params  # noqa: E402
from weights_fixtures import SMALL, filled  # noqa: E402

PARAMS = [
    "dtypes.params",
    "list.params",
    "npshape_v3.params",
    "tiny_structural.params",
    "tiny_global_names.params",
    "tiny_float16.params",
]


GLUONCV_ARCHS = [
    *(f"simple_pose_resnet{depth}_v1{variant}" for depth in (50, 101, 152) for variant in "bd"),
    "simple_pose_resnet18_v1b",
    *(f"mobile_pose_{name}" for name in ("resnet18_v1b", "resnet50_v1b", "mobilenet1.0", "mobilenetv2_1.0")),
    *(f"mobile_pose_mobilenetv3_{size}" for size in ("small", "large")),
]


FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def write_params(path: Path, arrays: Mapping[str, np.ndarray], layout: str = "v2") -> Path:
    """An MXNet file of `arrays`, in the layout "v2", "v1" or "oldest"."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        if layout == "v2":
            out += struct.pack(f"<Iii{array.ndim}q", 0xF993FAC9, 0, array.ndim, *array.shape)
        elif layout == "v1":
            out += struct.pack(f"<II{array.ndim}q", 0xF993FAC8, array.ndim, *array.shape)
        else:
            out += struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
        out += struct.pack("<iii", 2, 0, FLAGS[str(array.dtype)]) + array.tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name.encode())) + name.encode()
    path.write_bytes(out)
    return path


def assert_equals_fixture(model: torch.nn.Module, fixture: dict[str, Any]) -> None:
    from fill import make_input, sample_index

    _, _, height, width = fixture["input_shape"]
    with torch.no_grad():
        out = model.eval()(torch.from_numpy(make_input(height, width))).numpy()
    wanted = fixture["outputs"][0]
    samples = out.ravel()[sample_index(out.size)]
    assert np.abs(samples - wanted["values"]).max() / wanted["std"] < 1e-4


# ---- MXNet's files


@pytest.mark.parametrize("name", PARAMS)
def test_params_equal_the_manifest(name: str, parity: Path) -> None:
    wanted = json.loads((parity / "gluoncv" / "params_manifest.json").read_text())[name]
    arrays = read_params(parity / "gluoncv" / name)
    assert list(arrays) == list(wanted)
    for key, value in wanted.items():
        assert (list(arrays[key].shape), str(arrays[key].dtype)) == (value["shape"], value["dtype"])
        assert arrays[key].ravel()[:64].tolist() == value["data"]  # the manifest keeps the first 64


@pytest.mark.parametrize("layout", ["v2", "v1", "oldest"])
def test_params_of_every_age(layout: str, tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64)}
    read = read_params(write_params(tmp_path / "a.params", arrays, layout))
    assert all(np.array_equal(read[k], v) and read[k].dtype == v.dtype for k, v in arrays.items())


def test_params_bfloat16_and_absent_array(tmp_path: Path) -> None:
    bfloat16 = struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 2, 1, 0, 12) + struct.pack("<HH", 0x3FC0, 0xC000)
    absent = struct.pack("<Iii", 0xF993FAC9, 0, 0)
    names = b"".join(struct.pack("<Q", 1) + n for n in (b"x", b"y"))
    path = tmp_path / "a.params"
    path.write_bytes(struct.pack("<QQQ", 0x112, 0, 2) + bfloat16 + absent + struct.pack("<Q", 2) + names)
    arrays = read_params(path)
    assert list(arrays) == ["x"]
    assert arrays["x"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("name", PARAMS)
def test_params_cut_anywhere_is_an_error(name: str, parity: Path, tmp_path: Path) -> None:
    whole = (parity / "gluoncv" / name).read_bytes()
    path = tmp_path / "cut.params"
    path.write_bytes(whole)
    for size in reversed(range(len(whole))):
        os.truncate(path, size)
        with pytest.raises(PosezooError):
            read_params(path)
    path.write_bytes(whole + bytes(1))
    with pytest.raises(PosezooError, match="follows"):
        read_params(path)


def test_params_with_any_byte_changed_reads_or_is_an_error(parity: Path, tmp_path: Path) -> None:
    whole = (parity / "gluoncv" / "dtypes.params").read_bytes()
    path = tmp_path / "changed.params"
    path.write_bytes(whole)
    errors = 0
    for at in range(len(whole)):
        for value in (0x00, 0x7F, 0xFF):
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([value]))
            try:
                assert sum(a.nbytes for a in read_params(path).values()) <= 2 * len(whole)
            except PosezooError:
                errors += 1
        with path.open("r+b") as file:
            file.seek(at)
            file.write(whole[at : at + 1])
    assert errors > len(whole) // 2


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<Q", 2**60),  # arrays
        struct.pack("<QIiiqqiii", 1, 0xF993FAC9, 0, 2, 2**31, 2**31, 1, 0, 0),  # bytes of an array
        struct.pack("<QIiiqqiii", 1, 0xF993FAC9, 0, 2, 0, 2**62, 1, 0, 0) + bytes(8),  # shape without elements
        struct.pack("<QIiiqiii", 1, 0xF993FAC9, 0, 1, -4, 1, 0, 0),  # negative size
        struct.pack("<QIii", 1, 0xF993FAC9, 0, 2**30),  # dimensions
        struct.pack("<QI", 1, 2**31),  # dimensions, oldest layout
        struct.pack("<QIii", 1, 0xF993FAC9, 1, 2) + bytes(64),  # sparse
        struct.pack("<QIiiqiii", 1, 0xF993FAC9, 0, 1, 1, 1, 0, 99) + bytes(64),  # type
        struct.pack("<QQQ", 0, 2**62, 2**62),  # names
        struct.pack("<QQQ", 0, 1, 2**62) + bytes(8),  # a name
    ],
)
def test_hostile_params_cost_an_error_and_no_memory(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.params"
    path.write_bytes(struct.pack("<QQ", 0x112, 0) + body)
    tracemalloc.start()
    try:
        with pytest.raises(PosezooError, match=r"not a whole MXNet .params file"):
            read_params(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# ---- GluonCV's names


def test_load_params_computes_what_gluoncv_did(parity: Path) -> None:
    fixture, _ = filled(SMALL, parity)
    model = load_weights(build(SMALL, 17), parity / "gluoncv" / f"{SMALL}.params")
    assert_equals_fixture(model, fixture)


@pytest.mark.parametrize("arch", GLUONCV_ARCHS)
def test_both_kinds_of_names_mean_the_same(arch: str, parity: Path) -> None:
    fixture = json.loads(gzip.decompress((parity / "gluoncv" / f"{arch}.json.gz").read_bytes()))
    structural = [key for key, _, _ in fixture["state_dict"]]
    by_name = gluoncv.rename(structural)
    model = outline(arch, fixture["num_joints"])
    by_order = gluoncv.rename_by_order([fixture["global_names"][key] for key in structural], model)
    assert {key: by_order[fixture["global_names"][key]] for key in structural} == by_name
    assert set(by_name.values()) == {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}


def test_load_old_names_and_module_checkpoints(parity: Path, tmp_path: Path) -> None:
    fixture, arrays = filled(SMALL, parity)
    old = {fixture["global_names"][key]: array for key, array in arrays.items()}
    assert_equals_fixture(load_weights(build(SMALL, 17), write_params(tmp_path / "a.params", old)), fixture)
    aux = ("_running_mean", "_running_var")
    split = {f"arg:{k}": v for k, v in old.items() if not k.endswith(aux)}
    split |= {f"aux:{k}": v for k, v in old.items() if k.endswith(aux)}
    assert_equals_fixture(load_weights(build(SMALL, 17), write_params(tmp_path / "b.params", split)), fixture)


def test_old_names_out_of_order_are_refused(parity: Path) -> None:
    fixture, arrays = filled("mobile_pose_mobilenet1.0", parity)
    old = {fixture["global_names"][key]: array for key, array in arrays.items()}
    with pytest.raises(PosezooError, match="cannot match layers by order"):
        load_weights(build("mobile_pose_mobilenet1.0", 17), dict(sorted(old.items())))


def test_half_precision_is_widened(parity: Path) -> None:
    _, arrays = filled(SMALL, parity)
    model = load_weights(build(SMALL, 17), {key: array.astype(np.float16) for key, array in arrays.items()})
    weight = model.state_dict()["backbone.stem.conv.weight"]
    assert weight.dtype == torch.float32
    assert np.array_equal(weight.numpy(), arrays["features.0.0.weight"].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    "key", ["features.0.x.gamma", "features.0.3.out.9.gamma", "features.0.²", "resnet.9.gamma", ".gamma"]
)
def test_strange_names_map_to_themselves(key: str) -> None:
    assert gluoncv.rename([key, "features.0.3.out.6.gamma"])[key] == key
