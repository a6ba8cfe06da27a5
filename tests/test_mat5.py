"""MATLAB's files, read without MATLAB: either byte order, packed or not, MPII's own, and damaged ones."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.evaluate import mat5, pck
from posezoo.evaluate.mat5 import read_mat


def mpii(parity: Path) -> Path:
    """The .mat file of MPII's validation people."""
    return parity / "ops" / json.loads((parity / "ops" / "hrnet_mpii_pckh.json").read_text())["gt_mat"]


def element(order: str, kind: int, data: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(order: str, kind: int, name: str, dims: tuple[int, ...], payload: bytes) -> bytes:
    head = element(order, 6, struct.pack(order + "II", kind, 0))
    head += element(order, 5, struct.pack(f"{order}{len(dims)}i", *dims)) + element(order, 1, name.encode())
    return element(order, 14, head + payload)


def mat_file(order: str, *elements: bytes) -> bytes:
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + struct.pack(order + "H", 0x100)
        + (b"IM" if order == "<" else b"MI")
        + b"".join(elements)
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_mat_files_of_either_byte_order_packed_or_not(tmp_path, order, packed):
    values = np.arange(24.0).reshape(2, 3, 4)
    small = struct.pack(order + "I", 1 << 16 | 2) + b"\x07\0\0\0"  # one byte in the short form
    elements = [
        matrix(order, 6, "a", (2, 3, 4), element(order, 9, values.astype(order + "f8").tobytes("F"))),
        matrix(order, 6, "b", (1, 1), small),
        matrix(order, 4, "c", (1, 3), element(order, 17, "neé".encode("utf-16-le" if order == "<" else "utf-16-be"))),
        matrix(
            order, 1, "d", (1, 2), matrix(order, 4, "", (1, 2), element(order, 16, b"hi")) + element(order, 14, b"")
        ),
        matrix(order, 2, "e", (1, 1), b""),
    ]
    if packed:
        elements = [struct.pack(order + "II", 15, len(z)) + z for z in map(zlib.compress, elements)]
    file = tmp_path / "x.mat"
    file.write_bytes(mat_file(order, *elements))
    found = read_mat(file)
    np.testing.assert_array_equal(found["a"], values)
    np.testing.assert_array_equal(found["b"], [[7]])
    assert found["c"] == "neé" and found["d"][0] == "hi" and found["d"][1].shape == (0, 0) and found["e"] is None


def test_a_packed_mpii_file_of_one_person(tmp_path):
    doubles = lambda name, dims: zlib.compress(  # noqa: E731
        matrix("<", 6, name, dims, element("<", 9, np.arange(math.prod(dims), dtype="<f8").tobytes()))
    )
    parts = [doubles("pos_gt_src", (16, 2)), doubles("headboxes_src", (2, 2)), doubles("jnt_missing", (16, 1))]
    file = tmp_path / "gt_valid.mat"
    file.write_bytes(mat_file("<", *(struct.pack("<II", 15, len(z)) + z for z in parts)))
    truth = pck.read_mpii(file)
    assert truth.joints_xy.shape == (1, 16, 2) and truth.visible.sum() == 1
    assert truth.head_sizes == pytest.approx([0.6 * math.hypot(1, 1)])


def test_mat_files_that_are_none(tmp_path, parity):
    content = mpii(parity).read_bytes()
    file = tmp_path / "gt_valid.mat"
    for broken, message in (
        (b"", "not a MATLAB file"),
        (content[:1000], "cut short"),
        (content[:124] + b"\x00\x02IM", "version 7.3"),
        (content[:1088], "'pos_gt_src' is missing"),
        (mat_file("<", struct.pack("<II", 15, 4) + b"abcd"), "damaged"),
        (mat_file("<", matrix("<", 6, "a", (3, 3), element("<", 9, b"\0" * 16))), "2 values for the shape"),
        (mat_file("<", matrix("<", 6, "a", (1 << 30, 1 << 30), element("<", 9, b""))), "0 values for the shape"),
        (mat_file("<", matrix("<", 1, "a", (1 << 30, 1), b"")), "0 cells"),
    ):
        file.write_bytes(broken)
        with pytest.raises(PosezooError, match=message):
            pck.evaluate([], file, "mpii")
    with pytest.raises(PosezooError, match="cannot read"):
        read_mat(tmp_path / "none.mat")
    with pytest.raises(PosezooError, match="cannot read"):
        read_mat(tmp_path)


def test_mat_files_unpack_to_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(mat5, "LARGEST", 1 << 20)
    bomb = zlib.compress(bytes(1 << 22))
    file = tmp_path / "x.mat"
    file.write_bytes(mat_file("<", struct.pack("<II", 15, len(bomb)) + bomb))
    reader = mat5._Reader("<", 1 << 20)
    with pytest.raises(mat5._Broken, match="unpacks to more"):
        reader.unpack(memoryview(bomb))
    nested = matrix("<", 6, "", (0, 0), element("<", 9, b""))
    for _ in range(50):
        nested = matrix("<", 1, "", (1, 1), nested)
    file.write_bytes(mat_file("<", nested))
    with pytest.raises(PosezooError, match="deep"):
        read_mat(file)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_mat_files_give_an_answer_or_one_line(parity, tmp_path_factory, data):
    content = bytearray(mpii(parity).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(128, len(content) - 1) | st.integers(128, 260))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged.mat"
    file.write_bytes(content)
    try:
        assert isinstance(read_mat(file), dict)
    except PosezooError as err:
        assert "\n" not in str(err)
