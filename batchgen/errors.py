"""The errors that batchgen raises on purpose. Each message is for a person: what is wrong, and what to do.

BatchgenError            exit code 1: something is broken
├── DiskFullError        exit code 75: there is no room to write; make room and run the same command again
├── StoreError           exit code 75: a store for copies cannot be reached, or a copy differs; nothing is lost
├── DownloadError        exit code 75: the hub does not answer, or broke off; what is fetched is kept
├── StoppedError         exit code 75: told to stop before there was anything to finish
├── UserError            exit code 2: the user's mistake; one or two lines, no traceback
│   ├── ConfigError      a key, type or value of the configuration is not valid
│   ├── PromptError      a prompt file cannot be read
│   ├── ModelError       a model is missing or not supported
│   ├── MemoryNeededError  no policy makes the job fit into the memory that is free
│   ├── DeviceError      a GPU exists but cannot be used
│   ├── MisplacedError   a path is of the wrong kind, or this user may not read or write there
│   └── ResumeError      the run directory holds something that this command would change
└── BrokenRunError       files of a run that contradict each other
"""

import errno

EXIT_WHOLE = 0
EXIT_BROKEN = 1
EXIT_USER = 2
EXIT_WHOLE_WITH_FAILURES = 3
EXIT_INTERRUPTED = 75
EXIT_RENEW = 76  # only a worker ends with it: its memory kept growing, and its launcher starts a new worker
EXIT_REFUSED = 77  # only a worker ends with it: files are broken, and another start would not change that
_MOST_CHARS = 400
# What the operating system says where a path is of the wrong kind, or forbidden. Waiting does not help.
_MISPLACED = (
    errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS
)  # fmt: skip


class BatchgenError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the process ends with."""

    exit_code = EXIT_BROKEN


class DiskFullError(BatchgenError):
    """There is no room to write, or no quota. Nothing is broken, and what is finished is kept."""

    exit_code = EXIT_INTERRUPTED


class StoreError(BatchgenError):
    """A store that copies go to cannot be reached, or did not take a file as it is. Nothing is lost."""

    exit_code = EXIT_INTERRUPTED


class DownloadError(BatchgenError):
    """The hub cannot be reached, or broke off. What is fetched is kept, and the same command goes on."""

    exit_code = EXIT_INTERRUPTED


class StoppedError(BatchgenError):
    """It was told to stop while it waited for another worker. Nothing is lost; the same command goes on."""

    exit_code = EXIT_INTERRUPTED


class UserError(BatchgenError):
    """The user's mistake. The message says what to do, and nothing was lost."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """A configuration key, type or value that is not valid."""


class PromptError(UserError):
    """A prompt file that is missing, damaged or has no prompt column."""


class ModelError(UserError):
    """A model folder that is missing, incomplete or holds a kind of model that batchgen does not run."""


class MemoryNeededError(UserError):
    """A job that no policy can fit into the memory that is free."""


class DeviceError(UserError):
    """A GPU that exists, or was asked for, but cannot be used."""


class MisplacedError(UserError):
    """A path that is of the wrong kind, such as a directory in a file's place, or that this user may not use."""


class ResumeError(UserError):
    """The run directory was made with different settings, so this command must not continue it."""


class BrokenRunError(BatchgenError):
    """Files of a run directory that contradict each other; they are never overwritten silently."""


def from_os_error(error: OSError, where: object) -> BatchgenError:
    """The error in one line for a person. `where` names its place, unless the error itself names the file."""
    # Of two names the second is the one that was to be replaced; the first is a temporary file of ours.
    path = error.filename2 or error.filename or where
    what = f"{error.strerror or error}: {path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the disk is full ({what}): make room, then the same command goes on")
    if error.errno in (errno.EISDIR, errno.ENOTDIR):
        return MisplacedError(f"{what}: something else lies where batchgen keeps its files; move it away")
    if error.errno in _MISPLACED:
        return MisplacedError(what)
    return BatchgenError(what)


def in_one_line(error: BaseException) -> str:
    """What an error says, in one line without a full stop at its end, or its kind where it says nothing.

    Libraries write whole pages; what goes beyond some lines of a terminal is left out.
    """
    said = str(error)
    if isinstance(error, KeyError):
        said = f"there is no {error.args[0]}" if error.args else ""
    words = " ".join(said.split()).rstrip(".")
    if len(words) > _MOST_CHARS:
        words = f"{words[:_MOST_CHARS].rstrip()} ..."
    return words or f"{type(error).__name__} without a message"
