"""Readers of files from anywhere, seeds for them, and what is to hold of each whatever the file.

Only `PosezooError` may leave a reader, within `LIMIT_S` seconds. `benchmarks/fuzz_readers.py` runs the same for longer.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from format_results import some_poses, write
from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.formats import Result, read_results
from posezoo.media.headers import exif_orientation, read_header
from posezoo.skeletons import get_skeleton

LIMIT_S = 5.0  # of this process's own time, for a file of a few kilobytes: hundreds of times what it takes


class Found(AssertionError):
    """A reader did what no file may make it do."""


@dataclass(frozen=True)
class Target:
    """A reader, and what it is tried on.

    Attributes:
        read: of the file at a path.
        seeds: files that it reads without an error.
        suffix: of those.
        text: whether they are text, whose words are then changed rather than their bytes.
        needs: the package without which it cannot be tried.
    """

    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    suffix: str
    text: bool = False
    needs: str = "numpy"


def check(target: Target, data: bytes, folder: Path) -> bool:
    """Read `data` as a file; whether it was read without an error.

    Raises:
        Found: anything but a `PosezooError` of one line came out, or it took too long.
    """
    path = folder / f"file{target.suffix}"
    path.write_bytes(data)
    began = time.process_time()
    try:
        with np.errstate(all="ignore"):
            target.read(path)
        read = True
    except PosezooError as err:
        read = False
        if not str(err):
            raise Found("the error says nothing") from err
    except Exception as err:
        raise Found(f"{type(err).__name__}: {str(err)[:300]}") from err
    if (took := time.process_time() - began) > LIMIT_S:
        raise Found(f"it took {took:.1f} s")
    return read


# ---- seeds


def _results(format: str) -> list[bytes]:
    records = []
    for seed, skeleton in enumerate(("coco17", "coco17", "mpii16")):
        joints = get_skeleton(skeleton)
        shown = None if seed else 0
        records.append(Result(some_poses(joints, 2, seed, tracked=seed == 0), "a.jpg", shown, 0.0, (640, 480)))
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for n, record in enumerate(records):
            (path,) = write(format, Path(folder) / str(n), [record], record.poses.skeleton)
            made += [file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])]
    return made if format not in ("coco", "alphapose") else made[:2]  # which do not name their skeleton


def _read_results(format: str, path: Path) -> int:
    with suppress(PosezooError):
        list(read_results(path))  # the format found out
    return len(list(read_results(path, format)))


def _json(*contents: object) -> list[bytes]:
    return [json.dumps(content).encode() for content in contents]


def _boxes_json() -> list[bytes]:
    coco = {"image_id": 139, "category_id": 1, "bbox": [1.5, 2, 30, 40], "score": 0.9}
    own = {"id": 139, "file_name": "a.jpg"}
    mmpose = {"bbox": [[1, 2, 30, 40]], "bbox_score": 0.9}
    person = {"box": [1, 2, 30, 40], "box_score": 0.5}
    return _json(
        [coco, {**coco, "file_name": "a.jpg", "iscrowd": 1}],
        {"images": [own], "annotations": [coco], "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]},
        [{"image_id": "a.jpg", "box": [1, 2, 30, 40], "score": 2.1}],
        [mmpose],
        [{"frame_id": 0, "instances": [mmpose]}],
        {"meta_info": {}, "instance_info": [{"frame_id": 1, "instances": [mmpose]}]},
        {"format": "posezoo/1", "image": "a.jpg", "frame": 3, "people": [person]},
        {"a.jpg": [[1, 2, 30, 40], [1, 2, 30, 40, 0.5]], "b.jpg": []},
        [[1, 2, 30, 40, 0.5]],
    )


def _boxes_lines() -> list[bytes]:
    table = {"format": "posezoo/1", "image": "a.jpg", "people": [{"box": [1, 2, 30, 40], "box_score": 0.5}]}
    return [b"\n".join(_json(table, {**table, "frame": 4})) + b"\n"]


def _boxes_csv() -> list[bytes]:
    return [
        b"image,x1,y1,x2,y2,score\na.jpg,1,2,30,40,0.5\nb.jpg,1,2,3,4,\n",
        b"frame;x;y;width;height;class\n3;1;2;30;40;person\n",
        b'"image_id"\tbb_left\tbb_top\tbb_width\tbb_height\tcategory_id\n"a\tb.jpg"\t1\t2\t3\t4\t1\n',
    ]


def _read_boxes(path: Path) -> object:
    boxes = BoxesFile.read(path, nms=0.5)
    return boxes.find("folder/a.jpg"), boxes.find("clip.mp4#3")


def _arrays() -> dict[str, np.ndarray]:
    return {"w": np.ones((2, 3), np.float32), "half": np.ones(4, np.float16), "ids": np.arange(3)}


def _params() -> list[bytes]:
    """MXNet's three layouts, see `posezoo.zoo.weights.mxnet`."""
    made = []
    flags = {"float32": 0, "float16": 2, "int64": 6}
    for layout in ("v3", "v2", "v1", "oldest"):
        out = struct.pack("<QQQ", 0x112, 0, len(_arrays()))
        for array in _arrays().values():
            head = {"v3": (0xF993FACA, 0), "v2": (0xF993FAC9, 0), "v1": (0xF993FAC8,), "oldest": ()}[layout]
            size = "I" if layout == "oldest" else "q"
            out += struct.pack(f"<{len(head) + 1}I{array.ndim}{size}", *head, array.ndim, *array.shape)
            out += struct.pack("<iii", 1, 0, flags[str(array.dtype)]) + array.tobytes()
        names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in _arrays())
        made.append(out + struct.pack("<Q", len(_arrays())) + names)
    return made


def _read_weights(path: Path) -> object:
    from posezoo.zoo.weights import read_weights

    return {name: (array.dtype, array.shape) for name, array in read_weights(path).items()}


def _darknet() -> list[bytes]:
    numbers = np.arange(9, dtype="<f4").tobytes()
    return [struct.pack("<3iq", 0, 2, 0, 7) + numbers, struct.pack("<4i", 0, 1, 0, 7) + numbers]


def _cfg() -> list[bytes]:
    conv = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    last = "[convolutional]\nsize=1\nstride=1\npad=1\nfilters=18\nactivation=linear\n"
    yolo = "[yolo]\nmask=0,1,2\nanchors=10,13, 16,30, 33,23\nclasses=1\nnum=3\n"
    more = "[maxpool]\nsize=2\nstride=2\n[upsample]\nstride=2\n[shortcut]\nfrom=-3\nactivation=linear\n"
    return [
        f"[net]\nwidth=64\nheight=64\nchannels=3\n{conv.format(4)}{last}{yolo}".encode(),
        f"{conv.format(4)}{more}[route]\nlayers=-1,0\n# a remark\n{last}{yolo}".encode(),
    ]


def _read_cfg(path: Path) -> object:
    from posezoo.models.darknet import Darknet, parse_cfg

    return Darknet(parse_cfg(path.read_bytes().decode(errors="replace")))


def _state() -> dict[str, object]:
    import torch

    weight = torch.arange(12.0).view(3, 4)
    return {
        "state_dict": OrderedDict(w=weight, view=weight[1:, ::2], parameter=torch.nn.Parameter(weight)),
        "epoch": 3,
        "meta": {"time": [1.5, None, "now"], "n": np.float64(3)},
    }


def _checkpoints(zipped: bool = True) -> list[bytes]:
    import torch

    made = []
    for content in (_state()["state_dict"], _state()):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        made.append(file.getvalue())
    return made


def _pickles() -> list[bytes]:
    """What stands in "data.pkl" of a checkpoint: its sums of bytes would hide the rest from any change."""
    made = []
    for each in _checkpoints():
        with zipfile.ZipFile(io.BytesIO(each)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
            made.append(archive.read(name))
    return made


def _read_pickle(path: Path) -> object:
    pickled = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/version", "3\n")
        for key in range(3):
            archive.writestr(f"a/data/{key}", bytes(48))
    return _read_weights(path)


def _safetensors() -> list[bytes]:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    return [struct.pack("<Q", len(head)) + head + bytes(24)]


def _exif(order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = ((0x0100, 4, 7), (0x0101, 4, 5), (0x0112, 4, 6))
    return (
        mark
        + struct.pack(f"{order}IH", 8, len(tags))
        + b"".join(struct.pack(f"{order}HHII", t, k, 1, v) for t, k, v in tags)
    )


def _pictures() -> list[bytes]:
    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    ihdr = struct.pack(">IIBBBBB", 7, 5, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", ihdr)
        + part(b"eXIf", _exif())
        + part(b"IDAT", bytes(9))
        + part(b"IEND", b"")
    )
    frame, scan = segment(0xC0, struct.pack(">BHHB", 8, 5, 7, 1) + b"\1\x11\0"), segment(0xDA, b"\1\1\0\0\0\0")
    jpeg = b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + _exif(">")) + frame + scan + b"\1\2\xff\0\3\xff\xd0\4\xff\xd9"
    bmp = b"BM" + struct.pack("<IIIIiiHHIIIIII", 62, 0, 54, 40, 1, -2, 1, 24, 0, 8, 0, 0, 0, 0) + bytes(8)
    old_bmp = b"BM" + struct.pack("<IIIIHHHH", 34, 0, 26, 12, 1, 2, 1, 24) + bytes(8)
    gif = b"GIF89a" + struct.pack("<HHBBB", 7, 5, 0, 0, 0) + b",\0\0;"
    chunks = [
        b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 7, 5),
        b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", 6 | 4 << 14) + b"\0",
        b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\6\0\0\4\0\0" + b"EXIF" + struct.pack("<I", 50) + _exif(),
    ]
    webp = [b"RIFF" + struct.pack("<I", len(each) + 4) + b"WEBP" + each for each in chunks]
    return [png, jpeg, bmp, old_bmp, gif, *webp, _exif(), _exif(">")]


def _read_picture(path: Path) -> object:
    data = path.read_bytes()
    assert 1 <= exif_orientation(data) <= 8
    header = read_header(data)
    assert header.width > 0 and header.height > 0 and 1 <= header.orientation <= 8
    return header


TARGETS: dict[str, Target] = {
    **{
        name: Target(partial(_read_results, name), cache(partial(_results, name)), suffix, name != "parquet", needs)
        for name, suffix, needs in (
            ("posezoo", ".json", "numpy"),
            ("jsonl", ".jsonl", "numpy"),
            ("coco", ".json", "numpy"),
            ("alphapose", ".json", "numpy"),
            ("openpose", ".json", "numpy"),
            ("openpose25", ".json", "numpy"),
            ("cmu", ".json", "numpy"),
            ("csv", ".csv", "numpy"),
            ("parquet", ".parquet", "pyarrow"),
        )
    },
    "boxes-json": Target(_read_boxes, _boxes_json, ".json", text=True),
    "boxes-jsonl": Target(_read_boxes, _boxes_lines, ".jsonl", text=True),
    "boxes-csv": Target(_read_boxes, _boxes_csv, ".csv", text=True),
    "pictures": Target(_read_picture, _pictures, ".jpg"),
    "params": Target(_read_weights, _params, ".params", needs="torch"),
    "darknet": Target(_read_weights, _darknet, ".weights", needs="torch"),
    "cfg": Target(_read_cfg, _cfg, ".cfg", text=True, needs="torch"),
    "checkpoint": Target(_read_weights, cache(_checkpoints), ".pth", needs="torch"),
    "old-checkpoint": Target(_read_weights, cache(partial(_checkpoints, False)), ".pth", needs="torch"),
    "pickle": Target(_read_pickle, cache(_pickles), ".pth", needs="torch"),
    "safetensors": Target(_read_weights, _safetensors, ".safetensors", needs="safetensors"),
}
"""Every reader by name."""


def get_target(name: str) -> Target:
    """The reader called `name`; ends the program where there is none."""
    if name not in TARGETS:
        raise SystemExit(f"no reader '{name}'; there are {', '.join(TARGETS)}")
    return TARGETS[name]
