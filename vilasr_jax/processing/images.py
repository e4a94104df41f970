"""Pictures to patches, pixel for pixel as transformers' PIL image processor does it.

Host side, NumPy and Pillow only. An image becomes RGB (`load_image`), is resized so that both sides are
multiples of the model's factor (`resize_image`), and is cut into patches in merge-block order (`patchify`).
Sizes and pixel statistics are those of a model family (`models.ImageSpec`), those of the default family
where none is named.
"""

import functools
import io
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from vilasr_jax.errors import ImageError, is_machine_fault
from vilasr_jax.files import mistaken_for
from vilasr_jax.models import ImageSpec, default_family
from vilasr_jax.models.family import Grid

MAX_ASPECT_RATIO = 200
MAX_PIXELS = 1 << 27  # of a file that is read: 134 million, 0.4 GB once it is RGB
DEFAULT = default_family().images  # where nothing names a model family

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG_METADATA = (_PNG_TEXTS, (*_PNG_TEXTS, b"eXIf"))  # what to read a file without: its rotation goes last
_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

T = TypeVar("T")


def load_image(
    source: str | os.PathLike | bytes | Image.Image, formats: Sequence[str] | None = None
) -> Image.Image:
    """Reads an image (path, encoded bytes or PIL image) as RGB, EXIF-rotated, transparency on white.

    Damaged or large metadata does not matter: an image whose orientation can't be read is not turned.
    `formats` are those of Pillow's that a file may have; None: all.

    Raises:
      ImageError: the source is missing, truncated, not an image, or larger than `MAX_PIXELS`.
      MemoryError, OSError: the machine failed, which says nothing about the image.
    """
    return _opened(source, _to_rgb, formats)


def image_size(source: str | os.PathLike | bytes, formats: Sequence[str] | None = None) -> tuple[int, int]:
    """The (width, height) that `load_image` gives an image, from its header.

    Raises:
      ImageError: the header can't be read.
    """
    return _opened(source, _turned_size, formats)


def _turned_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) > 4 else (width, height)


def check_image(source: str | os.PathLike | bytes) -> None:
    """Decodes an image with as little work as possible.

    Raises:
      ImageError: `load_image` could not read it.
    """

    def use(image: Image.Image) -> None:
        _check_area(image)
        image.draft("RGB", (1, 1))  # of a JPEG: an eighth of each side
        image.load()

    _opened(source, use)


def _opened(
    source: str | os.PathLike | bytes | Image.Image,
    use: Callable[[Image.Image], T],
    formats: Sequence[str] | None = None,
) -> T:
    """What `use` makes of the opened image; ImageError for whatever is wrong with it."""
    try:
        if isinstance(source, Image.Image):
            return use(source)
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise OSError("it isn't a regular file")  # a pipe or device could block for ever
        faults: list[Exception] = []
        for data in _with_less_metadata(source):
            try:
                file = io.BytesIO(data) if isinstance(data, bytes) else data
                with Image.open(file, formats=None if formats is None else tuple(formats)) as image:
                    return use(image)
            except Exception as error:  # large texts in a PNG: Pillow refuses the file
                if is_machine_fault(error):
                    raise
                faults.append(error)
        raise faults[0]
    except FileNotFoundError:
        raise ImageError(f"{_name(source)}: no such image file") from None
    except Exception as error:  # PIL's decoders raise many types on broken files
        if is_machine_fault(error):
            raise
        reason = mistaken_for(_head(source)) or _one_line(error)
        raise ImageError(f"{_name(source)}: can't be read as an image ({reason})") from error


def _name(source: str | os.PathLike | bytes | Image.Image) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def _head(source: str | os.PathLike | bytes | Image.Image) -> bytes:
    """The first bytes of an image's file; none where it can't be read."""
    if isinstance(source, Image.Image | bytes):
        return source if isinstance(source, bytes) else b""
    try:
        with open(source, "rb") if stat.S_ISREG(os.stat(source).st_mode) else io.BytesIO() as file:
            return file.read(512)
    except OSError:
        return b""


def _with_less_metadata(source: str | os.PathLike | bytes) -> Iterator[str | os.PathLike | bytes]:
    """The source as it is, and of a PNG file that has metadata its bytes with ever less of it."""
    yield source
    if not _head(source).startswith(_PNG):
        return
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    for names in _PNG_METADATA:
        bare = _without_chunks(data, names)
        if len(bare) < len(data):
            data = bare
            yield data


def _without_chunks(data: bytes, names: Sequence[bytes]) -> bytes:
    """A PNG file without the chunks of these names."""
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])  # length, name, body, checksum
        if data[at + 4 : at + 8] not in names:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it can't be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # damaged EXIF: the pixels are fine
        if is_machine_fault(error):
            raise
        return 1
    return value if value in _TURNS else 1


def _check_area(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} px are more than {MAX_PIXELS:,} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    _check_area(image)
    turn = _TURNS[_orientation(image)]
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: PIL would cut, not scale
        return _to_8_bits(image).convert("RGB")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits, or floats: 0 to 65,535 (to 255 or 1 where nothing is more) become 0 to 255."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    most = next((top for top in (1, 255) if image.mode in ("I", "F") and grey.max(initial=0) <= top), 65535)
    return Image.fromarray(np.clip(np.round(grey * (255 / most)), 0, 255).astype(np.uint8))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def smart_resize(
    height: int,
    width: int,
    factor: int = DEFAULT.factor,
    min_pixels: int = DEFAULT.min_pixels,
    max_pixels: int = DEFAULT.max_pixels,
) -> tuple[int, int]:
    """The (height, width) an image is resized to: multiples of `factor`, the area within the two limits.

    Raises:
      ImageError: an empty image, or one side more than 200 times the other.
    """
    if min(height, width) < 1:
        raise ImageError(f"an image of {width} x {height} px is empty")
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_ASPECT_RATIO:
        raise ImageError(
            f"an image of {width} x {height} px is too narrow: its sides differ {ratio:g} times, at most "
            f"{MAX_ASPECT_RATIO} are allowed; crop or pad it"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    if new_height < factor or new_width < factor:
        raise ImageError(
            f"an image of {width} x {height} px is too small at min_pixels={min_pixels}: a side would be 0 px"
        )
    return new_height, new_width


def resize_image(
    image: Image.Image,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    spec: ImageSpec = DEFAULT,
) -> Image.Image:
    """The RGB image at its `smart_resize` size (bicubic); the same object when it already has that size."""
    width, height = image.size
    least = spec.min_pixels if min_pixels is None else min_pixels
    most = spec.max_pixels if max_pixels is None else max_pixels
    new_height, new_width = smart_resize(height, width, spec.factor, least, most)
    if (new_height, new_width) == (height, width):
        return image
    return image.resize((new_width, new_height), Image.Resampling.BICUBIC)


def image_grid(image: Image.Image, spec: ImageSpec = DEFAULT) -> Grid:
    """The (frames, patch rows, patch columns) of an already resized image; see `size_grid`."""
    return size_grid(image.size, spec)


def size_grid(size: tuple[int, int], spec: ImageSpec = DEFAULT) -> Grid:
    """The grid of an already resized image of this (width, height).

    Raises:
      ImageError: a side is not a positive multiple of `spec.factor` px.
    """
    (width, height), factor = size, spec.factor
    if width % factor or height % factor or not width or not height:
        raise ImageError(
            f"an image of {width} x {height} px has a side that isn't a multiple of {factor}; resize it first"
        )
    return 1, height // spec.patch_size, width // spec.patch_size


@functools.cache
def _pixel_table(spec: ImageSpec) -> np.ndarray:
    """Normalised value of each byte, [3, 256] float32, rounded step by step as transformers does."""
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = (np.asarray(values, np.float32)[:, None] for values in (spec.mean, spec.std))
    return (scaled - mean) / std


def patchify(
    image: Image.Image, out: np.ndarray | None = None, spec: ImageSpec = DEFAULT
) -> tuple[np.ndarray, Grid]:
    """Cuts an already resized RGB image into normalised patches.

    Args:
      image: RGB, sides multiples of `spec.factor` px.
      out: C-contiguous [>= p, d] float32 array whose first p rows are written (a row of a batch), or None.
      spec: patch sizes and pixel statistics; d is its `patch_dim`.

    Returns:
      patches [p, d] float32, the patches of a merged token next to each other, a patch being (channel, frame,
      y, x) with the frame repeated; and the grid (1, rows, columns), p = rows * columns.
    """
    grid = image_grid(image, spec)
    count = grid[1] * grid[2]
    if out is None:
        out = np.empty((count, spec.patch_dim), np.float32)
    write_patches(image, grid, out[:count], spec)
    return out[:count], grid


def write_patches(image: Image.Image, grid: Grid, patches: np.ndarray, spec: ImageSpec = DEFAULT) -> None:
    """Writes the normalised patches of an already resized RGB image, in the order of `patchify`.

    Args:
      image: RGB, resized.
      grid: its `image_grid`.
      patches: C-contiguous [p, d] float32, p = rows * columns; changed in place.
      spec: patch sizes and pixel statistics.

    Raises:
      ImageError: it is not RGB.
    """
    if image.mode != "RGB":
        raise ImageError(f"an image of mode {image.mode} can't be cut into patches; load_image makes it RGB")
    _, rows, columns = grid
    count = rows * columns
    size, merge = spec.patch_size, spec.merge_size
    pixels = np.asarray(image).reshape(rows // merge, merge, size, columns // merge, merge, size, 3)
    pixels = np.ascontiguousarray(
        pixels.transpose(6, 0, 3, 1, 4, 2, 5)
    )  # channel first, then merge-block order
    pixels = pixels.reshape(3, count, size * size)
    by_frame = patches.reshape(count, 3, spec.temporal_patch_size, size * size)
    for channel, table in enumerate(_pixel_table(spec)):
        by_frame[:, channel] = table[pixels[channel]][:, None]


@functools.lru_cache(maxsize=512)
def patch_layout(grid: Grid, spec: ImageSpec = DEFAULT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each patch of an image or clip sits, in `patchify`'s order.

    Args:
      grid: (frames, patch rows, patch columns).
      spec: patch, merge and window sizes.

    Returns:
      Read-only int32 arrays: pos_hw [p, 2] patch row and column; window_ids [p], from 1, one for each window
      of each frame (one for the frame where there are no windows); image_ids [p], from 1, one for each frame.
    """
    frames, rows, columns = grid
    blocks = (rows // spec.merge_size, spec.merge_size, columns // spec.merge_size, spec.merge_size)
    row, column = (
        index.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1) for index in np.mgrid[:rows, :columns]
    )
    side = max(grid) if spec.window_size is None else spec.window_size // spec.factor * spec.merge_size
    windows_across = -(-columns // side)
    windows_a_frame = -(-rows // side) * windows_across
    window_of = row // side * windows_across + column // side
    frame = np.arange(frames)[:, None]
    pos_hw = np.tile(np.stack([row, column], -1), (frames, 1)).astype(np.int32)
    window_ids = (frame * windows_a_frame + window_of + 1).reshape(-1).astype(np.int32)
    image_ids = np.repeat(frame[:, 0] + 1, rows * columns).astype(np.int32)
    for array in (pos_hw, window_ids, image_ids):
        array.flags.writeable = False
    return pos_hw, window_ids, image_ids
