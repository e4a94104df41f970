"""The `vilasr` command: a module per group of commands, a thin function per command.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 stopped by
Ctrl-C, 143 stopped by SIGTERM or Ctrl-C after saving.
"""

from __future__ import annotations

import os
import sys

from absl import logging

from vilasr_jax import __version__, ctrl_c

# Each registers its commands; `vilasr help` lists them in this order.
# isort: off
from vilasr_jax.cli import train, ask, data, convert, show, bench  # noqa: F401

# isort: on
from vilasr_jax.commands import find_command, help_text, listing
from vilasr_jax.errors import INTERRUPTED, STOPPED, Stopped, UserError


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script.

    Args:
      argv: the words, the program's first; None: those of this process, whose second Ctrl-C then ends it.
    """
    if argv is None:
        ctrl_c.watch()
        argv = sys.argv
    sys.path.append(os.getcwd())  # for the user's tasks, tools and model sizes
    logging.set_verbosity(logging.WARNING)
    try:
        code = _run(argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"vilasr: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("vilasr: stopped by Ctrl-C", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Stopped as stopped:
        print(f"vilasr: {stopped}, and saved; the same command resumes it", file=sys.stderr)
        code = STOPPED
    sys.exit(code)


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(f"vilasr {__version__}")
        return 0
    if text := help_text(argv):
        print(text)
        return 0
    found, rest = find_command(argv)
    if found is None:
        print(
            f"{listing()}\n\n`vilasr COMMAND --help` says more about one, `vilasr --version` which this is."
        )
        return 0 if argv else 2
    found.function(*found.parse(rest))
    return 0
