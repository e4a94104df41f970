"""The shape of the package: no circles among its files."""

import ast
from pathlib import Path

import vilasr_jax

ROOT = Path(vilasr_jax.__file__).parent


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Our modules that a file imports at the top, `from package import module` counted as the module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vilasr_jax"):
            for name in node.names:
                full = f"{node.module}.{name.name}"
                found.add(full if full in FILES else node.module)
    return found & FILES.keys()


def test_no_circle_among_files():
    ahead = {name: imports(path) - {name} for name, path in FILES.items()}
    while free := [name for name, needs in ahead.items() if not needs & ahead.keys()]:
        for name in free:
            del ahead[name]
    assert not ahead, f"these import each other: {', '.join(sorted(ahead))}"
