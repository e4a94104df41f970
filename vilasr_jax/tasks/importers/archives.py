"""Zip files as they are published: in one file, split by zip itself, or cut into pieces.

- `x.zip`: one file;
- `x.z01`, `x.z02`, ..., `x.zip`: a split archive, whose offsets count from the start of their own part;
- `x.zip.001`, `x.zip.002`, ... (or `.part01`, `.aa`): one archive, cut.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import BinaryIO

from etils import epath

from vilasr_jax.errors import DataError

_PIECE = re.compile(r"(.+\.zip)\.(?:part)?(?:\d+|[a-z]{2})\Z", re.IGNORECASE)
_SPLIT = re.compile(r"(.+)\.z(\d{2,})\Z", re.IGNORECASE)
_END64 = b"PK\x06\x07"  # locator of a 64-bit archive's end; the next fields are disk, offset, disks


def group_archives(paths: Iterable[epath.Path]) -> dict[epath.Path, list[epath.Path]]:
    """Parts in order by the archive's name; files that are no part of a zip archive are left out."""
    groups: dict[epath.Path, list[epath.Path]] = {}
    for path in sorted(paths, key=lambda path: (str(path.parent), len(path.name), path.name)):
        piece, split = _PIECE.match(path.name), _SPLIT.match(path.name)
        if piece:
            groups.setdefault(path.parent / piece[1], []).append(path)
        elif split:
            groups.setdefault(path.parent / f"{split[1]}.zip", []).append(path)
        elif path.suffix.lower() == ".zip":
            groups.setdefault(path, []).append(path)
    for name, parts in groups.items():
        if name in parts:  # the last part of a split archive, or the only file of another
            parts.sort(key=lambda part: part == name)
    return groups


def open_archive(name: epath.Path, parts: Sequence[epath.Path]) -> zipfile.ZipFile:
    """Opens an archive of one or more parts; DataError when it can't be read."""
    try:
        files = [part.open("rb") for part in parts]
        if len(files) == 1:
            return zipfile.ZipFile(files[0])
        joined = _Joined(files)
        archive = zipfile.ZipFile(io.BufferedReader(joined))
        if name in parts:
            _count_from_start(archive, joined.starts)
        return archive
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{name}: can't be read as a zip archive of {len(parts)} parts ({error})") from None


def _count_from_start(archive: zipfile.ZipFile, starts: Sequence[int]) -> None:
    """Makes the offsets of a split archive count from its beginning. zipfile assumes that the part with the
    directory holds every file.
    """
    assumed = starts[bisect_right(starts, archive.start_dir) - 1]
    for member in archive.infolist():
        member.header_offset += starts[member.volume] - assumed
        if hasattr(member, "_end_offset"):  # newer versions check that files do not overlap
            member._end_offset = None


class _Joined(io.RawIOBase):
    """Files read as one. In a 64-bit archive's end record it sets one disk, as zipfile refuses more."""

    def __init__(self, files: Sequence[BinaryIO]):
        sizes = [file.seek(0, io.SEEK_END) for file in files]
        *self.starts, self._size = accumulate(sizes, initial=0)
        self._files, self._at = files, 0
        self._locator = None
        tail = max(0, self._size - (1 << 16) - 100)
        self.seek(tail)
        found = self.read().rfind(_END64)
        self.seek(0)
        if found >= 0:
            self._locator = tail + found

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        if self._at >= self._size:
            return 0
        number = bisect_right(self.starts, self._at) - 1
        file, start = self._files[number], self._at
        file.seek(start - self.starts[number])
        data = file.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        if self._locator is not None:
            fields = {4: 0, 16: 1}  # disk of the end record, and how many disks
            for at, value in fields.items():
                self._overlay(view[: len(data)], start, self._locator + at, struct.pack("<I", value))
        return len(data)

    @staticmethod
    def _overlay(view: memoryview, start: int, at: int, value: bytes) -> None:
        for number, byte in enumerate(value):
            if 0 <= at + number - start < len(view):
                view[at + number - start] = byte
