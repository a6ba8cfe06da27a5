"""From an item to its pictures, one by one and in bounded memory; what cannot be read is an entry too, with the reason.

Archives are never unpacked: the members of a tar shard are read into memory, and their names are names only.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posezoo.batch.sources import PARQUET, PICTURE, TAR, VIDEO, Item
from posezoo.errors import PosezooError, require
from posezoo.media.images import SUFFIXES, Encoded, Picture

MOST_BYTES = 256_000_000  # of one picture in a shard
_MOST_HEADER = 1 << 20  # bytes of a name or of other words about a member
_BATCH = 16  # rows of a Parquet file in memory
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content", "data")
NAME_COLUMNS = ("path", "file_name", "filename", "name", "image_path", "key", "__key__", "image_id", "id", "url")


@dataclass(frozen=True)
class Entry:
    """One picture on its way to the network.

    Attributes:
        source: the file that it is, or is in.
        image: what it is called: its path, or its name within the source; "" for what concerns the whole source.
        data: a path, a file's bytes, what those say of themselves, pixels, or why there are none.
        frame: its number in the video.
        time_s: when it is shown.
    """

    source: str
    image: str
    data: Path | bytes | Encoded | Picture | PosezooError
    frame: int | None = None
    time_s: float | None = None

    @property
    def name(self) -> str:
        """For those who look boxes up by it."""
        return self.image if self.frame is None else f"{self.image}#{self.frame}"


def read_item(item: Item, every: int = 1, column: str | None = None) -> Iterator[Entry]:
    """The pictures of an item.

    Args:
        item: what to read.
        every: of a video, take the first frame and then every so many.
        column: of a Parquet file, which has the pictures; None: the one that looks like it.
    """
    if item.kind == PICTURE:
        yield Entry(item.path, item.path, Path(item.path))
        return
    if not os.path.exists(item.path):
        yield Entry(item.path, "", PosezooError(f"no such file: {item.path}"))
        return
    readers = {
        VIDEO: lambda: _read_video(item.path, every),
        TAR: lambda: _read_tar(item.path),
        PARQUET: lambda: _read_parquet(item, column),
    }
    try:
        yield from readers[item.kind]()
    except PosezooError as err:  # what was read before it is good
        yield Entry(item.path, "", err)


def _read_video(path: str, every: int) -> Iterator[Entry]:
    from posezoo.media.sources import open_source

    with open_source(path, every=every) as source:
        for frame in source:
            name = f"{path}#{frame.index}"
            yield Entry(path, path, Picture(frame.image_rgb, name), frame.index, frame.time_s)
        if source.skipped:
            damaged = f"{source.skipped} {'frame was' if source.skipped == 1 else 'frames were'}"
            yield Entry(path, "", PosezooError(f"{path}: {damaged} damaged and left out"))


class _Member(tarfile.TarInfo):
    """A member's header, read strictly: by itself `tarfile` takes a broken one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as err:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            wrong = f"a header in it is damaged ({err})" if buf else "it is cut off: its end mark is missing"
            raise tarfile.ReadError(wrong) from None
        words = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if member.type in (*words, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and member.size > _MOST_HEADER:
            raise tarfile.ReadError(f"it has a name or a header of {member.size} bytes")
        return member


def _read_tar(path: str) -> Iterator[Entry]:
    seen = pictures = 0
    try:
        # a stream: compressed or not, every byte is read once, and nothing is ever written
        with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
            kept: list[tarfile.TarInfo] = vars(archive)["members"]
            while (member := archive.next()) is not None:
                kept.clear()  # else the headers of all members stay in memory
                name = member.name.encode(errors="backslashreplace").decode()
                base = os.path.basename(name)
                if member.isdir() or base.startswith(".") or Path(base).suffix.lower() not in SUFFIXES:
                    continue
                seen += 1
                if not member.isreg():
                    yield Entry(
                        path, name, PosezooError(f"{name} in {path} is a link or a device, which is not followed")
                    )
                    continue
                if member.size > MOST_BYTES or member.issparse():
                    yield Entry(path, name, _too_large(name, path, member.size))
                    continue
                file = archive.extractfile(member)
                assert file is not None  # of a regular member
                data = file.read()
                pictures += 1
                yield Entry(path, name, data)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as err:
        said = " ".join(str(getattr(err, "strerror", None) or err).split())
        raise PosezooError(f"cannot read {path} as a tar shard, after {pictures} whole pictures: {said}") from None
    if not seen:
        raise PosezooError(f"{path} has no pictures in it")


def _too_large(name: str, source: str, size: int) -> PosezooError:
    return PosezooError(f"{name} in {source} has {size / 1e6:.0f} MB, more than the limit of {MOST_BYTES / 1e6:.0f}")


def _read_parquet(item: Item, column: str | None) -> Iterator[Entry]:
    pyarrow: Any = require("pyarrow", "batch", "reading Parquet")
    parquet: Any = require("pyarrow.parquet", "batch", "reading Parquet")
    try:
        with parquet.ParquetFile(
            item.path, buffer_size=1 << 23
        ) as file:  # a buffer: else whole columns are read at once
            images, names = choose_columns(file.schema_arrow, item.path, column)
            groups = list(range(file.num_row_groups))
            row = sum(file.metadata.row_group(group).num_rows for group in groups[: item.first])
            wanted = groups[item.first : item.first + item.groups] if item.groups else groups
            if not file.metadata.num_rows:
                raise PosezooError(f"{item.path} has no rows")
            columns = [images] if names is None else [images, names]
            for batch in file.iter_batches(_BATCH, wanted, columns):
                for values in batch.to_pylist():
                    yield _row(item.path, values[images], None if names is None else values[names], row)
                    row += 1
    except (OSError, pyarrow.ArrowException) as err:
        raise PosezooError(f"cannot read {item.path} as Parquet: {' '.join(str(err).split())}") from None


def _row(source: str, value: Any, name: Any, row: int) -> Entry:
    """The picture of a row: its bytes, or a struct of those and a path, as Hugging Face's datasets have it."""
    if isinstance(value, dict):
        value, name = value.get("bytes"), name if name is not None else value.get("path")
    image = f"row {row}" if name is None or name == "" else str(name)
    if not value:
        return Entry(source, image, PosezooError(f"{image} in {source} has no picture in it"))
    if len(value) > MOST_BYTES:
        return Entry(source, image, _too_large(image, source, len(value)))
    return Entry(source, image, value)


def choose_columns(schema: Any, source: str, column: str | None = None) -> tuple[str, str | None]:
    """The column of pictures in a Parquet file, and that of their names where there is one.

    Raises:
        PosezooError: there is no such column, or several that could be it.
    """
    types = require("pyarrow", "batch", "reading Parquet").types

    def has_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(kind.field(i).name == "bytes" and has_bytes(kind.field(i).type) for i in range(kind.num_fields))
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    able = [field.name for field in schema if has_bytes(field.type)]
    listed = ", ".join(able) or "none"
    if column is not None and column not in able:
        raise PosezooError(f"{source} has no column '{column}' of bytes (those of bytes: {listed})")
    usual = [name for name in IMAGE_COLUMNS if name in able] or able
    if column is None and (not usual or (len(able) > 1 and usual is able)):
        choice = "name the one with the pictures: --column NAME" if able else "the pictures must be in one"
        raise PosezooError(f"{source}: which column has the pictures? Columns of bytes: {listed}; {choice}")
    chosen = column or usual[0]
    strings = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    integers = [field.name for field in schema if types.is_integer(field.type)]
    return chosen, next((name for name in NAME_COLUMNS if name in (*strings, *integers)), None)
