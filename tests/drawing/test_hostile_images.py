"""Pictures that are broken, huge or odd: each is a clear error or a right result, and can be drawn on."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ImageError
from vilasr_jax.processing import load_image, resize_image

ITEM = '{"index": 1, "bbox_2d": [4, 4, 80, 50], "label": "x"}'
BOX = f"<think> a </think> Action: Object Mapper\n```json\n[{ITEM}]\n```"


def picture(mode: str = "RGB", size=(60, 40)) -> Image.Image:
    """Red on the left, white on the right."""
    image = Image.new("RGB", size, "white")
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: red belongs on top
    return encoded(picture(), "JPEG", exif=exif, quality=95)


def wide16() -> bytes:
    grey = np.zeros((40, 60), np.uint16)
    grey[:, 30:] = 65535
    grey[:, :30] = 32768
    return encoded(Image.fromarray(grey), "PNG")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encoded(picture(), "PNG")[:60], "can't be read"),
        (encoded(picture(size=(600, 400)), "JPEG")[:3000], "can't be read"),
        (b"", "can't be read"),
        (bytes(range(256)) * 20, "can't be read"),
        (bomb(60_000, 60_000), "can't be read"),
        (bomb(12_000, 12_000), "more than 134,217,728 pixels"),
        (encoded(picture(), "GIF")[:40], "can't be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_and_huge_files_are_refused_at_once(data, words):
    start = time.process_time()
    with pytest.raises(ImageError, match=words) as caught:
        load_image(data)
    assert time.process_time() - start < 0.5 and "\n" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path):
    real = tmp_path / "real.png"
    picture().save(real)
    link, loop, gone, pipe = (tmp_path / name for name in ("link.png", "loop.png", "gone.png", "pipe.png"))
    link.symlink_to(real)
    assert load_image(link).tobytes() == picture().tobytes()
    loop.symlink_to(loop)
    gone.symlink_to(tmp_path / "nothing.png")
    os.mkfifo(pipe)
    device = tmp_path / "device.png"
    device.symlink_to("/dev/zero")
    for path, words in ((loop, "loop.png"), (gone, "no such"), (pipe, "a regular"), (device, "a regular")):
        with pytest.raises(ImageError, match=words):
            load_image(path)


ODD = {
    "cmyk jpeg": (encoded(picture("CMYK"), "JPEG", quality=95), (60, 40)),
    "animated gif": (
        encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "blue")] * 3),
        (60, 40),
    ),
    "palette": (encoded(picture("P"), "PNG"), (60, 40)),
    "transparent": (encoded(picture("RGBA"), "WEBP", lossless=True), (60, 40)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_read_right(name):
    data, size = ODD[name]
    image = load_image(data)
    assert image.size == size and image.mode == "RGB"
    for at, color in (((10, 20), (255, 0, 0)), ((50, 20), (255, 255, 255))):
        assert np.abs(np.subtract(image.getpixel(at), color)).max() < 12
    check_drawing(image)


def test_exif_turns_and_16_bits_scale():
    image = load_image(rotated())
    assert image.size == (40, 60)
    assert image.getpixel((20, 10))[1] < 30 and image.getpixel((20, 50))[1] > 220
    grey = load_image(wide16())
    assert [grey.getpixel((x, 20)) for x in (10, 50)] == [(128, 128, 128), (255, 255, 255)]
    for image in (Image.fromarray(np.full((4, 4), value)) for value in (np.float32(0.5), np.int32(128))):
        assert load_image(image).getpixel((1, 1))[0] in (127, 128)


def test_the_smallest_and_the_longest_picture():
    check_drawing(load_image(encoded(Image.new("RGB", (1, 1)), "PNG")))
    with pytest.raises(ImageError, match="20000 x 1 px is too narrow"):
        resize_image(load_image(encoded(Image.new("RGB", (20_000, 1)), "PNG")))
    check_drawing(load_image(Image.new("RGB", (5_600, 28))))


def check_drawing(image: Image.Image) -> None:
    """The picture goes through a conversation, in every style."""
    image = resize_image(image)
    for style in ("clear", "published", "maze"):
        session = DrawingSession([image], "?", settings=DrawingSettings(style=style))
        assert session.step(BOX).drawn == 1
        assert session.images[1].size == image.size and session.images[1].tobytes() != image.tobytes()
