"""Exceptions used across the package.

The command line prints one line for a `UserError` and exits with code 2.
Any other exception is our fault and exits with code 1.
"""

import difflib
import errno
from collections.abc import Iterable

INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended: 128 + SIGINT
STOPPED = 143  # the exit code of a run that saved its state and stopped: 128 + SIGTERM, as in a shell
# what the operating system says of a path itself, and of a file whose content names a wrong place in it
_PATH_FAULTS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)


class Stopped(Exception):
    """The run got a stop request (SIGTERM, Ctrl-C) and has saved its state."""


class UserError(Exception):
    """Input that can't be used as given; the message says what, where and what to do."""


class ConfigError(UserError):
    """A configuration key or value that does not exist or does not fit."""


class DataError(UserError):
    """A data file, row or example that can't be used."""


class ImageError(DataError):
    """An image that can't be read, or has a size that the model does not accept."""


class TokenizerError(UserError):
    """Tokenizer files that are missing or do not carry what the model needs."""


class CheckpointError(UserError):
    """A checkpoint that is missing, broken, or of another shape than the model."""


class MissingCheckpointError(CheckpointError):
    """A checkpoint that is not there, or can't be reached."""


class TrainingError(UserError):
    """Training that can't continue with these settings."""


def is_machine_fault(error: BaseException) -> bool:
    """Whether an error is the machine's, such as no memory or a failing disk, and not the read data's."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _PATH_FAULTS
    return isinstance(error, MemoryError)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The end of a message about a word that does not exist: the most similar name, or all names.

    >>> did_you_mean("stpes", ["steps", "batch"]), did_you_mean("x", ["steps", "batch"])
    ('; did you mean steps?', '; there are: steps, batch')
    """
    choices = list(names)
    near = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(choices)}"
