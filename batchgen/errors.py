"""The errors that batchgen raises on purpose. Each message is for a person: what is wrong, and what to do.

BatchgenError            exit code 1: something is broken
├── UserError            exit code 2: the user's mistake; one or two lines, no traceback
│   ├── ConfigError      a key, type or value of the configuration
│   ├── PromptError      a prompt file that cannot be read
│   ├── ModelError       a model that is missing or not supported
│   └── ResumeError      the run directory holds something that this command would change
└── BrokenRunError       files of a run that contradict each other
"""

EXIT_WHOLE = 0
EXIT_BROKEN = 1
EXIT_USER = 2
EXIT_WHOLE_WITH_FAILURES = 3
EXIT_INTERRUPTED = 75


class BatchgenError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the process ends with."""

    exit_code = EXIT_BROKEN


class UserError(BatchgenError):
    """The user's mistake. The message says what to do, and nothing was lost."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """A configuration key, type or value that is not possible."""


class PromptError(UserError):
    """A prompt file that is missing, damaged or has no prompt column."""


class ModelError(UserError):
    """A model folder that is missing, incomplete or of a kind that batchgen does not run."""


class ResumeError(UserError):
    """The run directory was made by another recipe, so this command must not go on in it."""


class BrokenRunError(BatchgenError):
    """Files of a run directory that contradict each other; they are never overwritten silently."""
