"""Sphinx settings of the documentation site, which `bash launch/docs.sh` builds.

Its pages are the repository's Markdown files, docstrings, comments of the config and help texts.
"""

import inspect
import pkgutil
import re
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import vilasr_jax  # noqa: E402

project = "vilasr_jax"
version = release = vilasr_jax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
html_show_copyright = html_show_sphinx = False
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "launch/README.md", "docs/reference/**"]
exclude_patterns = [".venv", "runs", "build"]
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_mock_imports = ["torch", "transformers", "vllm"]
napoleon_google_docstring = True
napoleon_use_ivar = True  # so that fields that a docstring lists are described once
default_role = "code"
suppress_warnings = [
    "docutils",
    "autodoc",
    "ref.python",
    "misc.highlighting_failure",
]  # of docstrings; links are checked

SIGNS = re.compile(r"[*|]|(?<=\w)_(?!\w)")  # which Markdown reads as text here
REFERENCE = ROOT / "docs" / "reference"  # written at each build, in .gitignore
CONTENTS = """

```{toctree}
:hidden:
:caption: Guides

docs/training
docs/data
docs/your_own_pictures
docs/serving
docs/extending
launch/README
```

```{toctree}
:hidden:
:caption: Reference

RESULTS
docs/design
docs/reference/commands
docs/reference/config
docs/reference/modules
CONTRIBUTING
CHANGELOG
```
"""


def write_reference(app) -> None:
    """Writes the pages of the commands, of the config and of each module."""
    from vilasr_jax.cli import main  # noqa: F401  which registers the commands
    from vilasr_jax.commands import COMMANDS
    from vilasr_jax.config import key_comments

    REFERENCE.mkdir(exist_ok=True)
    for page in REFERENCE.iterdir():
        page.unlink()
    shown = {name: one.help for name, one in COMMANDS.items() if name != "config"}
    texts = [f"## vilasr {name}\n\n```text\n{text}\n```\n" for name, text in shown.items()]
    texts.append("`vilasr config`, whose help lists all keys, is in [Config](config.md).\n")
    (REFERENCE / "commands.md").write_text("# Commands\n\n" + "\n".join(texts))
    (REFERENCE / "config.md").write_text(config_page(list(key_comments())))
    names = ["vilasr_jax"]
    names += [module.name for module in pkgutil.walk_packages(vilasr_jax.__path__, "vilasr_jax.")]
    names = [name for name in names if not name.endswith(("__main__", "rollout_peer"))]
    for name in names:
        title = f"{name}\n{'=' * len(name)}\n\n"
        (REFERENCE / f"{name}.rst").write_text(f"{title}.. automodule:: {name}\n")
    entries = "".join(f"   {name}\n" for name in names)
    (REFERENCE / "modules.rst").write_text(f"Modules\n=======\n\n.. toctree::\n   :maxdepth: 1\n\n{entries}")


def config_page(keys: list[tuple[str, object, str]]) -> str:
    """A table of keys, defaults and comments for each section of a config."""
    parts = ["# Config\n\nEvery key and its default; `--config.KEY=VALUE` changes one.\n"]
    section = None
    for key, value, note in keys:
        name = key.rpartition(".")[0]
        if name != section:
            section = name
            parts.append(f"\n## {name or 'Job'}\n\n| key | default | |\n|---|---|---|\n")
        cells = (f"`{key}`", f"`{value!r}`", note)
        parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def add_contents(app, name, source) -> None:
    """Gives README the table of contents."""
    if name == "README":
        source[0] += CONTENTS


def escape_signs(app, what, name, obj, options, lines) -> None:
    """Docstrings are Markdown: signs that mean something else in reStructuredText are escaped."""
    for at, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [SIGNS.sub(lambda found: "\\" + found[0], part) for part in parts[::2]]
            lines[at] = "".join(parts)


def skip_imported(app, what, name, obj, skip, options):
    """A name is documented where it is defined."""
    return True if inspect.ismodule(obj) else None


def setup(app) -> None:
    """Connects the steps above."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", escape_signs, priority=400)  # before napoleon's, of 500
    app.connect("autodoc-skip-member", skip_imported)
