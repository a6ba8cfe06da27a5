"""The pictures in a request's body: read piece by piece, and refused as soon as a limit is passed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from posezoo.serve.refusals import Refusal
from posezoo.serve.settings import Settings

FIELD = "files"
_LONGEST_NAME = 255
_HOW = (
    "send a picture as it is, with its own Content-Type (curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg), "
    f"or one or more as multipart/form-data (curl -F {FIELD}=@photo.jpg)"
)


class Upload(NamedTuple):
    """A picture as it came.

    Attributes:
        name: what the client calls it; it is only ever repeated to that client.
        data: the bytes of its file.
    """

    name: str
    data: bytes


async def read_uploads(headers: Mapping[str, str], body: AsyncIterator[bytes], settings: Settings) -> list[Upload]:
    """The pictures of a request, one or more.

    Args:
        headers: of the request, by names in lower case.
        body: its pieces, as they come.
        settings: the limits.

    Raises:
        Refusal: a type that is not read, a body that is too large or damaged, too many pictures, or none.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    raw = kind.startswith(b"image/") or kind == b"application/octet-stream"
    if not raw and kind != b"multipart/form-data":
        given = kind[:80].decode("ascii", "replace")
        raise Refusal("unsupported_type", f"the Content-Type is {given or 'not given'}: {_HOW}")
    pieces = _bounded(headers, body, settings)
    if raw:
        data = b"".join([piece async for piece in pieces])
        if not data:
            raise Refusal("bad_image", f"the body is empty: {_HOW}")
        return [Upload("image", data)]
    return await _read_parts(options.get(b"boundary"), pieces, settings)


async def _bounded(headers: Mapping[str, str], body: AsyncIterator[bytes], settings: Settings) -> AsyncIterator[bytes]:
    """The pieces, as long as they are not too many; where the client says beforehand how many, none is read."""
    announced = headers.get("content-length", "0")
    total = int(announced) if announced.isdecimal() else 0
    refusal = Refusal("too_large", f"the body is larger than the limit of {settings.max_body_mb:g} MB")
    if total > settings.max_body:
        raise refusal
    total = 0
    async for piece in body:
        total += len(piece)
        if total > settings.max_body:
            raise refusal
        yield piece


@dataclass
class _Parts:
    """What the parser calls as it goes along a multipart body."""

    most: int
    uploads: list[Upload] = field(default_factory=list)
    ended: bool = False
    _header: list[bytes] = field(default_factory=lambda: [b"", b""])
    _disposition: bytes = b""
    _name: str = ""
    _data: list[bytes] = field(default_factory=list)

    def on_part_begin(self) -> None:
        self._header, self._disposition, self._data = [b"", b""], b"", []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        called = _text(options.get(b"name", b""))
        if called != FIELD:
            hint = "options go into the address (?flip=true)" if b"filename" not in options else "pictures go into it"
            raise Refusal("bad_body", f"the form has a field '{called[:80]}', expected {FIELD}: {hint}")
        if len(self.uploads) == self.most:
            raise Refusal("too_many_images", f"more pictures than the limit of {self.most} a request")
        self._name = _plain(_text(options.get(b"filename", b""))) or f"image {len(self.uploads) + 1}"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        self.uploads.append(Upload(self._name, b"".join(self._data)))
        self._data = []

    def on_end(self) -> None:
        self.ended = True


async def _read_parts(boundary: bytes | None, pieces: AsyncIterator[bytes], settings: Settings) -> list[Upload]:
    if not boundary:
        raise Refusal("bad_body", "the multipart body has no boundary in its Content-Type")
    parts = _Parts(settings.max_images)
    events = "part_begin header_field header_value header_end headers_finished part_data part_end end"
    names = [f"on_{event}" for event in events.split()]
    try:
        parser = MultipartParser(boundary, {name: getattr(parts, name) for name in names})  # type: ignore[arg-type,misc]
        async for piece in pieces:
            parser.write(piece)
        parser.finalize()
    except FormParserError as err:
        raise Refusal("bad_body", f"the multipart body is damaged: {str(err)[:200]}") from None
    if not parts.ended:
        raise Refusal("bad_body", "the multipart body ends before its last boundary")
    if not parts.uploads:
        raise Refusal("bad_body", f"the multipart body has no picture in it: {_HOW}")
    return parts.uploads


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _plain(name: str) -> str:
    """A name without its folders and what does not print."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_LONGEST_NAME].strip()
