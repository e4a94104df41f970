"""Finds the images that published rows name, in folders and in zip files, local or `gs://`."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence

from etils import epath

from vilasr_jax.errors import DataError, is_machine_fault
from vilasr_jax.tasks.importers.archives import group_archives, open_archive


class Pictures:
    """Reads images by the path a row gives.

    A relative path is looked for under each root as it is, then, with `shorter`, under each without its first
    folder, whatever was read before. A zip file anywhere below `archives` counts as unpacked in its folder.
    """

    def __init__(
        self, roots: Sequence[epath.Path], archives: Sequence[epath.Path] = (), shorter: bool = True
    ):
        self.roots, self.shorter = list(dict.fromkeys(roots)), shorter
        self._zipped: dict[str, tuple[zipfile.ZipFile, str, epath.Path]] = {}
        self._differing: dict[str, str] = {}  # by the path that two archives hold with other bytes
        for folder in dict.fromkeys(archives):
            self._add_archives(folder)
        self._exists: dict[epath.Path, bool] = {}  # of the first folder of a path below a root

    def _add_archives(self, root: epath.Path) -> None:
        for path, parts in group_archives(_files(root)).items():
            archive = open_archive(path, parts)
            for name in archive.namelist():
                if not name.endswith("/"):
                    place = str(path.parent / _clean(name))
                    first, member, other = self._zipped.setdefault(place, (archive, name, path))
                    old, new = first.getinfo(member), archive.getinfo(name)
                    if (old.CRC, old.file_size) != (new.CRC, new.file_size):
                        self._differing[place] = f"{other}, {path}"

    def read(self, path: str) -> bytes:
        """The image's bytes; DataError when it is nowhere."""
        if not self.shorter and posixpath.normpath(path.replace("\\", "/")).startswith("../"):
            raise DataError(f"image {path} is outside of the folder; give a path from it")
        full = _clean(path)
        _, _, shorter = full.partition("/")
        short = self.shorter and "/" in shorter  # a bare file name could be anybody's
        for name in (full, shorter) if short else (full,):
            for root in self.roots:
                data = self._read(root, name)
                if data is not None:
                    return data
        looked = ", ".join(map(str, self.roots))
        raise DataError(f"image {path} is missing (looked in {looked})")

    def _read(self, root: epath.Path, name: str) -> bytes | None:
        path = root / name
        if different := self._differing.get(str(path)):
            raise DataError(f"image {path}: two archives hold different pictures of this name ({different})")
        if str(path) in self._zipped:
            archive, member, _ = self._zipped[str(path)]
            try:
                return archive.read(member)
            except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
                if is_machine_fault(error):
                    raise
                raise DataError(f"image {path}: can't be unpacked ({error})") from None
        try:
            return path.read_bytes() if self._may_hold(root, name) else None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (OSError, ValueError) as error:  # a null character in the path is a ValueError
            if is_machine_fault(error):
                raise
            raise DataError(f"image {path}: can't be read ({error})") from None

    def _may_hold(self, root: epath.Path, name: str) -> bool:
        """Whether the first folder of a path is there; looked up once for all paths below it."""
        folder, _, rest = name.partition("/")
        if not rest:
            return True
        if root / folder not in self._exists:
            self._exists[root / folder] = (root / folder).exists()
        return self._exists[root / folder]


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
