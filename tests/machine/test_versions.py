"""The versions that are recorded with a run."""

import pytest

from batchgen.machine import versions


def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "RECORDED_VERSIONS", ("pillow", "no-such-package"))
    assert sorted(versions.versions()) == ["batchgen", "pillow", "python"]
