"""Rows and examples that can't be trained on, decided before a stage begins."""

import json
from dataclasses import dataclass

import pytest

from tests.tasks.stored_rows import write_rows
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.stored import folder_digest
from vilasr_jax.training.row_filter import check_sample, sample_numbers, usable, usable_rows


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


def test_a_folders_digest_follows_its_content(tmp_path):
    first = folder_digest(write_rows(tmp_path / "a", 3))
    assert folder_digest(write_rows(tmp_path / "b" / "a", 3)) == first  # wherever it is
    assert folder_digest(write_rows(tmp_path / "c", 4)) != first
    assert folder_digest(write_rows(tmp_path / "d", 3, trace=True)) != first


@pytest.mark.parametrize("bad, refused", [(0, False), (1, False), (20, True)])
def test_a_source_of_many_unusable_examples_is_refused(bad, refused):
    source = [Item(str(n), good=n >= bad) for n in range(40)]
    sample = {number: usable(source, number, check) for number in sample_numbers(source)}
    assert len(sample) == 32
    if not refused:
        return check_sample(sample)
    with pytest.raises(DataError, match=r"examples looked at can't be trained on; example .*too long"):
        check_sample(sample)
