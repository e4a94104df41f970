"""Pictures of published rows: in folders, zip files and buckets."""

import json
import shutil
import subprocess
import zipfile

import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from tests.tasks.importers.published import question
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.tasks.importers.pictures import Pictures
from vilasr_jax.tasks.stored import StoredRows


def records(folder) -> list[bytes]:
    return [row.to_bytes() for row in StoredRows([folder])]


def test_zip_in_one_file_cut_or_split(noisy, tmp_path):
    import_data("rl", noisy, tmp_path / "plain")
    want = records(tmp_path / "plain")
    single = tmp_path / "shots.zip"
    with zipfile.ZipFile(single, "w") as archive:
        for path in sorted((noisy / "shots").iterdir()):
            archive.write(path, f"shots/{path.name}")
    shutil.rmtree(noisy / "shots")
    shutil.copy(single, noisy / "part-000.zip")
    import_data("rl", noisy, tmp_path / "full")
    assert records(tmp_path / "full") == want
    (noisy / "part-000.zip").unlink()
    data, size = single.read_bytes(), 100_000
    for number, at in enumerate(range(0, len(data), size), 1):
        (noisy / f"shots.zip.{number:03d}").write_bytes(data[at : at + size])
    import_data("rl", noisy, tmp_path / "cut")
    assert number > 2 and records(tmp_path / "cut") == want


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the zip command")
@pytest.mark.parametrize("wide", [False, True], ids=["32 bit", "64 bit"])
def test_zip_split_by_zip(noisy, tmp_path, wide):
    import_data("rl", noisy, tmp_path / "plain")
    words = ["zip", "-q", "-r", "-s", "64k", *(["-fz"] if wide else []), "shots.zip", "shots"]
    subprocess.run(words, cwd=noisy, check=True)
    shutil.rmtree(noisy / "shots")
    assert len(list(noisy.glob("shots.z0*"))) >= 3
    import_data("rl", noisy, tmp_path / "split")
    assert records(tmp_path / "split") == records(tmp_path / "plain")


def test_a_broken_zip_is_an_error(noisy, tmp_path):
    (noisy / "shots.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"shots\.zip: can't be read as a zip"):
        import_data("rl", noisy, tmp_path / "out")


def test_image_roots(noisy, tmp_path):
    import_data("rl", noisy, tmp_path / "plain")
    shutil.move(noisy / "shots", tmp_path / "elsewhere" / "shots")
    with pytest.raises(DataError, match="none of 8 rows"):
        import_data("rl", noisy, tmp_path / "lost")
    import_data("rl", noisy, tmp_path / "found", images=tmp_path / "elsewhere")
    assert records(tmp_path / "found") == records(tmp_path / "plain")
    rows = [question(n, image_path=[f"./ViLaSR-data/shots/{n}.png"]) for n in range(8)]
    (noisy / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))  # with the dataset's own name in front
    import_data("rl", noisy / "rl.jsonl", tmp_path / "named", images=tmp_path / "elsewhere")
    assert len(records(tmp_path / "named")) == 8


def test_from_a_bucket(noisy, tmp_path, monkeypatch):
    class Bucket(MemoryFileSystem):
        protocol = ("gcs", "gs")

        def __init__(self, *args, finalize_on_close=None, **kwargs):
            super().__init__(*args, **kwargs)

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("gs://"))

    bucket_in_memory = Bucket()  # epath caches the file system of an earlier test
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: bucket_in_memory)
    import_data("rl", noisy, tmp_path / "plain")
    bucket = epath.Path("gs://bucket/data")
    with zipfile.ZipFile(noisy / "some.zip", "w") as archive:
        for number in range(4, 8):
            archive.write(noisy / "shots" / f"{number}.png", f"shots/{number}.png")
            (noisy / "shots" / f"{number}.png").unlink()
    for path in [noisy / "rl.jsonl", noisy / "some.zip", *noisy.glob("shots/*")]:
        target = bucket / str(path.relative_to(noisy))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    index = import_data("rl", "gs://bucket/data", tmp_path / "fetched")
    assert index["rows"] == 8 and records(tmp_path / "fetched") == records(tmp_path / "plain")


def found(path: str, folder, *before: str) -> bytes:
    pictures = Pictures([epath.Path(folder)], [epath.Path(folder)])
    for other in before:
        pictures.read(other)
    return pictures.read(path)


def test_a_picture_depends_on_its_path_alone(tmp_path):
    for name in ("images/1.png", "maze/images/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    assert found("maze/images/1.png", tmp_path) == b"maze/images/1.png"
    assert found("maze/images/1.png", tmp_path, "vqa/images/1.png") == b"maze/images/1.png"
    assert found("vqa/images/1.png", tmp_path, "maze/images/1.png") == b"images/1.png"
    for path in ("vqa/images/2.png", "maze/images/1.png/x.png", "images/\0.png"):
        with pytest.raises(DataError):
            found(path, tmp_path)


def test_a_name_in_two_archives_is_ambiguous(tmp_path):
    for name in ("vqa", "maze"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("images/same.png", "same")
            archive.writestr("images/0.png", name)
    assert found("images/same.png", tmp_path) == b"same"
    with pytest.raises(DataError, match=r"0\.png: two archives.*vqa\.zip.*maze\.zip|maze\.zip.*vqa\.zip"):
        found("images/0.png", tmp_path)
