"""What the launch scripts in Python have in common: commands run or printed, pauses, signals, refusals."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Refused(Exception):
    """Words that can't be used as given: exit code 2."""


class Failed(Exception):
    """A command that failed, after all tries: exit code 1."""


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def listen() -> None:
    """Turns signals that end a program into `Interrupted`, so that it can clean up."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def run_main(main: Callable[[list[str]], int], name: str, hint: str) -> NoReturn:
    """Runs a script's `main` on the words of the command line, and exits with its code.

    Args:
      main: returns the exit code.
      name: of the script, for messages.
      hint: where its usage is said, after a refusal.
    """
    listen()
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as error:
        print(f"{name}: {error}; {hint}", file=sys.stderr)
        sys.exit(2)
    except Failed as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as signal:
        sys.exit(signal.code)


def say(text: str) -> None:
    """Prints a line with the time, at once; a closed terminal does not matter."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Shell:
    """Runs commands; with `dry`, prints them instead, quoted as a shell would read them."""

    def __init__(self, dry: bool):
        self.dry = dry

    def run(self, *words: str, stdin: str | None = None, timeout: float | None = None) -> int:
        """The exit code of a command whose output is shown; 124 when it is ended after `timeout` seconds."""
        if self.dry:
            print(shlex.join(words))
            return 0
        try:
            return subprocess.run(words, input=stdin, text=True, cwd=ROOT, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            say(f"{shlex.join(words[:6])} ... did not end within {timeout:g} seconds")
            return 124

    def ask(self, *words: str, timeout: float) -> tuple[int, str, str]:
        """Exit code, output and errors of a command; after `timeout` seconds 124 and what it had printed."""
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
            return done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            return 124, _text(error.stdout), f"no answer within {timeout:g} seconds"


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


class Pauses:
    """Waits that double, for tries that fail one after the other."""

    def __init__(self, first: float, longest: float = 600.0, tries: int = 20):
        self.first, self.longest, self.tries = first, longest, tries
        self.count = 0

    def reset(self) -> None:
        """After a success."""
        self.count = 0

    def wait(self, what: str) -> None:
        """Says what failed and waits.

        Raises:
          Failed: it was the last try.
        """
        self.count += 1
        if self.count >= self.tries:
            raise Failed(f"{what}; given up after {self.count} tries")
        seconds = min(self.longest, self.first * 2 ** (self.count - 1))
        say(f"{what}; next try in {seconds:g} s")
        time.sleep(seconds)


def seconds_of(name: str, default: float) -> float:
    """A number of seconds from the environment."""
    return float(os.environ.get(name) or default)


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--`, and the command after it."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def read_options(
    words: Sequence[str], options: dict[str, str], flags: Sequence[str]
) -> tuple[list[str], dict, set]:
    """Reads --NAME=VALUE for the names in `options`, which has their defaults, and --FLAG.

    Raises:
      Refused: another word that starts with a hyphen.
    """
    values, found, rest = dict(options), set(), []
    for word in words:
        name, given, value = word.removeprefix("--").partition("=")
        if not word.startswith("-"):
            rest.append(word)
        elif given and name in options:
            values[name] = value
        elif not given and name in flags:
            found.add(name)
        else:
            raise Refused(f"unknown option {word}")
    return rest, values, found
