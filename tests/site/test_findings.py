"""How checks are run: one that hangs or fails is a finding, and keeps nobody."""

import threading
import time
from collections.abc import Iterator

from batchgen.site.findings import FAIL, OK, WARN, Check, Finding, code_of, findings


def test_a_finding_is_one_line() -> None:
    assert Finding(OK, "disk", "90 GiB free").line() == "ok    disk         90 GiB free"
    assert Finding(FAIL, "disk", "full", "make room").line() == "FAIL  disk         full: make room"


def test_a_check_that_hangs_is_told_with_what_it_found_before() -> None:
    forever = threading.Event()

    def hang() -> Iterator[Finding]:
        yield Finding(OK, "disk", "it is there")
        forever.wait()

    began_s = time.monotonic()
    found = findings(Check("disk", hang, 0.2))
    forever.set()
    assert time.monotonic() - began_s < 10
    assert [one.level for one in found] == [OK, FAIL] and "not over after 0.2 s" in found[1].what


def test_a_check_that_fails_is_a_finding() -> None:
    def fail() -> list[Finding]:
        raise RuntimeError("no such\nthing")

    assert findings(Check("model", fail)) == [Finding(FAIL, "model", "no such thing")]


def test_only_a_fail_makes_the_exit_code() -> None:
    assert (code_of([OK, WARN]), code_of([OK, FAIL, WARN]), code_of([])) == (0, 1, 0)
