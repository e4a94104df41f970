"""Pictures: reading, sizes, patches and where they sit."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vilasr_jax.errors import ImageError
from vilasr_jax.processing import image_size, load_image, patch_layout, patchify, resize_image, smart_resize


def noise(width, height, mode="RGB", seed=0):
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[..., 0], mode=mode)


def encoded(image, format="PNG", **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, format, **kwargs)
    return buffer.getvalue()


def test_load_image_turns_by_exif_and_puts_transparency_on_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert load_image(encoded(noise(40, 20), exif=exif)).size == (20, 40)
    clear = load_image(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert clear.mode == "RGB" and clear.getpixel((3, 3)) == (255, 255, 255)
    path = tmp_path / "grey.png"
    noise(9, 5, "L").save(path)
    assert load_image(path).mode == load_image(str(path)).mode == "RGB"


def test_load_image_names_what_it_could_not_read(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded(noise(40, 20))[:200])
    for source, words in [
        (tmp_path / "none.png", "no such image"),
        (broken, "broken.png: can't be read"),
        (b"not a picture", "13 bytes: can't be read"),
        (tmp_path, "can't be read"),
    ]:
        with pytest.raises(ImageError, match=words) as caught:
            load_image(source)
        assert "\n" not in str(caught.value)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_smart_resize_stays_within_its_limits(height, width):
    low, high = 28 * 28 * 4, 28 * 28 * 256
    if max(height, width) / min(height, width) > 200:
        with pytest.raises(ImageError, match="too narrow"):
            smart_resize(height, width, min_pixels=low, max_pixels=high)
        return
    new_height, new_width = smart_resize(height, width, min_pixels=low, max_pixels=high)
    assert new_height % 28 == new_width % 28 == 0 and min(new_height, new_width) >= 28
    assert new_height * new_width >= low
    if min(new_height, new_width) > 28:  # a side can't be less than one merged token
        assert new_height * new_width <= high
    again = smart_resize(new_height, new_width, min_pixels=low, max_pixels=high)
    if new_height * new_width <= high:
        assert again == (new_height, new_width)


def test_resize_leaves_a_picture_of_the_right_size_alone():
    image = noise(140, 84)
    assert resize_image(image) is image
    assert resize_image(noise(141, 83)).size == (140, 84)
    assert resize_image(noise(141, 83), max_pixels=28 * 28 * 4).size[0] < 140


def test_a_picture_of_unfit_size_or_mode_is_refused():
    with pytest.raises(ImageError, match="a multiple of 28"):
        patchify(noise(29, 28))
    with pytest.raises(ImageError, match="mode L"):
        patchify(noise(28, 28, "L"))


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_each_patch_holds_the_pixels_of_its_place(rows, columns, seed):
    image = noise(28 * columns, 28 * rows, seed=seed)
    patches, grid = patchify(image)
    pos_hw, window_ids, image_ids = patch_layout(grid)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = (np.asarray(image) / 255 - mean) / std
    assert grid == (1, 2 * rows, 2 * columns) and len(patches) == len(pos_hw) == 4 * rows * columns
    for patch, (row, column), window in zip(patches, pos_hw, window_ids, strict=True):
        place = pixels[14 * row : 14 * row + 14, 14 * column : 14 * column + 14].transpose(2, 0, 1)
        for frame in range(2):
            np.testing.assert_allclose(patch.reshape(3, 2, 14, 14)[:, frame], place, atol=1e-5)
        windows_across = -(-2 * columns // 8)
        assert window == row // 8 * windows_across + column // 8 + 1
    assert (image_ids == 1).all()
    merged = pos_hw.reshape(-1, 4, 2) // 2  # the four patches of a merged token are neighbours
    assert (merged == merged[:, :1]).all()


def test_patchify_writes_in_place_and_leaves_the_rest():
    image = noise(56, 28)
    out = np.full((12, 1176), 7, np.float32)
    patches, _ = patchify(image, out=out)
    assert np.shares_memory(patches, out) and (out[8:] == 7).all()
    np.testing.assert_array_equal(patches, patchify(image)[0])


def test_layout_of_a_clip_gives_every_frame_its_own_segments():
    pos_hw, window_ids, image_ids = patch_layout((3, 10, 4))
    assert pos_hw.shape == (120, 2) and not pos_hw.flags.writeable
    np.testing.assert_array_equal(image_ids, np.repeat([1, 2, 3], 40))
    assert sorted(set(window_ids)) == [1, 2, 3, 4, 5, 6]
    assert [len(set(window_ids[image_ids == frame])) for frame in (1, 2, 3)] == [2, 2, 2]


# ------------------------------------------------------------------------------------------------------------
# metadata
# ------------------------------------------------------------------------------------------------------------


def tiff(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of a JPEG: entries (tag, type, count, value)."""
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    data, at = b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        place = struct.pack("<I", at + len(data)) if len(value) > 4 else value.ljust(4, b"\0")
        head += struct.pack("<HHI", tag, kind, count) + place
        data += value if len(value) > 4 else b""
    return b"Exif\0\0" + head + struct.pack("<I", 0) + data


def jpeg(exif: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 30, 30)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def png(*chunks: tuple[bytes, bytes], last: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG file with chunks after its header, and one before its end."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    out = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 30, 30)).save(out, "PNG")
    raw, more = out.getvalue(), b"".join(chunk(*each) for each in chunks)
    return raw[:33] + more + raw[33:-12] + (chunk(*last) if last else b"") + raw[-12:]


TURNED = (0x0112, 3, 1, struct.pack("<H", 6))
EXIF = (b"eXIf", tiff(TURNED)[6:])
LARGE_TEXT = b"prompt\0\0" + zlib.compress(bytes(4 << 20))
METADATA = {
    "junk in a jpeg": (jpeg(b"Exif\0\0junk"), (90, 60)),
    "an orientation that does not exist": (jpeg(tiff((0x0112, 3, 1, struct.pack("<H", 9)))), (90, 60)),
    "turned": (jpeg(tiff(TURNED)), (60, 90)),
    "turned, a tag out of range": (jpeg(tiff(TURNED, (0x011A, 10, 1, struct.pack("<ii", -1, 0)))), (60, 90)),
    "turned, a value beyond the end": (
        jpeg(tiff(TURNED)[:-4] + struct.pack("<HHII", 271, 2, 400, 9)),
        (60, 90),
    ),
    "junk in a png": (png((b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03")), (90, 60)),
    "nothing in a png": (png((b"eXIf", b"")), (90, 60)),
    "a large text": (png((b"zTXt", LARGE_TEXT)), (90, 60)),
    "a large text at the end": (png(last=(b"zTXt", LARGE_TEXT)), (90, 60)),
    "a broken colour profile": (png((b"iCCP", b"name\0\0junk")), (90, 60)),
    "turned, a large text": (png((b"zTXt", LARGE_TEXT), EXIF), (60, 90)),
    "turned, a large text at the end": (png(EXIF, last=(b"zTXt", LARGE_TEXT)), (60, 90)),
    "many texts": (png(*[(b"tEXt", b"k\0" + bytes(3 << 20))] * 24), (90, 60)),
}


@pytest.mark.parametrize("name", METADATA)
def test_pictures_with_damaged_or_large_metadata_are_read(name, tmp_path):
    data, size = METADATA[name]
    (tmp_path / "picture").write_bytes(data)
    for source in (data, tmp_path / "picture"):
        assert load_image(source).size == image_size(source) == size
    assert abs(np.asarray(load_image(data)).astype(int) - (200, 30, 30)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=tiff((0x0112, 3, 1, struct.pack("<H", orientation))))
    with Image.open(out) as image:
        expected = ImageOps.exif_transpose(image)
    assert np.array_equal(load_image(out.getvalue()), expected)
    assert image_size(out.getvalue()) == expected.size


def test_a_large_file_that_is_no_picture_is_not_read_fully(tmp_path, monkeypatch):
    (tmp_path / "model.bin").write_bytes(bytes(1 << 20))
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ImageError, match="model"):
        load_image(tmp_path / "model.bin")


def test_only_the_named_formats_are_read():
    out = io.BytesIO()
    Image.new("RGB", (30, 30)).save(out, "TIFF")
    assert load_image(out.getvalue()).size == image_size(out.getvalue()) == (30, 30)
    for read in (load_image, image_size):
        with pytest.raises(ImageError):
            read(out.getvalue(), ("PNG",))
