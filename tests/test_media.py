"""Reading pictures: what every odd file becomes, and how each broken one is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.media import check_image, find_images, load_picture, read_image, write_image
from posezoo.media.headers import exif_orientation, read_header
from posezoo.media.images import Picture, _orient
from posezoo.media.sources import open_source
from posezoo.predict.run import left_out, videos_of

SUFFIXES = [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"]


def photo(width: int = 64, height: int = 48) -> np.ndarray:
    """Smooth RGB with a red top left corner and a blue right side: channel and orientation errors both show."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[:, width // 2 :] = (30, 60, 200)
    image[: height // 3, : width // 3] = (220, 30, 40)
    return image


def encoded(image_rgb: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image_rgb[..., ::-1] if image_rgb.ndim == 3 else image_rgb)[1].tobytes()


def exif_block(orientation: int, order: str = "<") -> bytes:
    """A TIFF block with the orientation tag alone."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def with_exif(data: bytes, orientation: int, order: str = "<") -> bytes:
    """A JPEG with an Exif segment put in after its first marker."""
    body = b"Exif\0\0" + exif_block(orientation, order)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_size_and_colours(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, photo())
    image = read_image(path)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    assert np.abs(image[5, 5].astype(int) - (220, 30, 40)).max() < (50 if suffix == ".gif" else 25)  # 256 colours
    assert np.abs(image[40, 55].astype(int) - (30, 60, 200)).max() < (50 if suffix == ".gif" else 25)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_header_agrees_with_the_decoder(suffix: str) -> None:
    header = read_header(encoded(photo(33, 17), suffix))
    assert (header.width, header.height, header.truncated) == (33, 17, False)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.97])
def test_a_file_that_is_cut_off_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    data = encoded(noise, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PosezooError, match=rf"cannot read .*cut\{suffix}: "):
        read_image(path)


def test_the_message_for_a_cut_off_jpeg_says_so() -> None:
    data = encoded(photo(), ".jpg")
    with pytest.raises(PosezooError, match="JPEG file is cut off before its end"):
        read_image(data[:-40])
    assert read_image(data + b"trailing bytes").shape == (48, 64, 3)


def test_a_jpeg_with_a_thumbnail_inside_is_still_seen_as_cut_off() -> None:
    data, thumbnail = encoded(photo(), ".jpg"), encoded(photo(8, 8), ".jpg")
    body = b"Exif\0\0" + exif_block(1) + thumbnail
    whole = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert read_image(whole).shape == (48, 64, 3)
    assert read_header(whole[:-10]).truncated


PNG_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 5, 5, 8, 2, 0, 0, 0, 0)
WEBP_HEAD = b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(10)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xff" * 1_000_000,  # of which each could be the start of a marker
        b"\xff\xd8" + b"\xff\xe2\x00\x02" * 1_000_000,
        PNG_HEAD + b"\0\0\0\0IDAT\0\0\0\0" * 500_000,
        WEBP_HEAD + b"EXIF\0\0\0\0" * 500_000,
    ],
    ids=["fill bytes", "segments", "PNG chunks", "WebP chunks"],
)
@pytest.mark.timeout(10)
def test_a_header_that_goes_on_and_on_is_given_up_soon(data: bytes) -> None:
    with pytest.raises(PosezooError, match="cut off or damaged"):
        read_header(data)


def test_missing_empty_text_folder_and_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(encoded(photo(), ".jpg"))
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is a text\n" * 50)
    (tmp_path / "damaged.png").write_bytes(encoded(photo(), ".png")[:33] + b"\0" * 400)
    for name, message in {
        "holyday.jpg": "no such file: .*did you mean .*holiday.jpg",
        "nowhere/a.jpg": "there is no folder .*nowhere",
        "empty.jpg": r"the file is empty \(0 bytes\)",
        "text.jpg": r"not a picture \(JPEG, PNG",
        "damaged.png": "PNG",
        "": "it is a folder",
    }.items():
        with pytest.raises(PosezooError, match=message) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def png_of(width: int, height: int) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + head + body + png_chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(20000, 20000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PosezooError, match=r"20000x20000 is 400 megapixels, more than the limit of 100; raise it with"):
        read_image(path)


def test_the_pixel_limit_is_set_by_argument_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(1000, 500), ".png")
    with pytest.raises(PosezooError, match=r"limit of 0\.4"):
        read_image(data, max_megapixels=0.4)
    monkeypatch.setenv("POSEZOO_MAX_MEGAPIXELS", "0.4")
    with pytest.raises(PosezooError, match=r"limit of 0\.4"):
        read_image(data)
    assert read_image(data, max_megapixels=1).shape == (500, 1000, 3)
    monkeypatch.setenv("POSEZOO_MAX_MEGAPIXELS", "many")
    with pytest.raises(PosezooError, match="must be a number of megapixels, but is 'many'"):
        read_image(data)


def test_a_picture_right_at_the_limit_is_read() -> None:
    assert read_image(encoded(np.zeros((1000, 2000, 3), np.uint8), ".png"), max_megapixels=2).shape == (1000, 2000, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_pixel(suffix: str) -> None:
    assert read_image(encoded(np.full((1, 1, 3), 200, np.uint8), suffix)).shape == (1, 1, 3)


def test_grey_sixteen_bit_and_palette(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    for suffix in (".png", ".tif", ".bmp", ".jpg"):
        grey = read_image(encoded(ramp, suffix))
        assert grey.shape == (4, 256, 3) and np.abs(grey.astype(int) - ramp[..., None]).max() <= 3
    wide = (np.arange(256, dtype=np.uint16) * 257)[None].repeat(4, 0)
    for suffix in (".png", ".tif"):
        assert np.array_equal(read_image(encoded(wide, suffix))[..., 1], ramp)
    colour = np.stack([wide, wide // 2, wide * 0], -1)
    assert read_image(encoded(colour, ".png"))[0, 255].tolist() == [255, 127, 0]


def test_palette_png_with_a_transparent_colour() -> None:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
    colours = png_chunk(b"PLTE", bytes([200, 10, 20, 0, 0, 0])) + png_chunk(b"tRNS", bytes([255, 0]))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\0\1")) + png_chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + head + colours + pixels
    assert read_image(data).tolist() == [[[200, 10, 20], [255, 255, 255]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_is_laid_over_white(dtype: type) -> None:
    top = np.iinfo(dtype).max
    bgra = np.zeros((1, 3, 4), dtype)
    bgra[0, :, 2] = top  # red
    bgra[0, :, 3] = [0, top // 2, top]
    image = read_image(cv2.imencode(".png", bgra)[1].tobytes())
    assert np.abs(image[0].astype(int) - [(255, 255, 255), (255, 128, 128), (255, 0, 0)]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_transparency_of_a_tiff_is_laid_over_white(alpha: int, bits: int) -> None:
    rgba = np.array([[[200, 100, 0, 0], [200, 100, 0, 128], [20, 10, 0, 128], [200, 100, 0, 255]]])
    stored = rgba.copy()
    if alpha == 1:
        stored[..., :3] = stored[..., :3] * stored[..., 3:] // 255
    dtype = np.uint8 if bits == 8 else np.uint16
    data = tiff_rgba((stored * (1 if bits == 8 else 257)).astype(dtype), alpha)
    if not alpha:  # a TIFF of OpenCV does not say what its alpha is
        data = cv2.imencode(".tif", stored[..., [2, 1, 0, 3]].astype(np.uint8))[1].tobytes()
    wanted = [(255, 255, 255), (227, 177, 127), (137, 132, 127), (200, 100, 0)]
    assert np.abs(read_image(data)[0].astype(int) - wanted).max() <= 1


def tiff_rgba(rgba: np.ndarray, alpha: int) -> bytes:
    """An uncompressed TIFF that says what its fourth channel is: an alpha that colours are multiplied by (1) or not."""
    height, width = rgba.shape[:2]
    sizes = struct.pack("<4H", *[8 * rgba.itemsize] * 4)
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 273: 16, 277: 4, 278: height, 279: rgba.nbytes}
    table = struct.pack("<H", len(values) + 1)
    for tag, value in (values | {338: alpha}).items():
        table += struct.pack("<HHII", tag, 3, 4 if tag == 258 else 1, value)
    return b"II*\0" + struct.pack("<I", 16 + rgba.nbytes) + sizes + rgba.tobytes() + table + bytes(4)


def test_float_pixels_are_refused() -> None:
    with pytest.raises(PosezooError, match="pixels are float32"):
        read_image(encoded(np.zeros((4, 4, 3), np.float32), ".tif"))


UPRIGHT = np.arange(6).reshape(2, 3, 1).repeat(3, 2).astype(np.uint8)
STORED = {  # what a camera stores so that the orientation brings it upright
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_upright(orientation: int) -> None:
    assert np.array_equal(_orient(STORED[orientation], orientation), UPRIGHT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_is_what_opencv_does(orientation: int, order: str) -> None:
    data = with_exif(encoded(photo(), ".jpg"), orientation, order)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    image = read_image(data)
    assert image.shape == ((64, 48, 3) if orientation >= 5 else (48, 64, 3))
    assert np.array_equal(image, expected)


def test_png_and_webp_orientation() -> None:
    png = encoded(photo(), ".png")
    turned = read_image(png[:33] + png_chunk(b"eXIf", exif_block(6)) + png[33:])
    assert np.array_equal(turned, np.rot90(photo(), -1))
    webp = encoded(photo(), ".webp")
    size = struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3]
    chunks = b"VP8X" + struct.pack("<IB3x", 10, 8) + size + webp[12:]
    chunks += b"EXIF" + struct.pack("<I", len(exif_block(8))) + exif_block(8)
    turned = read_image(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks)
    assert turned.shape == (64, 48, 3)
    assert np.abs(turned.astype(int) - np.rot90(photo(), 1)).mean() < 6


def test_a_broken_exif_block_is_upright() -> None:
    for block in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", exif_block(9), b"garbage garbage"):
        assert exif_orientation(block) == 1


def test_folders_globs_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b10.jpg", "b2.JPG", "a.png", ".hidden.jpg", "notes.txt", "deep/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in find_images(tmp_path)] == ["a.png", "b2.JPG", "b10.jpg"]
    assert [p.name for p in find_images("*.jpg")] == ["b10.jpg"]
    assert [p.as_posix() for p in find_images("**/*")] == ["a.png", "b2.JPG", "b10.jpg", "deep/c.jpg"]
    assert find_images(["notes.txt", tmp_path / "a.png", "a.png"]) == [Path("notes.txt"), tmp_path / "a.png"]
    (tmp_path / "odd[1].jpg").write_bytes(b"x")
    assert find_images("odd[1].jpg") == [Path("odd[1].jpg")]


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + "*", "a\0b.jpg", "a\0b/*.jpg", "x" * 300 + "/a.jpg", "~nobody_/a"]
)
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(PosezooError, match=r"no such file|no pictures match"):
        find_images(name)
    with pytest.raises(PosezooError, match=r"no such file|cannot read|File name too long"):
        read_image(name)
    assert videos_of(name) == [name]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_a_heic_picture_is_no_video(tmp_path: Path) -> None:
    for name, brand in (("a.HEIC", b"heic"), ("b.avif", b"avif"), ("c", b"mif1")):
        (tmp_path / name).write_bytes(HEIC.replace(b"heic", brand, 1))
        source = open_source(tmp_path / name)
        assert source.failed == [] and [path.name for path in source.paths] == [name]  # type: ignore[attr-defined]
        with pytest.raises(PosezooError, match="a HEIC or AVIF picture: convert it to JPEG first"):
            read_image(tmp_path / name)


def test_what_is_left_out_beside_pictures(tmp_path: Path) -> None:
    for name in ("b.mp4", "c.HEIC", ".d.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert left_out(str(tmp_path)) == [] and videos_of(str(tmp_path)) == [str(tmp_path / "b.mp4")]
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert videos_of(str(tmp_path)) == [str(tmp_path)]
    assert left_out(str(tmp_path)) == left_out(f"{tmp_path}/*") == [str(tmp_path / "b.mp4"), str(tmp_path / "c.HEIC")]
    assert left_out(str(tmp_path / "b.mp4")) == []


def test_a_picture_at_an_address_is_no_video() -> None:
    with pytest.raises(PosezooError, match=r"http://a.b/c.JPG\?x=1 is a picture, and of addresses only"):
        open_source("http://a.b/c.JPG?x=1")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PosezooError, match=r"cannot read the folder .*: Permission denied"):
        find_images(tmp_path)


def test_sources_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "a.jpg").write_bytes(b"x")
    with pytest.raises(PosezooError, match=r"no pictures in the folder .*empty"):
        find_images(tmp_path / "empty")
    with pytest.raises(PosezooError, match=r"to search its folders too: '.*outer/\*\*/\*\.jpg'"):
        find_images(tmp_path / "outer")
    (tmp_path / "outer" / "inner" / "far").mkdir()
    (tmp_path / "outer" / "inner" / "far" / "b.png").write_bytes(b"x")
    (tmp_path / "outer" / "inner" / "a.jpg").unlink()
    with pytest.raises(PosezooError, match=r"to search its folders too: '.*outer/\*\*/\*\.png'"):
        find_images(tmp_path / "outer")
    (tmp_path / "outer" / "inner" / "a.jpg").write_bytes(b"x")
    with pytest.raises(PosezooError, match=r"to search its folders too: '.*outer/\*\*/\*'"):
        find_images(tmp_path / "outer")
    with pytest.raises(PosezooError, match=r"no pictures match .*\*\.webp"):
        find_images(str(tmp_path / "*.webp"))
    with pytest.raises(PosezooError, match="no such file"):
        find_images(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) uint8; for grey: np.stack"),
        (np.zeros((3, 40, 50), np.uint8), r"try image.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\) uint8; of RGBA"),
        (np.zeros((4, 4, 1), np.uint8), r"shape \(4, 4, 1\) uint8; for grey"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32; floats in 0..1: \(image \* 255\)"),
        (np.zeros((4, 4, 3), np.uint16), "uint16; of 16 bits: "),
        (b"JPEG", "but is bytes; of a file's bytes"),
        ([1, 2], "but is list"),
        (None, "but is NoneType"),
    ],
)
def test_arrays_that_are_no_image(image: object, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        check_image(image)


def test_load_picture_keeps_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, photo())
    assert load_picture(path).name == str(path)
    assert np.array_equal(load_picture(str(path)).image_rgb, photo())
    assert load_picture(photo()).name is None
    assert load_picture(Picture(photo(), "x")).name == "x"


def test_writing_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match="its suffix must be one of"):
        write_image(tmp_path / "a.txt", photo())
    with pytest.raises(PosezooError, match="70000x1"):
        write_image(tmp_path / "a.jpg", np.zeros((1, 70000, 3), np.uint8))
    (tmp_path / "file").write_text("x")
    with pytest.raises(PosezooError, match="cannot write"):
        write_image(tmp_path / "file" / "a.jpg", photo())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
