"""What the system says, as one line for a person."""

import errno
import os

import pytest

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, from_os_error


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
