"""Declarations of the command line: each command states its words, flags and help once.

From them come parsing, `vilasr COMMAND --help`, the list of `vilasr help` and README's list of commands.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags as absl_flags
from ml_collections import config_flags

from vilasr_jax.config import new_key, split_config_path
from vilasr_jax.errors import ConfigError

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
    """

    name: str
    value: str
    help: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    short: str | None = None

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
      words: its arguments that are no flags, such as "IMAGE..." or "[DIR]".
    """

    name: str
    words: str
    flags: tuple[Flag, ...]
    function: Function

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
        return "\n".join([self.usage, "", inspect.getdoc(self.function) or "", "", *flags]).rstrip()

    def parse(self, argv: Sequence[str]) -> tuple[list[str], Any]:
        """The words and flag values of a command line.

        Args:
          argv: without the program and the command's name.

        Raises:
          ConfigError: an unknown flag or key, a wrong value, or too few or too many words.
        """
        full = ["vilasr", *argv]
        values = absl_flags.FlagValues()
        for flag in self.flags:
            flag.define(values, full)
        for word in argv:
            key = re.match(r"--?(config\.[\w.]+)", word)
            if key and (new := new_key(key[1])):
                raise ConfigError(f"--{key[1]}: no such key; it is now --{new}")
        try:
            words = values(full)[1:]
        except absl_flags.UnrecognizedFlagError as error:
            raise ConfigError(self._unknown_flag(error.flagname)) from error
        except Exception as error:  # absl, config_flags and the config file itself raise many types
            text = str(error)
            if text[:1] in ("'", '"'):  # the message of a KeyError is quoted once more
                text = f"no such key: {ast.literal_eval(text)}"
            raise ConfigError(" ".join(text.split()) or type(error).__name__) from error
        self._check_words(words)
        for flag in self.flags:
            if flag.name == "config" and values.config is not None:
                split_config_path(config_flags.get_config_filename(values["config"]))
            elif flag.required and values[flag.name].value is None:
                raise ConfigError(f"give {flag.usage}; usage: {self.usage}")
        return words, values

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
            return f"--{name} is no flag of vilasr {self.name}, but of: {', '.join(owners)}"
        return f"there is no flag --{name}; `vilasr {self.name} --help` lists the flags"


COMMANDS: dict[str, Command] = {}


def command(name: str, words: str, *flags: Flag) -> Callable[[Function], Function]:
    """Registers a function, called with the words and the flag values, as a command."""

    def register(function: Function) -> Function:
        COMMANDS[name] = Command(name, words, flags, function)
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
        raise ConfigError(f"no command {first!r}; there are: {', '.join(names)}. `vilasr help` lists them")
    for at, word in enumerate(rest):
        if word in group:
            return COMMANDS[f"{first} {word}"], [*rest[:at], *rest[at + 1 :]]
    raise ConfigError(f"usage: vilasr {first} WHAT ...; there are: {', '.join(group)}")


def help_text(argv: Sequence[str]) -> str | None:
    """The help for a command line with --help: of a command, or of all in a group such as "data"."""
    if not any(word in _HELP_WORDS for word in argv[1:]):
        return None
    group = [one.help for one in COMMANDS.values() if one.name.startswith(f"{argv[0]} ")]
    if group and len(argv) == 2:
        return "\n\n\n".join(group)
    found = find_command(argv)[0]
    return found.help if found else None
