"""What the rest of the program knows of a model family is the protocol in `models`."""

import ast
import re
from pathlib import Path

import pytest

import vilasr_jax
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import by_model_type, default_family, family_of, model_types, preset
from vilasr_jax.models.params import GROUPS, group_of
from vilasr_jax.processing.images import DEFAULT

PACKAGE = Path(vilasr_jax.__file__).parent


def test_no_module_outside_models_names_a_family():
    families = sorted(p.name for p in (PACKAGE / "models").iterdir() if (p / "family.py").exists())
    assert families == sorted(model_types())
    titles = [by_model_type(family).title for family in families]
    names = {name for text in (*families, *titles) for name in (text, re.split(r"[\W\d_]", text)[0])}
    assert "qwen" in names
    named = [
        (str(path.relative_to(PACKAGE)), name)
        for path in outside_models()
        for name in names
        if name.lower() in path.read_text().lower()
    ]
    assert not named


def test_patch_sizes_are_written_once_outside_models():
    """Other rooms read them from the family: none has a constant of its own."""
    names = ("PATCH_SIZE", "MERGE_SIZE", "PATCH_DIM", "0.48145466")
    for path in PACKAGE.rglob("*.py"):
        if "models" not in path.relative_to(PACKAGE).parts:
            assert not [name for name in names if name in path.read_text()], path


def outside_models() -> list[Path]:
    """Modules that are not of `models`."""
    paths = PACKAGE.rglob("*.py")
    return [path for path in paths if "models" not in path.relative_to(PACKAGE).parts]


def strings_and_numbers(path: Path) -> tuple[list[str], list[ast.AST]]:
    """String constants of a module that aren't docstrings, and its syntax nodes."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [
        n.value
        for n in nodes
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in said
    ]
    return texts, nodes


def test_special_tokens_are_written_in_the_family_alone():
    """But for published results, and for what a model may write in place of an end."""
    allowed = {"evaluation/results.py", "drawing/actions.py"}
    chat = default_family().chat
    tokens = [*chat.special_tokens, *chat.text_tokens, *map(chat.header, chat.roles), chat.split]
    for path in outside_models():
        name = str(path.relative_to(PACKAGE))
        texts = strings_and_numbers(path)[0] if name not in allowed else []
        assert not [(name, text, token) for text in texts for token in tokens if token in text]


def test_weights_are_found_by_the_family_alone():
    """No module outside `models` names a part of the tree of weights."""
    parts = {"language_model", "visual", "embed_tokens", "lm_head", "merger_norm", "kernel", "embedding"}
    for path in outside_models():
        named = parts & {part for text in strings_and_numbers(path)[0] for part in text.split("/")}
        assert not named, path


def test_image_units_come_from_the_family():
    """No area is written as a product of token sides, and no constant holds the side of a token."""
    units = {DEFAULT.factor, DEFAULT.patch_size, DEFAULT.factor**2}

    def unit(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) and type(node.value) is int and node.value in units

    # A task's own cells and scenes; sizes that texts state; settings of the published model.
    own = {"tasks", "drawing/sizes.py", "recipes.py"}
    for path in outside_models():
        name = path.relative_to(PACKAGE)
        if str(name) in own or name.parts[0] in own:
            continue
        for node in strings_and_numbers(path)[1]:
            if isinstance(node, ast.BinOp) and isinstance(
                node.op, ast.Mult | ast.Pow | ast.FloorDiv | ast.Mod
            ):
                assert not (unit(node.left) or unit(node.right)), f"{name}:{node.lineno}"
            if isinstance(node, ast.Assign) and any(
                getattr(t, "id", "") in ("UNIT", "ROUNDING") for t in node.targets
            ):
                assert not unit(node.value), f"{name}:{node.lineno}"


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
