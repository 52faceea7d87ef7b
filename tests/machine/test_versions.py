"""The versions that are recorded with a run."""

import pytest

from batchgen.machine.versions import versions


def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RECORDED_VERSIONS", ("pillow", "no-such-package"))
    assert sorted(versions()) == ["batchgen", "pillow", "python"]
