"""Darknet's weights files: numbers without names, which only their count and the network's order tell apart."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.models.darknet import Darknet, Section  # noqa: E402
from posezoo.zoo.weights import load_weights, read_weights  # noqa: E402
from weights_fixtures import SMALL  # noqa: E402


def darknet_file(path: Path, numbers: np.ndarray, version: tuple[int, int, int] = (0, 2, 0)) -> Path:
    seen = struct.pack("<q" if version[0] * 10 + version[1] >= 2 else "<i", 32)
    path.write_bytes(struct.pack("<3i", *version) + seen + numbers.astype("<f4").tobytes())
    return path


def tiny_darknet() -> Darknet:
    """Of 3 * 2 * 9 + 8 + 2 * 18 + 18 = 116 numbers."""
    first = {"batch_normalize": "1", "filters": "2", "size": "3", "pad": "1", "activation": "leaky"}
    last = Section("convolutional", {"filters": "18", "size": "1", "activation": "linear"})
    yolo = Section("yolo", {"anchors": "1,2, 3,4, 5,6", "classes": "1"})
    return Darknet([Section("convolutional", first), last, yolo])


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5), (1, 0, 0)])
def test_darknet_numbers_in_order(version: tuple[int, int, int], tmp_path: Path) -> None:
    model = load_weights(tiny_darknet(), darknet_file(tmp_path / "a.weights", np.arange(116), version))
    first, last = model.layers[0], model.layers[1]
    starts = [first.bn.bias, first.bn.weight, first.bn.running_mean, first.bn.running_var, first.conv.weight]
    starts += [last.conv.bias, last.conv.weight]
    assert [int(array.flatten()[0]) for array in starts] == [0, 2, 4, 6, 8, 62, 80]
    assert first.conv.weight.flatten().tolist() == list(range(8, 62))


@pytest.mark.parametrize(
    ("count", "message"),
    [(115, "115 numbers where the network takes 116: 1 are missing"), (119, "3 are left over"), (0, "116 are missing")],
)
def test_darknet_file_of_another_length(count: int, message: str, tmp_path: Path) -> None:
    model = tiny_darknet()
    before = model.layers[0].conv.weight.clone()
    with pytest.raises(PosezooError, match=message):
        load_weights(model, darknet_file(tmp_path / "a.weights", np.ones(count)))
    assert torch.equal(model.layers[0].conv.weight, before)


def test_darknet_numbers_that_are_not_finite(tmp_path: Path) -> None:
    numbers = np.ones(116)
    numbers[-1] = np.nan
    with pytest.raises(PosezooError, match=r"a.weights: 1 array is not finite \(layers\.1\.conv\.weight\)"):
        load_weights(tiny_darknet(), darknet_file(tmp_path / "a.weights", numbers))


def test_darknet_file_for_another_network(tmp_path: Path) -> None:
    path = darknet_file(tmp_path / "a.weights", np.ones(116))
    with pytest.raises(PosezooError, match="which only a darknet network can tell apart"):
        load_weights(build(SMALL, 17), path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.weights", struct.pack("<3iq", 0, 2, 0, 0) + bytes(7), "end within a number"),
        ("a.weights", struct.pack("<3i", 0, 2, 0) + bytes(4), "end within a number"),
        ("a.weights", bytes(11), "11 bytes are less than its head"),
        ("a.weights", b"hello, I am a text file", "begins with version 1819043176"),
        ("a.weights", struct.pack("<3iq", 0, 2000, 0, 0) + bytes(8), r"begins with version 0.2000.0"),
        ("a.bin", struct.pack("<3iq", 0, 2, 0, 0) + bytes(8), "is no weights file: expected .*weights"),
    ],
)
def test_no_darknet_file(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PosezooError, match=message):
        read_weights(tmp_path / name)
