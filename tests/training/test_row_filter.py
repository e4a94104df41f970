"""Rows and examples that can't be trained on, decided before a stage begins."""

import errno
import json
from dataclasses import dataclass
from functools import partial

import pytest
from PIL import Image

from tests.tasks.stored_rows import stored_row, write_rows
from tests.training import samples
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.tasks.stored import StoredRows, folder_digest, sample_texts, write_shard
from vilasr_jax.training.row_filter import (
    SkipUnusable,
    check_sample,
    read_notes,
    sample_numbers,
    usable,
    usable_everywhere,
    usable_rows,
)


@dataclass(frozen=True)
class Item:
    id: str
    good: bool = True


def check(item: Item) -> None:
    if not item.good:
        raise DataError("too long")


def numbers(items, folder, **options):
    return usable_rows(items, check, name="config.data.questions", folder=folder, **options)


def test_a_mended_row_is_looked_at_again(tmp_path):
    bad = [Item("a"), Item("b", good=False), Item("c")]
    assert numbers(bad, tmp_path, limits={"data": "1"}) == [0, 2]
    mended = [Item("a"), Item("b"), Item("c", good=False)]
    assert numbers(mended, tmp_path, limits={"data": "1"}) == [0, 2]  # nothing says that it has changed
    assert numbers(mended, tmp_path, limits={"data": "2"}) == [0, 1]


def test_a_stage_that_has_begun_keeps_its_rows(tmp_path):
    items = [Item("a"), Item("b", good=False), Item("c")]
    numbers(items, tmp_path, limits={"room": 9})
    roomier = [Item("a"), Item("b"), Item("c")]
    assert numbers(roomier, tmp_path, limits={"room": 99}, begun=True) == [0, 2]
    note = json.loads((tmp_path / "left_out" / "questions.json").read_text())
    assert note["limits"] == {"room": 9} and note["left_out"][0]["id"] == "b"
    assert numbers(roomier, tmp_path, limits={"room": 99}) == [0, 1, 2]


def test_a_folders_digest_is_of_its_content(tmp_path):
    first = folder_digest(write_rows(tmp_path / "a", 3))
    assert folder_digest(write_rows(tmp_path / "b" / "a", 3)) == first  # wherever it is
    assert folder_digest(write_rows(tmp_path / "c", 4)) != first
    assert folder_digest(write_rows(tmp_path / "d", 3, trace=True)) != first


class Broken:
    """Rows whose reading raises."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 3

    def __getitem__(self, number):
        if number == 1:
            raise self.error
        return Item(str(number))


@pytest.mark.parametrize("error", [KeyError("role"), RuntimeError("torn chunk"), OSError("truncated")])
def test_whatever_a_row_raises_leaves_out_that_row(tmp_path, error):
    assert numbers(Broken(error), tmp_path, limits={}) == [0, 2]
    assert read_notes(tmp_path) == {"questions": {"rows": 3, "count": 1, "first": ["number 1"]}}
    fitting = SkipUnusable([samples.example(0)] * 3, lambda example: Broken(error)[1])
    with pytest.raises(DataError, match="none of 3 examples can be trained on"):
        fitting[0]
    assert isinstance(usable_everywhere(Broken(error), [0, 1], check)[1], DataError)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "disk"), MemoryError(), ConfigError("tools")])
def test_faults_of_machine_and_configuration_are_not_the_rows(tmp_path, error):
    with pytest.raises(type(error)):
        numbers(Broken(error), tmp_path, limits={})


def test_a_broken_record_is_one_row_less(tmp_path):
    folder = write_rows(tmp_path / "rows", 0)
    records = [stored_row(0).to_bytes(), b"\x09\x00\x00\x00{no json", stored_row(2).to_bytes()]
    write_shard(folder / "rows-00000.array_record", records, {})
    (folder / "index.json").write_text((folder / "index.json").read_text().replace(": 0", ": 3"))
    rows = StoredRows([folder])
    assert usable_rows(rows, lambda row: None, name="config.data.x", folder=tmp_path, limits={}) == [0, 2]
    assert len(list(sample_texts(rows))) == 8


def test_data_that_changed_under_a_begun_stage_is_refused(tmp_path):
    folders = [str(write_rows(tmp_path / name, 3)) for name in ("a", "b")]
    items = [Item("a"), Item("b", good=False), Item("c")]

    def again(**options):
        limits = {"data": "".join(map(folder_digest, folders)), **options.pop("more", {})}
        return numbers(items, tmp_path, limits=limits, folders=folders, **options)

    assert again() == [0, 2] == again(begun=True, more={"room": 9})
    write_rows(tmp_path / "b", 3, trace=True)  # as many rows
    with pytest.raises(DataError, match=r"changed since the stage began \(\S+/b\); restore it, or choose"):
        again(begun=True)
    assert again() == [0, 2]


@pytest.mark.parametrize("bad, size", [(1, 1), (3, 3), (4, 9), (31, 31)])
def test_a_small_source_is_looked_at_in_full(bad, size):
    source = [Item(str(n), good=n >= bad) for n in range(size)]
    sample = {number: usable(source, number, check) for number in sample_numbers(source)}
    assert len(sample) == size
    with pytest.raises(DataError, match=f"{bad} of {size} examples looked at can't be trained on"):
        check_sample(sample)
    check_sample({number: Item("") for number in range(size)} | ({0: DataError("")} if size > 1 else {}))


@pytest.mark.parametrize("bad, refused", [(0, False), (1, False), (20, True)])
def test_a_source_of_many_unusable_examples_is_refused(bad, refused):
    source = [Item(str(n), good=n >= bad) for n in range(40)]
    sample = {number: usable(source, number, check) for number in sample_numbers(source)}
    assert len(sample) == 32
    if not refused:
        return check_sample(sample)
    with pytest.raises(DataError, match=r"examples looked at can't be trained on; example .*too long"):
        check_sample(sample)


class Failing:
    """One row whose reading, or whose use, fails as a machine does."""

    def __init__(self, error: Exception):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int):
        raise self.error


MACHINE = (MemoryError(), OSError(errno.EIO, "input/output error"), OSError(errno.EMFILE, "too many files"))


@pytest.mark.parametrize("error", MACHINE, ids=["memory", "disk", "files"])
@pytest.mark.parametrize("place", ["reader", "open", "getexif"])
def test_a_failing_machine_removes_no_row(tmp_path, monkeypatch, error, place):
    rows = StoredRows([write_rows(tmp_path / "rows", 2)])
    use = partial(usable_rows, check=lambda row: row.row(784, 50_000), folder=tmp_path, limits={})
    if place == "reader":
        monkeypatch.setattr(rows, "_source", Failing(error))
    else:
        owner = Image if place == "open" else Image.Image
        monkeypatch.setattr(owner, place, lambda *args, **kwargs: Failing(error)[0])
    with pytest.raises(type(error)):
        use(rows, name="config.data.traces")
    assert not (tmp_path / "left_out").exists()
    monkeypatch.undo()
    assert use(rows, name="config.data.traces") == [0, 1]
