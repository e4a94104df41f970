"""Typed exceptions of every room.

A `UserError` is the user's to mend: the command line prints its one line and exits with code 2.
Anything else that escapes is a fault of ours and exits with code 1.
"""

STOPPED = 143  # the exit code of a run that SIGTERM stopped: 128 + 15, as a shell tells it


class Stopped(Exception):
    """The run was asked to stop (SIGTERM), and has saved what it did."""


class UserError(Exception):
    """Input that can't be used as given; the message says what, where and what to do."""


class ConfigError(UserError):
    """A configuration key or value that does not exist or does not fit."""


class DataError(UserError):
    """A data file, row or example that can't be used."""


class ImageError(DataError):
    """An image that can't be read, or has a size the model does not take."""


class TokenizerError(UserError):
    """Tokenizer files that are missing or do not carry what the model needs."""


class CheckpointError(UserError):
    """A checkpoint that is missing, broken, or of another shape than the model."""


class TrainingError(UserError):
    """Training that can't go on with these settings."""
