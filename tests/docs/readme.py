"""The documents of the repository: their code blocks, commands, links and the files that they name."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Name from the root: text. Code blocks and commands of all of them are tested, README's first.
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        *(ROOT / name for name in ("README.md", "RESULTS.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "launch" / "README.md",
    )
}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ANY_BLOCK = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(language: str) -> list[str]:
    """The blocks of a language, in order."""
    return [text for page in DOCUMENTS.values() for kind, text in _BLOCK.findall(page) if kind == language]


def modules() -> dict[str, str]:
    """The Python blocks that are a file, by its name (their first line)."""
    found = {}
    for text in blocks("python"):
        name = re.match(r"# ([\w/]+)\.py\n", text)
        if name:
            found[name.group(1)] = text
    return found


def shell_lines(*pages: str) -> list[str]:
    """The commands in the shell blocks of some documents (default: all), in order, one a line."""
    found = [
        text
        for page in pages or DOCUMENTS
        for kind, text in _BLOCK.findall(DOCUMENTS[page])
        if kind == "bash"
    ]
    lines = "\n".join(found).replace("\\\n", "").splitlines()
    return [line for line in lines if line.strip()]


def commands() -> list[list[str]]:
    """Every `vilasr ...` line of the shell blocks, and what launch scripts are given after `--`, as words."""
    words = [shlex.split(line, comments=True) for line in shell_lines()]
    launched = [line[line.index("--") + 1 :] for line in words if "--" in line]
    return [line[1:] for line in words if line and line[0] == "vilasr"] + launched


def prose(page: str) -> str:
    """A document's text without its fenced blocks."""
    return _ANY_BLOCK.sub("", DOCUMENTS[page])


def mentioned_commands() -> list[list[str]]:
    """Every `vilasr COMMAND --flags` in running text, unless an ellipsis or COMMAND is in it."""
    texts = {text for page in DOCUMENTS for text in _INLINE.findall(prose(page))}
    found = [text.split()[1:] for text in sorted(texts) if text.startswith("vilasr ") and "..." not in text]
    found = [words for words in found if words[0] != "COMMAND"]
    return [words for words in found if any(word.startswith("-") for word in words)]


def scripts() -> list[str]:
    """Every script of launch/ that a document names."""
    return sorted({name for page in DOCUMENTS.values() for name in re.findall(r"\blaunch/[\w.]*\w", page)})


def paths() -> list[tuple[str, str]]:
    """Every file or folder of the repository that a document names in running text, with the document."""
    inline = [(page, text) for page in DOCUMENTS for text in _INLINE.findall(prose(page))]
    pattern = re.compile(r"(?<![\w./])(?:vilasr_jax|tests|configs|launch|docs|notebooks)/[\w./-]*")
    return sorted(
        {(page, path) for page, text in inline for path in pattern.findall(text) if "NAME" not in path}
    )


def links() -> list[tuple[str, str]]:
    """Every relative link of a document, with the document."""
    found = [(page, link) for page in DOCUMENTS for link in _LINK.findall(prose(page))]
    return [(page, link) for page, link in found if not re.match(r"https?:", link)]


def anchors(page: str) -> set[str]:
    """The anchors of a document's headings, as they are rendered: lower case, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
