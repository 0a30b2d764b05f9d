from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pil

from panmodal.data.pictures import MAX_BYTES, decode
from panmodal.errors import InputError


def stored(picture: Pil.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def colour_of(data: bytes) -> tuple[int, ...]:
    picture = decode(data)
    assert picture.mode == "RGB"
    return picture.getpixel((0, 0))


def near(found, expected, within=6):
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= within


def test_every_mode_becomes_rgb():
    red = Pil.new("RGB", (8, 8), (200, 30, 30))
    near(colour_of(stored(red, "JPEG")), (200, 30, 30))
    near(colour_of(stored(red.convert("CMYK"), "JPEG")), (200, 30, 30))
    near(colour_of(stored(red.convert("CMYK"), "TIFF")), (200, 30, 30))
    near(colour_of(stored(red.convert("P"), "PNG")), (200, 30, 30), 30)
    near(colour_of(stored(Pil.new("L", (8, 8), 77), "PNG")), (77, 77, 77))
    near(colour_of(stored(Pil.new("1", (8, 8), 1), "PNG")), (255, 255, 255))
    near(colour_of(stored(Pil.new("RGBA", (8, 8), (200, 30, 30, 255)), "WEBP", lossless=True)), (200, 30, 30))


def test_transparency_lies_over_white():
    near(colour_of(stored(Pil.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")), (255, 255, 255))
    near(colour_of(stored(Pil.new("RGBA", (8, 8), (0, 0, 255, 128)), "PNG")), (127, 127, 255))
    near(colour_of(stored(Pil.new("LA", (8, 8), (0, 128)), "PNG")), (127, 127, 127))
    palette = Pil.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 3 + [10, 200, 10] + [0, 0, 0] * 252)
    near(colour_of(stored(palette, "PNG", transparency=3)), (255, 255, 255))


def test_sixteen_bits_are_scaled_and_not_cut_off():
    grey = Pil.fromarray(np.full((8, 8), 0x8000, np.uint16))
    near(colour_of(stored(grey, "PNG")), (128, 128, 128))
    near(colour_of(stored(grey, "TIFF")), (128, 128, 128))
    near(colour_of(stored(Pil.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")), (128, 128, 128))
    assert colour_of(stored(Pil.fromarray(np.full((8, 8), 200, np.uint16)), "PNG"))[0] < 3  # dark, not 200


def test_a_picture_is_turned_upright():
    picture = Pil.new("RGB", (20, 10), "white")
    picture.paste((255, 0, 0), (0, 0, 10, 10))
    exif = Pil.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right-hand side
    turned = decode(stored(picture, "PNG", exif=exif))
    assert turned.size == (10, 20)
    assert turned.getpixel((5, 3)) == (255, 0, 0)


def test_of_an_animation_the_first_frame():
    frames = [Pil.new("RGB", (8, 8), c) for c in ("red", "blue")]
    near(colour_of(stored(frames[0], "GIF", save_all=True, append_images=frames[1:])), (255, 0, 0))
    near(colour_of(stored(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)), (255, 0, 0))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


def test_size_is_checked_before_decoding():
    with pytest.raises(InputError, match="pixels; the limit is 100,000,000"):
        decode(png_header(60_000, 60_000), "huge.png")
    with pytest.raises(InputError, match="12000 x 9000 pixels; the limit is 100,000,000"):
        decode(png_header(12_000, 9_000))
    with pytest.raises(InputError, match="over the limit"):
        decode(b"\0" * (MAX_BYTES + 1))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_cut_off_file_is_an_error(kind, share):
    noise = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = stored(noise, kind)
    with pytest.raises(InputError, match="cut.jpg"):
        decode(data[: int(len(data) * share)], "cut.jpg")


@pytest.mark.parametrize("data", [b"", b"hello, I am text", b"%PDF-1.7 ...", b"<svg xmlns=''/>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture(data):
    with pytest.raises(InputError):
        decode(data)


def test_what_a_picture_can_be_made_from(tmp_path):
    from panmodal import Image

    array = np.zeros((4, 6, 3), np.uint8)
    Pil.fromarray(array).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    forms = [array, Pil.fromarray(array), data, tmp_path / "a.png", str(tmp_path / "a.png")]
    forms.append(Image(data).to_json()["image_url"]["url"])
    assert len({Image(form).key for form in forms}) == 1
    assert Image(array).key != Image(array.reshape(6, 4, 3)).key  # same bytes, another arrangement
    with pytest.raises(InputError, match="not fetched"):
        Image("https://example.com/cat.jpg")
    with pytest.raises(InputError, match="uint8"):
        Image(array.astype(float)).pixels  # noqa: B018
    with pytest.raises(InputError, match="no file"):
        Image("nowhere.png").pixels  # noqa: B018
