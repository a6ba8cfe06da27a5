"""What a picture file says of itself, read without decoding it: format, size, orientation, completeness.

A decoder allocates what the header asks for and silently fills what a cut-off file lacks with grey; reading the header
first lets both be refused with a reason. Sources: ITU T.81 annex B (JPEG), the PNG, GIF89a, WebP and TIFF 6.0
specifications, the BMP headers of the Windows SDK, and the Exif standard for orientation (tag 0x0112).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from posezoo.errors import PosezooError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WebP", "TIFF")
_ORIENTATION, _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 0x0112, 0x0100, 0x0101, 0x0142, 0x0143
_EXTRA_SAMPLES = 0x0152
_LARGEST_TILE = 1 << 24  # pixels, of a TIFF: a decoder holds one whole, however small the picture
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# within coded JPEG data an FF is followed by 00 (a stuffed byte) or D0..D7 (restart); anything else is a marker
_JPEG_NEXT_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_MOST_PARTS = 1 << 18  # segments or chunks: no picture has so many, and each costs time


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture promise.

    Attributes:
        format: one of `FORMATS`.
        width: pixels, before orientation is applied.
        height: pixels, before orientation is applied.
        orientation: Exif orientation 1 to 8; 1 is upright.
        truncated: the file ends before the picture does.
        alpha: what a TIFF's fourth channel is: 1 an alpha that its colours are multiplied by, 2 one that they are not,
            0 it does not say.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    truncated: bool = False
    alpha: int = 0


def sniff(start: bytes) -> str | None:
    """The format that the first 16 bytes belong to, or None."""
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if start.startswith(b"BM") and len(start) >= 16 and start[6:10] == b"\0\0\0\0":
        return "BMP"
    return None


def is_heif(start: bytes) -> bool:
    """Whether the first 16 bytes are those of a HEIC or AVIF picture (ISO 23008-12), which is packed as a video is."""
    return start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf", b"avi")


def read_header(data: bytes) -> Header:
    """The header of the picture in `data`.

    Raises:
        PosezooError: the bytes are no picture of a known format, or the header itself is cut off or damaged.
    """
    kind = sniff(data[:16])
    if is_heif(data[:16]):
        raise PosezooError(f"a HEIC or AVIF picture: convert it to JPEG first ({', '.join(FORMATS)} are read)")
    if kind is None:
        raise PosezooError(f"not a picture ({', '.join(FORMATS)} are read)")
    try:
        header = _READERS[kind](data)
    except (struct.error, IndexError, ValueError):
        raise PosezooError(f"the {kind} header is cut off or damaged") from None
    if header.width <= 0 or header.height <= 0:
        raise PosezooError(f"the {kind} header gives an impossible size of {header.width}x{header.height} pixels")
    return header


def _jpeg(data: bytes) -> Header:
    width = height = 0  # by the first frame header, the one that a decoder goes by
    orientation, at = 1, 2
    for _ in range(_MOST_PARTS):
        found = _JPEG_NEXT_MARKER.search(data, at)
        if found is None or found[1] == b"\xd9":  # EOI, or the data ran out before it
            if not width:
                raise ValueError("no size before the end")
            return Header("JPEG", width, height, orientation, truncated=found is None)
        marker, at = found[1][0], found.end()
        if marker == 0x01:  # TEM stands alone
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _JPEG_SIZE_MARKERS:
            size = struct.unpack_from(">HH", data, at + 3)
            if width and size != (height, width):
                raise ValueError("two sizes")
            height, width = size
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 8 : at + length])
        at += length
    raise ValueError("too many segments")


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise ValueError("no size where it belongs")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at, ended, parts = 1, 8, False, 0
    while not ended and at + 12 <= len(data):
        if (parts := parts + 1) > _MOST_PARTS:
            raise ValueError("too many chunks")
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
        ended = kind == b"IEND"
    return Header("PNG", width, height, orientation, truncated=not ended or at > len(data))


def _bmp(data: bytes) -> Header:
    offset, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return Header("BMP", width, height, truncated=len(data) < offset + (width * bits + 31) // 32 * 4 * height)
    width, height, _, bits, compression, stored = struct.unpack_from("<iiHHII", data, 18)
    plain = compression in (0, 3, 6)
    expected = (width * bits + 31) // 32 * 4 * abs(height) if plain else stored
    return Header("BMP", width, abs(height), truncated=len(data) < offset + expected)


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, truncated=b";" not in data[-32:])


def _webp(data: bytes) -> Header:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    else:
        raise ValueError("unknown first chunk")
    orientation, at, parts = 1, 12, 0
    while at + 8 <= len(data):
        if (parts := parts + 1) > _MOST_PARTS:
            raise ValueError("too many chunks")
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            block = data[at + 8 : at + 8 + length]
            orientation = exif_orientation(block[6:] if block.startswith(b"Exif\0\0") else block)
        at += 8 + length + length % 2
    return Header("WebP", width, height, orientation, truncated=len(data) < riff_size + 8)


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    width, height = _only(tags, _WIDTH), _only(tags, _HEIGHT)
    if _TILE_WIDTH in tags and _only(tags, _TILE_WIDTH) * _only(tags, _TILE_HEIGHT) > max(
        width * height, _LARGEST_TILE
    ):
        raise ValueError("a tile that is larger than the picture")
    # the decoder turns a TIFF itself: its orientation is part of the format, not of Exif
    return Header("TIFF", width, height, alpha=tags.get(_EXTRA_SAMPLES, [0])[0])


def _only(tags: dict[int, list[int]], tag: int) -> int:
    """The value of a tag that must be there once: of two, decoders take the one or the other."""
    (value,) = tags.get(tag, [])
    return value


_READERS = {"JPEG": _jpeg, "PNG": _png, "BMP": _bmp, "GIF": _gif, "WebP": _webp, "TIFF": _tiff}


def _tiff_tags(data: bytes) -> dict[int, list[int]]:
    """The first directory of a TIFF (an Exif block is one): of each tag the first value, as often as it is there.

    It is 0 where the tag is no short or long, the types that sizes and orientation have.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("not TIFF")
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, list[int]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        value = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8) if kind in (3, 4) else (0,)
        tags.setdefault(tag, []).extend(value)
    return tags


def exif_orientation(block: bytes) -> int:
    """Orientation 1 to 8 of an Exif block; 1 where it is absent, damaged or out of range."""
    try:
        value = _tiff_tags(block).get(_ORIENTATION, [1])[0]
    except (struct.error, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1
