"""Embeds images in the report, each different one once and compressed."""

import base64
import hashlib
import io
from pathlib import Path

from PIL import Image

MAX_SIDE = 1024  # pixels; a bigger image is shrunk for the page


class ImageShelf:
    """Data URIs by key, at most `budget` bytes of them; equal files have the same key."""

    def __init__(self, budget: int = 24_000_000):
        self.uris: dict[str, str] = {}
        self.left_out = 0
        self._budget = budget
        self._known: dict[Path, str | None] = {}

    def add(self, folder: Path, name: str) -> str | None:
        """Key of the image `name` in `folder`; None when missing, unreadable, outside or one too many."""
        file = (folder / str(name)).resolve()
        if file not in self._known:
            inside = file.is_relative_to(folder.resolve()) and file.is_file()
            self._known[file] = self._embed(file) if inside else None
        return self._known[file]

    def _embed(self, file: Path) -> str | None:
        data = file.read_bytes()
        key = hashlib.sha256(data).hexdigest()[:12]
        if key in self.uris:
            return key
        if self._budget <= 0:
            self.left_out += 1
            return None
        try:
            uri = _uri(data)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        self._budget -= len(uri)
        self.uris[key] = uri
        return key


def _uri(data: bytes) -> str:
    """WebP: exact for few colours (drawings, mazes), else at a quality that hides the loss."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    few = image.getcolors(256) is not None
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=few, quality=0 if few else 85, method=0 if few else 4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
