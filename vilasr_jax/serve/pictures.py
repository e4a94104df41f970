"""Pictures of a request: data URLs as clients write them."""

from __future__ import annotations

import base64
import binascii
import io
import re
import urllib.parse

from PIL import Image

from vilasr_jax.errors import ImageError
from vilasr_jax.processing import load_image, smart_resize
from vilasr_jax.serve.limits import ApiError, Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# Base64 without a data URL around it: long, and nothing that an address has.
_BARE = re.compile(r"[A-Za-z0-9+/_\-\s]{64,}={0,2}\s*\Z")
_SPACE = re.compile(r"\s+")


def read_picture(url: str, here: str, limits: Limits) -> Image.Image:
    """The RGB picture in a data URL, or in bare base64.

    Line breaks, missing padding, percent-encoding and the URL-safe alphabet are read, too.

    Raises:
      ApiError: 400, it is an address, no picture, or too large a one; `here` says where it stands.
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
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            width, height = opened.size
        if width * height > limits.image_pixels:
            raise ImageError(f"{width} x {height} px are more than {limits.image_pixels:,} pixels; shrink it")
        image = load_image(raw)
        smart_resize(image.height, image.width)
    except binascii.Error:
        quoted = data[:1] in ("'", '"') or data[:2] in ("b'", 'b"')
        cure = " (quotes stand around it: in Python, send base64.b64encode(...).decode())" if quoted else ""
        raise bad(f"its base64 is broken{cure}") from None
    except ImageError as error:
        raise bad(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise bad(f"no image that can be read ({', '.join(FORMATS)})") from None
    return image


def _decoded(data: str) -> bytes:
    """Bytes of base64 in either alphabet, with line breaks or without padding."""
    data = _SPACE.sub("", urllib.parse.unquote(data) if "%" in data else data).rstrip("=")
    plain = data.translate(str.maketrans("-_", "+/")).encode("ascii", "replace")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
