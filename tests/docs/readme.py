"""The code blocks of README.md."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The blocks of a language, in order."""
    return [text for kind, text in _BLOCK.findall(README) if kind == language]


def modules() -> dict[str, str]:
    """The Python blocks that are a file, by its name (their first line)."""
    found = {}
    for text in blocks("python"):
        name = re.match(r"# ([\w/]+)\.py\n", text)
        if name:
            found[name.group(1)] = text
    return found


def commands() -> list[list[str]]:
    """Every `vilasr ...` line of the shell blocks, as words."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.strip()]
    return [line[1:] for line in words if line and line[0].removeprefix(".venv/bin/") == "vilasr"]


def scripts() -> list[str]:
    """Every script of launch/ that the README names."""
    return sorted(set(re.findall(r"launch/[\w.]+", README)))
