"""Finds the images that published rows name, in folders and in zip files, local or `gs://`."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence

from etils import epath

from vilasr_jax.errors import DataError
from vilasr_jax.tasks.importers.archives import group_archives, open_archive


class Pictures:
    """Reads images by the path a row gives.

    A relative path is looked for under each root, as it is and without its first folder. A zip file anywhere
    below `archives` counts as unpacked in its folder.
    """

    def __init__(self, roots: Sequence[epath.Path], archives: Sequence[epath.Path] = ()):
        self.roots = list(dict.fromkeys(roots))
        self._zipped: dict[str, tuple[zipfile.ZipFile, str]] = {}
        for folder in dict.fromkeys(archives):
            self._add_archives(folder)
        self._ways = [(root, short) for short in (False, True) for root in self.roots]

    def _add_archives(self, root: epath.Path) -> None:
        for path, parts in group_archives(_files(root)).items():
            archive = open_archive(path, parts)
            for name in archive.namelist():
                if not name.endswith("/"):
                    self._zipped.setdefault(str(path.parent / _clean(name)), (archive, name))

    def read(self, path: str) -> bytes:
        """The image's bytes; DataError when it is nowhere."""
        full = _clean(path)
        _, _, shorter = full.partition("/")
        for way in list(self._ways):
            root, short = way
            if short and "/" not in shorter:
                continue  # a bare file name could be anybody's
            data = self._read(root / (shorter if short else full))
            if data is not None:
                if self._ways[0] != way:  # the next row's are probably there too
                    self._ways = [way, *(other for other in self._ways if other != way)]
                return data
        looked = ", ".join(map(str, self.roots))
        raise DataError(f"image {path} is missing (looked in {looked})")

    def _read(self, path: epath.Path) -> bytes | None:
        if str(path) in self._zipped:
            archive, name = self._zipped[str(path)]
            try:
                return archive.read(name)
            except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
                raise DataError(f"image {path}: can't be unpacked ({error})") from None
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"image {path}: can't be read ({error})") from None


def _files(root: epath.Path) -> Iterator[epath.Path]:
    """Every file below a folder. `walk` of a bucket omits `gs://`, which is added here."""
    scheme = str(root).rpartition("://")[0]
    for folder, _, names in root.walk():
        place = str(folder)
        if scheme and "://" not in place:
            place = f"{scheme}://{place}"
        yield from (epath.Path(place) / name for name in names)


def _clean(path: str) -> str:
    """A relative path that stays below its root."""
    parts = posixpath.normpath(path.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
