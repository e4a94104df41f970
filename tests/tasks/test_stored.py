"""Stored rows: bytes and index."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vilasr_jax.errors import DataError
from vilasr_jax.tasks.stored import StoredRow, read_index


def test_a_broken_index_is_an_error(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DataError, match="no finished rows"):
        read_index(tmp_path)


@settings(deadline=None)
@given(st.text(), st.lists(st.binary(max_size=20), max_size=4), st.lists(st.text(max_size=9), max_size=3))
def test_a_stored_row_is_read_as_it_was_written(question, images, options):
    row = StoredRow(
        "1",
        question,
        "B",
        "free-form",
        tuple(options),
        tuple(images),
        "vqa",
        {"a": [1]},
        ({"role": "user", "content": question},),
    )
    if question.isprintable():
        assert StoredRow.from_bytes(row.to_bytes()) == row
