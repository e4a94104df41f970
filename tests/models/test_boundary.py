"""What the rest of the program knows of a model family is the protocol in `models`."""

from pathlib import Path

import pytest

import vilasr_jax
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import by_model_type, default_family, family_of, model_types, preset
from vilasr_jax.models.params import GROUPS, group_of

PACKAGE = Path(vilasr_jax.__file__).parent


def test_no_module_outside_models_names_a_family():
    families = [path.name for path in (PACKAGE / "models").iterdir() if (path / "family.py").exists()]
    assert families == list(model_types())
    named = [
        (str(path.relative_to(PACKAGE)), family)
        for path in PACKAGE.rglob("*.py")
        for family in families
        if "models" not in path.relative_to(PACKAGE).parts and family in path.read_text()
    ]
    assert not named


def test_patch_sizes_are_written_once_outside_models():
    """Other rooms take them from the family: none has a constant of its own."""
    names = ("PATCH_SIZE", "MERGE_SIZE", "PATCH_DIM", "0.48145466")
    for path in PACKAGE.rglob("*.py"):
        if "models" not in path.relative_to(PACKAGE).parts:
            assert not [name for name in names if name in path.read_text()], path


def test_a_config_finds_its_family():
    assert family_of(preset("tiny")) is by_model_type("qwen2_5_vl") is default_family()
    with pytest.raises(ConfigError, match=r"'other' does not exist; choose one of .*qwen2_5_vl"):
        by_model_type("other")


@pytest.mark.parametrize(
    "path, group",
    [
        (("visual", "blocks", "qkv", "kernel"), "vision"),
        (("visual", "merger", "fc1", "kernel"), "merger"),
        (("visual", "deepstack_mergers", "fc1", "kernel"), "merger"),
        (("language_model", "layers", "q_proj", "kernel"), "language"),
        (("lm_head", "kernel"), "language"),
    ],
)
def test_weights_are_grouped_by_their_place_in_the_tree(path, group):
    assert group_of(path) == group and group in GROUPS
