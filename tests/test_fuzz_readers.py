"""Files from anywhere, broken in every way: a reader gives an answer or one line, soon, and without taking memory."""

from __future__ import annotations

import json
import random
import struct
import sys
import tracemalloc
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzz_changes import mutate
from fuzz_targets import TARGETS, check
from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.formats import read_results
from posezoo.media.headers import read_header

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of damaged files

every_target = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(target.needs) is None, reason=f"needs {target.needs}"))
        for name, target in TARGETS.items()
    ],
)


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    resource = pytest.importorskip("resource", reason="tells the memory of a process, where there is such a thing")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(name: str, count: int, seed: int, folder: Path) -> None:
    target, rng = TARGETS[name], random.Random(f"{name} {seed}")
    pool = list(target.seeds())
    assert all(check(target, data, folder) for data in pool)
    before = peak_bytes()
    read = 0
    for _ in range(count):
        data = mutate(rng.choice(pool), pool, target.text, rng)[: 1 << 16]
        if check(target, data, folder):
            read += 1
            if len(pool) < 500:
                pool.append(data)
    assert 0 < read < count  # else the changes were of no kind that tells anything
    assert peak_bytes() - before < 400_000_000


@every_target
def test_an_answer_or_one_line(name: str, tmp_path: Path) -> None:
    fuzz(name, 60, 0, tmp_path)


@pytest.mark.slow
@every_target
def test_an_answer_or_one_line_at_length(name: str, tmp_path: Path) -> None:
    fuzz(name, 1500, 1, tmp_path)


# ---- what was found so, and the like

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", json.dumps({"a.jpg": [[0, 0, 10**400, 5]]}), "box 0 of 'a.jpg' is not finite"),
        ("a.json", '{"a.jpg": [[0, 0, %s, 5]]}' % ("9" * 5000), "is not JSON: Exceeds the limit"),
        ("a.json", DEEP, "is not JSON"),
        ("a.json", '{"format": "posezoo/1", "people": null}', "line 1: 'people' must be a list"),
        ("a.jsonl", '{"people": 7}\n', "line 1: 'people' must be a list"),
        ("a.csv", 'image,"x1"y,x2\na,1,2\n', "line 1 is no CSV"),
        ("a.csv", "image,x1,y1,x2,y2\na.jpg,0,0,1e400,5\n", "is not finite"),
    ],
)
def test_broken_boxes(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PosezooError, match=message) as caught:
        BoxesFile.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_no_name_and_no_number(tmp_path: Path) -> None:
    box = {"image_id": 1, "category_id": [2], "bbox": [1, 2, 3, 4]}
    content = {"annotations": [box], "categories": [{"id": 1}, {"id": 2}], "images": [{"id": 1, "file_name": "a.jpg"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert len(BoxesFile.read(tmp_path / "a.json").by_name["a.jpg"]) == 0


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_too_deep(end: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"format": "posezoo/1", "image": ' + DEEP + end)
    with pytest.raises(PosezooError, match="line 1 is not valid JSON"):
        list(read_results(tmp_path / "a.jsonl"))


def test_a_column_that_is_no_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"imageimage": [1]}), tmp_path / "a.parquet", compression="none")
    whole = (tmp_path / "a.parquet").read_bytes()
    # in the file's own head alone: the copy of the schema that Arrow keeps is of the same length in base 64
    (tmp_path / "a.parquet").write_bytes(whole.replace(b"imageimage", b"image\xff\xfe\xfdge"))
    with pytest.raises(PosezooError):
        list(read_results(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[convolutional]\nfilters=99999999999\nsize=1\npad=1", "filters must be whole numbers"),
        ("[convolutional]\nfilters=2000000000\nsize=1\npad=1\nactivation=linear", "is too large"),
        ("[convolutional]\nfilters=8\nsize=99999\npad=1\nactivation=linear", "is too large"),
        ("[net]\nchannels=-3", "channels must be positive"),
        (
            "[convolutional]\nfilters=6\nsize=1\npad=1\nactivation=linear\n[yolo]\nclasses=1\nanchors=9,1" + "0" * 400,
            "anchors",
        ),
    ],
)
def test_broken_cfg(text: str, message: str) -> None:
    pytest.importorskip("torch")
    from posezoo.models.darknet import Darknet, parse_cfg

    with pytest.raises(PosezooError, match=message) as caught:
        Darknet(parse_cfg(text))
    assert len(str(caught.value)) < 200


# ---- lengths of 4 GiB and more in files of a few bytes

_4G, _MOST = 0xFFFFFFFF, (1 << 63) - 1
_IHDR = struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 7, 5, 8, 2, 0, 0, 0, zlib.crc32(b""))
PICTURES = {
    "png chunk": b"\x89PNG\r\n\x1a\n" + _IHDR + struct.pack(">I4s", _4G, b"eXIf") + bytes(20),
    "webp chunk": b"RIFF" + struct.pack("<I", _4G) + b"WEBPVP8X" + struct.pack("<I", _4G) + bytes(30),
    "bmp rows": b"BM" + struct.pack("<IIIIiiHHII", _4G, 0, _4G, 40, 1 << 30, 1 << 30, 1, 32, 0, _4G) + bytes(16),
    "tiff entries": b"II*\0" + struct.pack("<IH", 8, 0xFFFF) + bytes(24),
}
WEIGHTS = {
    "params arrays.params": struct.pack("<4Q", 0x112, 0, _MOST, 0),
    "params shape.params": struct.pack("<3QIiiqq3i", 0x112, 0, 1, 0xF993FAC9, 0, 2, 1 << 32, 1 << 32, 1, 0, 0),
    "params dimensions.params": struct.pack("<3QIi", 0x112, 0, 1, 0xF993FAC8, -1) + bytes(64),
    "params name.params": struct.pack("<3QII3iQQ", 0x112, 0, 1, 0xF993FAC8, 0, 1, 0, 0, 1, _MOST),
    "safetensors head.safetensors": struct.pack("<Q", 1 << 32) + b"{" + bytes(64),
    "pickle text.pth": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 33) + b"a.",
    "pickle number.pth": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"a.",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_huge_length_in_a_picture_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        assert read_header(PICTURES[name]).width > 0
    except PosezooError as err:
        assert "cut off or damaged" in str(err)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_huge_length_in_weights_takes_no_memory(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors.torch")
    from posezoo.zoo.weights import read_weights

    (tmp_path / name).write_bytes(WEIGHTS[name])
    before = (
        peak_bytes()
    )  # not what was asked of the system, which PyTorch does before it finds the end, but what was used
    with pytest.raises(PosezooError):
        read_weights(tmp_path / name)
    assert peak_bytes() - before < 100_000_000
