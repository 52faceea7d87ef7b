"""Which file system a path is on: the innermost mount counts."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from batchgen.machine.mounts import is_local, kind_of


def test_the_innermost_mount_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = {"/": "ext4", "/home": "nfs4", "/home/anna/scratch": "xfs", "/hom": "tmpfs"}
    listed = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: listed)
    asked = {path: kind_of(Path(path)) for path in ("/home/anna", "/home/anna/scratch/run", "/opt")}
    assert asked == {"/home/anna": "nfs4", "/home/anna/scratch/run": "xfs", "/opt": "ext4"}
    assert [is_local(kind) for kind in ("ext4", "nfs4", "fuse.sshfs", None)] == [True, False, False, False]


def test_a_machine_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(psutil, "disk_partitions", refuse)
    assert kind_of(Path("/home")) is None
