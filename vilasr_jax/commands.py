"""Declarations of the command line: each command states its words, flags and help once.

From them come parsing, `vilasr COMMAND --help`, the list of `vilasr help` and README's list of commands.
"""

from __future__ import annotations

import ast
import inspect
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import config_flags

from vilasr_jax.config import config_keys, new_key, split_config_path
from vilasr_jax.errors import ConfigError, did_you_mean

Function = Callable[[list[str], Any], None]
_HELP_WORDS = ("-h", "--help", "--helpshort", "--helpfull")


@dataclass(frozen=True)
class Flag:
    """A flag of a command, of its default's type: None is a string, a list has commas between its words.

    Attributes:
      value: the placeholder in the help text; empty for a flag that is on or off.
      required: the command can't run without it.
      choices: the words that it accepts.
      short: a one-letter name.
      writes: "file" or "folder" where it names one that is written.
    """

    name: str
    value: str
    help: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    short: str | None = None
    writes: str = ""

    @property
    def usage(self) -> str:
        """How it is written, such as "--out=DIR"."""
        return f"--{self.name}={self.value}" if self.value else f"--{self.name}"

    def define(self, values: absl_flags.FlagValues, argv: list[str]) -> None:
        """Adds it to the flags that are parsed."""
        options: dict[str, Any] = dict(help=self.help, flag_values=values, short_name=self.short)
        if self.name == "config":
            config_flags.DEFINE_config_file(self.name, None, self.help, values, sys_argv=argv)
        elif self.choices:
            absl_flags.DEFINE_enum(self.name, self.default, self.choices, **options)
        else:
            _DEFINE[type(self.default)](self.name, self.default, **options)

    def check_writable(self, path: Path) -> None:
        """Raises ConfigError where its folder, or the folder of its file, can't be written."""
        if "://" in str(path) or (path.exists() and path.is_dir() != (self.writes == "folder")):
            return  # what is there is refused, with its reason, by whoever opens it
        folder = path if self.writes == "folder" else path.parent
        while not folder.exists():
            folder = folder.parent
        try:
            with tempfile.TemporaryDirectory(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(f"--{self.name}={path}: can't be written: {error.strerror}") from error


_DEFINE: dict[type, Callable[..., Any]] = {
    type(None): absl_flags.DEFINE_string,
    str: absl_flags.DEFINE_string,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_bool,
    list: absl_flags.DEFINE_list,
}


@dataclass(frozen=True)
class Command:
    """A command: the docstring of its function is its help, the first line of that its summary.

    Attributes:
      name: one word, or two, such as "data make".
      words: its arguments that aren't flags, such as "IMAGE..." or "[DIR]".
      appendix: the end of its help text.
    """

    name: str
    words: str
    flags: tuple[Flag, ...]
    function: Function
    appendix: Callable[[], str] = lambda: ""

    @property
    def usage(self) -> str:
        """One line with all flags."""
        parts = ["vilasr", self.name, self.words]
        parts += [flag.usage for flag in self.flags if flag.required]
        parts += [f"[{flag.usage}]" for flag in self.flags if not flag.required]
        if any(flag.name == "config" for flag in self.flags):
            parts.append("[--config.KEY=VALUE ...]")
        return " ".join(part for part in parts if part)

    @property
    def help(self) -> str:
        """What `--help` prints."""
        flags = [f"  {flag.usage:24} {flag.help}" for flag in self.flags]
        parts = [self.usage, inspect.getdoc(self.function) or "", "\n".join(flags), self.appendix()]
        return "\n\n".join(parts).rstrip()

    def parse(self, argv: Sequence[str]) -> tuple[list[str], Any]:
        """The words and flag values of a command line.

        Args:
          argv: without the program and the command's name.

        Raises:
          ConfigError: an unknown flag or key, a wrong value, or too few or too many words.
        """
        full = ["vilasr", *self._with_config_files(argv)]
        values = absl_flags.FlagValues()
        for flag in self.flags:
            flag.define(values, full)
        try:
            words = values(full)[1:]
        except absl_flags.UnrecognizedFlagError as error:
            raise ConfigError(self._unknown_flag(error.flagname)) from error
        except Exception as error:  # absl, config_flags and the config file itself raise many types
            raise ConfigError(_reason(error)) from error
        self._check_words(words)
        for flag in self.flags:
            if flag.required and values[flag.name].value is None:
                raise ConfigError(f"give {flag.usage}; usage: {self.usage}")
            elif flag.writes and values[flag.name].value:
                flag.check_writable(Path(str(values[flag.name].value)))
        return words, values

    def _with_config_files(self, argv: Sequence[str]) -> list[str]:
        """The words with config files as paths that exist; raises ConfigError for unknown files and keys."""
        if all(flag.name != "config" for flag in self.flags):
            return list(argv)
        words = list(argv)
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            name = name.removeprefix("-").removeprefix("-")
            if name.startswith("config."):
                _check_key(name.partition("[")[0])
                if equals or at + 1 < len(words):
                    _check_tuple(name, value if equals else words[at + 1])
            elif name == "config" and word.startswith("-") and (equals or at + 1 < len(words)):
                file, options = split_config_path(value if equals else words[at + 1])
                words[at if equals else at + 1] = ("--config=" if equals else "") + ":".join([file, *options])
        return words

    def _check_words(self, words: Sequence[str]) -> None:
        wanted = self.words.split()
        least = sum(not word.startswith("[") for word in wanted)
        if len(words) < least:
            raise ConfigError(f"usage: {self.usage}")
        if len(words) > len(wanted) and not self.words.endswith("..."):
            extra = words[len(wanted)]
            raise ConfigError(f"unexpected word {extra!r}; flags start with --; usage: {self.usage}")

    def _unknown_flag(self, name: str) -> str:
        base = name.partition(".")[0]
        names = {base, base.removeprefix("no")}
        owners = [one.name for one in COMMANDS.values() if names & {flag.name for flag in one.flags}]
        if owners:
            return f"--{name} isn't a flag of vilasr {self.name}, but of: {', '.join(owners)}"
        near = did_you_mean(f"--{base}", [f"--{flag.name}" for flag in self.flags])
        keys = "; keys of the config are --config.KEY=VALUE, see `vilasr config --help`"
        has_config = any(flag.name == "config" for flag in self.flags)
        return f"vilasr {self.name} has no flag --{name}{near}{keys if has_config else ''}"


def _reason(error: Exception) -> str:
    """What was wrong with a command line, in one line."""
    if found := re.match(r"flag (--config=\S+): Error whilst parsing config file:", str(error)):
        last = str(error).strip().splitlines()[-1]  # of a traceback
        if last.endswith("positional arguments but 1 was given"):
            last = f"this file has no words after a colon; give {found[1].rpartition(':')[0]}"
        return f"{found[1]}: {last}"
    text = " ".join(str(error).split()) or type(error).__name__
    kinds = {"an integer": r"invalid literal for int\(\)", "a number": "could not convert string to float"}
    for kind, says in kinds.items():
        if found := re.fullmatch(rf"flag (--.*?): {says}.*", text):
            return f"{found[1]} must be {kind}"
    return text


def _check_key(key: str) -> None:
    """Raises ConfigError for a dotted key, with "config." in front, that no config has."""
    if new := new_key(key):
        raise ConfigError(f"--{key}: no such key; it is now --{new}")
    values = {f"config.{name}": value for name, value in config_keys().items()}
    if key in values or isinstance(values.get(key.rpartition(".")[0]), dict):
        return
    if any(name.startswith(f"{key}.") for name in values):
        raise ConfigError(f"--{key} is a section; `vilasr config --help` lists its keys")
    section = [name for name in values if name.rpartition(".")[0] == key.rpartition(".")[0]]
    raise ConfigError(f"--{key}: no such key{did_you_mean(key, section or values)}")


def _check_tuple(key: str, text: str) -> None:
    """Raises ConfigError, with the right form, where a key of several values is given as plain words."""
    if not isinstance(config_keys().get(key.removeprefix("config.")), tuple):
        return
    if isinstance(_literal(text), str):
        parts = [part.strip(" '\"()[]") for part in text.split(",")]
        right = tuple(_literal(part) for part in parts if part)
        raise ConfigError(f'--{key}={text}: a list of values is written --{key}="{right}"')


def _literal(text: str) -> Any:
    """The number, text, tuple or list that is written in Python's syntax; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


COMMANDS: dict[str, Command] = {}


def command(name: str, words: str, *flags: Flag, **more: Any) -> Callable[[Function], Function]:
    """Registers a function, called with the words and flag values, as a command; `more`: see `Command`."""

    def register(function: Function) -> Function:
        COMMANDS[name] = Command(name, words, flags, function, **more)
        return function

    return register


def listing() -> str:
    """Every command with its summary, one per line."""
    docs = {f"{one.name} {one.words}": inspect.getdoc(one.function) or "" for one in COMMANDS.values()}
    return "\n".join(f"vilasr {name:28}{doc.splitlines()[0]}" for name, doc in docs.items())


def find_command(argv: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command of a command line, and its other words; no command where the list is requested.

    Args:
      argv: without the program.

    Raises:
      ConfigError: there is no such command.
    """
    if not argv or argv[0] in ("help", *_HELP_WORDS):
        return None, []
    first, *rest = argv
    if first in COMMANDS:
        return COMMANDS[first], rest
    group = [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{first} ")]
    if not group:
        names = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
        raise ConfigError(f"no command {first!r}{did_you_mean(first, names)}")
    for at, word in enumerate(rest):
        if word in group:
            return COMMANDS[f"{first} {word}"], [*rest[:at], *rest[at + 1 :]]
    raise ConfigError(f"usage: vilasr {first} WHAT ...; there are: {', '.join(group)}")


def help_text(argv: Sequence[str]) -> str | None:
    """The help for a command line with --help: of a command, or of all in a group such as "data".

    Raises:
      ConfigError: there is no such command, or another word after `help COMMAND` or `COMMAND --help`.
    """
    first = bool(argv) and argv[0] == "help"
    if first:
        argv = [*argv[1:], "--help"]
    if not any(word in _HELP_WORDS for word in argv[1:]):
        return None
    group = [one.help for one in COMMANDS.values() if one.name.startswith(f"{argv[0]} ")]
    if group and len(argv) == 2:
        return "\n\n\n".join(group)
    found, rest = find_command(argv)
    if found is not None:
        at = next(at for at, word in enumerate(rest) if word in _HELP_WORDS)
        if extra := rest[:at] if first else rest[at + 1 :]:
            raise ConfigError(f"unexpected word {extra[0]!r}; give `vilasr {found.name} --help` alone")
    return found.help if found else None
