"""docs/serving.md states the limits that the code has."""

from pathlib import Path

import pytest

from vilasr_jax.config import EvalSection
from vilasr_jax.serve import Limits
from vilasr_jax.serve.parameters import READ
from vilasr_jax.serve.requests import ROLES

LIMITS, SAMPLING = Limits(), EvalSection().sampling
ROWS = {
    "parameters": [f"`n` (up to {LIMITS.samples})", f"`options` (up to {LIMITS.options})"],
    "sampling": [f"{SAMPLING.temperature:g} and {SAMPLING.top_p:g} by default"],
    "images": [f"up to {LIMITS.images} ("],
    "sizes": [
        f"up to {LIMITS.image_pixels:,} pixels",
        f"up to {LIMITS.text:,} characters",
        f"up to {LIMITS.body_bytes >> 20} MiB",
        f"arrives within {LIMITS.body_seconds:g} seconds",
        f"answered within {LIMITS.seconds:g},",
    ],
    "capacity": [f"{LIMITS.slots} conversations", f"{LIMITS.waiting} ("],
    "messages": [f"`{role}`" for role in ROLES],
}


def row(name):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    return line


@pytest.mark.parametrize("name", ROWS)
def test_the_table_states_the_limits(name):
    for words in ROWS[name]:
        assert words in row(name)


def test_the_table_names_the_parameters():
    for name in set(READ) - {"model", "messages"}:
        assert f"`{name}`" in row("parameters")
