"""Images: every file becomes an (H, W, 3) uint8 RGB array, upright, or an error that says why not.

OpenCV decodes; what it leaves to the caller is done here: the size is checked before anything is decoded, a file that
ends early is refused (OpenCV would fill the rest with grey), Exif orientation is applied whatever the format, 16 bits
become 8, and transparent pixels are laid over white; but for those of a grey TIFF, and of a grey PNG with one colour
that is to be seen through: OpenCV does not tell of them.
"""

from __future__ import annotations

import glob
import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.files import matching, write_atomic
from posezoo.media.headers import FORMATS, Header, read_header, sniff

Image = NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_MEGAPIXELS = 100.0
LIMIT_VARIABLE = "POSEZOO_MAX_MEGAPIXELS"
_MOST_PIXELS = 1 << 62  # a larger number ends the process in which OpenCV reads it
_MOST_LOOKED_AT = 20_000  # files, for a hint


class Picture(NamedTuple):
    """An image and what it is called, for the stages that look things up by name.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        name: its path as given, or None for an array.
    """

    image_rgb: Image
    name: str | None = None


@dataclass(frozen=True)
class Encoded:
    """A picture's file: known to be one, whole and not too large, but not decoded.

    Attributes:
        name: its path as given.
        data: the file.
        header: what it says of itself.
    """

    name: str
    data: bytes
    header: Header

    @property
    def decoded_bytes(self) -> int:
        """The memory that the picture will take."""
        return 3 * self.header.width * self.header.height

    def decode(self) -> Image:
        """The picture, (H, W, 3) uint8 RGB.

        Raises:
            PosezooError: the data is damaged; the message names the file.
        """
        try:
            return _orient(_decode(self.data, self.header), self.header.orientation)
        except PosezooError as err:
            raise PosezooError(f"cannot read {self.name}: {err}") from None


def read_image(source: str | os.PathLike[str] | bytes, max_megapixels: float | None = None) -> Image:
    """Read one picture: JPEG, PNG, BMP, WebP, TIFF, or the first frame of a GIF.

    Grey becomes three equal channels, 16 bits are scaled to 8 over their full range, transparent pixels are blended
    over white, and Exif orientation is applied.

    Args:
        source: a path, or the bytes of a file.
        max_megapixels: refuse larger pictures before decoding; None: the variable POSEZOO_MAX_MEGAPIXELS, or 100.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PosezooError: no such file, not a picture, cut off, too large, or not decodable; the message names the file.
    """
    return open_image(source, max_megapixels).decode()


def open_image(source: str | os.PathLike[str] | bytes, max_megapixels: float | None = None) -> Encoded:
    """The first half of `read_image`, with its errors: the file is read and looked at, but not decoded."""
    name = "the given bytes" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    if not data:
        raise PosezooError(f"cannot read {name}: the file is empty (0 bytes)")
    try:
        header = read_header(data)
        _check_size(header, max_megapixels)
        if header.truncated:
            raise PosezooError(f"the {header.format} file is cut off before its end; copy or download it again")
    except PosezooError as err:
        raise PosezooError(f"cannot read {name}: {err}") from None
    return Encoded(name, data, header)


def _read_bytes(path: Path) -> bytes:
    """The whole file, once its first bytes look like a picture (a film or an archive is not read to its end)."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
            return start + file.read() if sniff(start) else start
    except (FileNotFoundError, ValueError):  # the latter for a name that no file can have
        raise PosezooError(f"no such file: {path}{_similar(path)}") from None
    except IsADirectoryError:
        raise PosezooError(f"cannot read {path}: it is a folder, not a picture") from None
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None


def _similar(path: Path) -> str:
    """A hint at the nearest file name in the same folder."""
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return "" if os.path.isdir(path.parent) else f" (there is no folder {path.parent} either)"
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def check_megapixels(limit: float) -> None:
    """See that a limit on the size of pictures, in 10^6 pixels, is one.

    Raises:
        PosezooError: it is not above 0, or no number.
    """
    if not (isinstance(limit, int | float) and math.isfinite(limit) and limit > 0):
        raise PosezooError(f"max-megapixels must be a number above 0, but is {limit}")


def limit_decoder(max_megapixels: float | None) -> None:
    """Have OpenCV too refuse what is larger, in a process that has not imported it yet: it looks only then.

    Args:
        max_megapixels: as for `read_image`.

    Raises:
        PosezooError: the variable POSEZOO_MAX_MEGAPIXELS is no number.
    """
    limit = _limit(max_megapixels)
    if "cv2" not in sys.modules and math.isfinite(limit):
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(min(int(limit * 1e6), _MOST_PIXELS)))


def _limit(max_megapixels: float | None) -> float:
    """In 10^6 pixels; see `read_image`."""
    if max_megapixels is not None:
        return max_megapixels
    given = os.environ.get(LIMIT_VARIABLE, str(MAX_MEGAPIXELS))
    try:
        return float(given)
    except ValueError:
        raise PosezooError(f"{LIMIT_VARIABLE} must be a number of megapixels, but is '{given}'") from None


def _check_size(header: Header, max_megapixels: float | None) -> None:
    limit = _limit(max_megapixels)
    megapixels = header.width * header.height / 1e6
    if not megapixels <= limit:
        size = f"{header.width}x{header.height} is {float(f'{megapixels:.3g}'):g} megapixels"
        raise PosezooError(
            f"{size}, more than the limit of {limit:g}; "
            f"raise it with --max-megapixels (in Python max_megapixels) or {LIMIT_VARIABLE}"
        )


def _decode(data: bytes, header: Header) -> Image:
    """Pixels as stored: RGB uint8, orientation not yet applied."""
    import cv2

    # transparency is kept where a format has it; the fourth byte of a BMP pixel is most often padding
    plain = header.format in ("JPEG", "BMP")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if plain else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as err:
        raise PosezooError(f"the {header.format} data could not be decoded ({err.err or 'damaged'})") from None
    if pixels is None:
        raise PosezooError(f"the {header.format} data is damaged, or of a kind OpenCV does not decode")
    height, width = pixels.shape[:2]
    turned = header.format == "TIFF" and (height, width) == (header.width, header.height)
    if (width, height) != (header.width, header.height) and not turned:
        promised = f"{header.width}x{header.height}"
        raise PosezooError(f"the {header.format} header gives {promised}, the data {width}x{height}")
    # OpenCV multiplies colours of 8 bits by an alpha that says that they are not
    multiplied = header.alpha == 1 or (header.alpha == 2 and pixels.dtype == np.uint8)
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise PosezooError(f"its pixels are {pixels.dtype}; 8 or 16 bit unsigned integers are read")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(pixels.reshape(pixels.shape[:2]), cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        colours = pixels[..., :3] if multiplied else (pixels[..., :3] * alpha + 127) // 255
        pixels = np.minimum(colours + (255 - alpha), 255).astype(np.uint8)
    if pixels.shape[2] != 3:
        raise PosezooError(f"it has {pixels.shape[2]} channels; grey, RGB and RGBA are read")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _orient(image: Image, orientation: int) -> Image:
    """Turn and mirror by an Exif orientation (Exif 2.32, 4.6.4: where row 0 and column 0 lie)."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def check_image(image: Any) -> Image:
    """`image` itself where it is (H, W, 3) uint8 with pixels in it.

    Raises:
        PosezooError: anything else; says what was given and how to mend the usual cases.
    """
    wanted = "an image must be (H, W, 3) uint8 RGB"
    if not isinstance(image, np.ndarray):
        kind = type(image)
        mend = _MEND_KINDS.get(kind.__module__.partition(".")[0], "") if kind is not bytes else _MEND_BYTES
        raise PosezooError(f"an image must be a path or an (H, W, 3) uint8 RGB array, but is {kind.__name__}{mend}")
    given = f"shape {image.shape} {image.dtype}"
    if image.ndim == 2:
        raise PosezooError(f"{wanted}, but has {given}; for grey: np.stack([grey] * 3, -1)")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        raise PosezooError(f"{wanted}, but has {given}; try image.transpose(1, 2, 0)")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        mend = _MEND_CHANNELS.get(image.shape[2], "") if image.ndim == 3 else ""
        raise PosezooError(f"{wanted}, but has {given}{mend}")
    if image.dtype != np.uint8:
        raise PosezooError(f"{wanted}, but has {given}{_MEND_NUMBERS.get(image.dtype.kind, '')}")
    return image


_MEND_KINDS = {"PIL": '; np.asarray(image.convert("RGB"))', "torch": "; image.cpu().numpy()"}
_MEND_BYTES = "; of a file's bytes: posezoo.media.read_image(data)"
_MEND_CHANNELS = {1: "; for grey: image.repeat(3, axis=2)", 4: "; of RGBA: image[..., :3]"}
_MEND_NUMBERS = {
    "f": "; floats in 0..1: (image * 255).round().astype(np.uint8)",
    "u": "; of 16 bits: (image >> 8).astype(np.uint8)",
}


def load_picture(source: Any, max_megapixels: float | None = None) -> Picture:
    """A path is read, an (H, W, 3) uint8 RGB array is checked, a `Picture` is checked and kept."""
    if isinstance(source, Picture):
        return Picture(check_image(source.image_rgb), source.name)
    if isinstance(source, str | os.PathLike):
        return Picture(read_image(source, max_megapixels), os.fspath(source))
    return Picture(check_image(source))


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The picture files that paths, folders and globs stand for, each once, in the order given.

    A folder stands for the pictures right in it, in natural order (2.jpg before 10.jpg); `folder/**/*.jpg` goes
    deeper. A file that is named outright is returned whatever its suffix.

    Raises:
        PosezooError: a file that does not exist, a folder without pictures, or a glob that matches nothing.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else sources
    found: dict[Path, Path] = {}
    for source in given:
        for path in _expand(os.fspath(source)):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(source: str) -> list[Path]:
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        try:
            pictures = _pictures(path.iterdir())
        except OSError as err:
            raise PosezooError(f"cannot read the folder {path}: {err.strerror or err}") from None
        if not pictures:
            hint = _deeper(path) or f" ({', '.join(FORMATS)})"
            raise PosezooError(f"no pictures in the folder {path}{hint}")
        return pictures
    if os.path.exists(path) or not glob.has_magic(source):
        if not os.path.exists(path):
            raise PosezooError(f"no such file: {path}{_similar(path)}")
        return [path]
    pictures = _pictures(map(Path, matching(path)))
    if not pictures:
        raise PosezooError(f"no pictures match {source}")
    return pictures


def _deeper(folder: Path) -> str:
    """A hint at the pictures in the folders of a folder; of a very large tree only the first files are looked at."""
    files = islice(folder.rglob("*"), _MOST_LOOKED_AT)
    suffixes = {file.suffix for file in files if file.suffix.lower() in SUFFIXES and file.name[0] != "."}
    if not suffixes:
        return ""
    return f"; to search its folders too: '{folder}/**/*{suffixes.pop() if len(suffixes) == 1 else ''}'"


def _pictures(paths: Iterable[Path]) -> list[Path]:
    """Those that are files with a picture's suffix and not hidden, in natural order."""
    kept = [p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(kept, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def write_image(path: str | os.PathLike[str], image_rgb: Image) -> None:
    """Write an (H, W, 3) uint8 RGB image in the format of the path's suffix, whole or not at all.

    Raises:
        PosezooError: an unknown suffix, a picture the format cannot hold, or a place that cannot be written.
    """
    import cv2

    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise PosezooError(f"cannot write {target}: its suffix must be one of {' '.join(SUFFIXES)}")
    bgr = cv2.cvtColor(check_image(image_rgb), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if target.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        done, encoded = cv2.imencode(target.suffix.lower(), bgr, options)
    except cv2.error as err:
        raise PosezooError(f"cannot write {target}: {err.err}") from None
    if not done:
        size = f"{bgr.shape[1]}x{bgr.shape[0]}"
        raise PosezooError(f"cannot write {target}: a picture of {size} pixels does not fit the format")
    write_atomic(target, encoded.tobytes())
