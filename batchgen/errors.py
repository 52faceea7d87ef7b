"""The errors that batchgen raises on purpose. Each message is for a person: what is wrong, and what to do.

BatchgenError            exit code 1: something is broken
├── DiskFullError        exit code 75: no room to write; with room made, the same command goes on
├── StoppedError         exit code 75: told to stop before there was anything to finish
├── UserError            exit code 2: the user's mistake; one or two lines, no traceback
│   ├── ConfigError      a key, type or value of the configuration
│   ├── PromptError      a prompt file that cannot be read
│   ├── ModelError       a model that is missing or not supported
│   ├── MemoryNeededError  a job that no policy fits into the memory there is
│   ├── DeviceError      a GPU that is there and cannot be used
│   └── ResumeError      the run directory holds something that this command would change
└── BrokenRunError       files of a run that contradict each other
"""

import errno

EXIT_WHOLE = 0
EXIT_BROKEN = 1
EXIT_USER = 2
EXIT_WHOLE_WITH_FAILURES = 3
EXIT_INTERRUPTED = 75
EXIT_RENEW = 76  # of a worker alone: its memory had grown, and whoever started it starts a new one


class BatchgenError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the process ends with."""

    exit_code = EXIT_BROKEN


class DiskFullError(BatchgenError):
    """No room to write, or no quota. Nothing is broken, and what is finished is kept."""

    exit_code = EXIT_INTERRUPTED


class StoppedError(BatchgenError):
    """Told to stop while waiting for another worker. Nothing is lost; the same command goes on."""

    exit_code = EXIT_INTERRUPTED


class UserError(BatchgenError):
    """The user's mistake. The message says what to do, and nothing was lost."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """A configuration key, type or value that is not possible."""


class PromptError(UserError):
    """A prompt file that is missing, damaged or has no prompt column."""


class ModelError(UserError):
    """A model folder that is missing, incomplete or of a kind that batchgen does not run."""


class MemoryNeededError(UserError):
    """A job that no policy can fit into the memory there is."""


class DeviceError(UserError):
    """A GPU that is there, or was asked for, and cannot be used."""


class ResumeError(UserError):
    """The run directory was made by another recipe, so this command must not go on in it."""


class BrokenRunError(BatchgenError):
    """Files of a run directory that contradict each other; they are never overwritten silently."""


def from_os_error(error: OSError, where: object) -> BatchgenError:
    """The error in one line for a person. `where` is what it was about; the error itself may know the very file."""
    what = f"{error.strerror or error}: {error.filename or where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the disk is full ({what}): make room, then the same command goes on")
    return BatchgenError(what)
