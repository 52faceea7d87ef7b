"""What the system says, as one line for a person."""

import errno
import os

import pytest

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_USER, from_os_error, in_one_line


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_breaks_nothing_and_says_what_to_do(code: int) -> None:
    error = from_os_error(OSError(code, os.strerror(code)), "outputs/mars")
    assert error.exit_code == EXIT_INTERRUPTED
    assert str(error) == (
        f"the disk is full ({os.strerror(code)}: outputs/mars): make room, then the same command goes on"
    )


def test_other_errors_name_the_file_where_it_is_known() -> None:
    error = from_os_error(OSError(errno.EIO, "Input/output error", "outputs/mars/work"), "outputs/mars")
    assert (error.exit_code, str(error)) == (EXIT_BROKEN, "Input/output error: outputs/mars/work")


@pytest.mark.parametrize("code", [errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EROFS])
def test_a_path_of_the_wrong_kind_or_a_forbidden_one_is_the_users_mistake(code: int) -> None:
    error = from_os_error(OSError(code, os.strerror(code), "run/leases/.0.tmp", None, "run/leases/0"), "run")
    assert error.exit_code == EXIT_USER
    assert str(error).startswith(f"{os.strerror(code)}: run/leases/0")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such\n  thing."), "no such thing"),
        (KeyError("config.json"), "there is no config.json"),
        (ImportError(""), "ImportError without a message"),
        (KeyError(), "KeyError without a message"),
        (OSError("x" * 1000), "x" * 400 + " ..."),
    ],
)
def test_every_error_has_words(error: Exception, words: str) -> None:
    assert in_one_line(error) == words
