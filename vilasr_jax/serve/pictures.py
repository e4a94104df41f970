"""Pictures of a request: data URLs as clients write them."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse

from PIL import Image

from vilasr_jax.errors import ImageError
from vilasr_jax.processing import image_size, load_image, smart_resize
from vilasr_jax.serve.limits import ApiError, Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_BARE = re.compile(r"[A-Za-z0-9+/_-]{64}")  # how base64 without a data URL around it begins, and no address
_BREAKS = str.maketrans("-_", "+/", "\r\n\t")  # what is deleted, and the URL-safe alphabet


def read_picture(url: str, here: str, limits: Limits) -> Image.Image:
    """The RGB image in a data URL, or in bare base64.

    Line breaks, missing padding, percent-encoding and the URL-safe alphabet are read, too. A space inside is
    refused: it is what a form makes of a "+", and without it the rest is another image.

    Raises:
      ApiError: 400, it is an address, not an image, or too large; `here` is its place in the request.
    """

    def bad(words: str, code: str = "invalid_image") -> ApiError:
        return ApiError(400, f"{here}: {words}", param=here, code=code)

    url = url.strip()
    if url[:5].lower() == "data:":
        head, comma, data = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise bad("expected data:image/...;base64,...")
    elif _BARE.match(url):
        data = url
    else:
        hint = "this server loads nothing from elsewhere; send the image itself as data:image/png;base64,..."
        raise bad(hint, "remote_image")
    try:
        raw = _decoded(data)
    except binascii.Error:
        quoted = data[:1] in ("'", '"') or data[:2] in ("b'", 'b"')
        cure = (
            " (there are quotes around it: in Python, send base64.b64encode(...).decode())" if quoted else ""
        )
        if " " in data.strip():
            cure = ' (it holds spaces: encode each "+" as %2B where a form or URL carries it)'
        raise bad(f"its base64 is broken{cure}") from None
    most = f"more than {limits.image_pixels:,} pixels; shrink it"
    try:
        width, height = image_size(raw, FORMATS)
    except ImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise bad(f"it has {most}") from None
        raise bad(f"no image that can be read ({', '.join(FORMATS)})") from None
    if width * height > limits.image_pixels:
        raise bad(f"{width} x {height} px are {most}")
    try:
        smart_resize(height, width)
        return load_image(raw, FORMATS)
    except ImageError as error:
        raise bad(str(error)) from None


def _decoded(data: str) -> bytes:
    """Bytes of base64 in either alphabet, with line breaks or without padding."""
    data = urllib.parse.unquote(data) if "%" in data else data
    plain = data.strip().translate(_BREAKS).rstrip("=").encode("ascii", "replace")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
