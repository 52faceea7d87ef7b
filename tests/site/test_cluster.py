"""The checks of a SLURM cluster, with commands that are stand-ins."""

import os
from pathlib import Path

import pytest

from batchgen.config.schema import LaunchConfig
from batchgen.machine.slurm import Limits, Partition
from batchgen.site.cluster import check_cluster, limit_findings
from batchgen.site.findings import FAIL, OK, WARN, Finding

CONFIG = """AccountingStorageType   = accounting_storage/none
JobRequeue              = 0
MaxArraySize            = 1001
"""
PARTITIONS = """PartitionName=gpu Default=YES State=UP MaxTime=1-00:00:00 DefaultTime=NONE
PartitionName=old Default=NO State=DOWN MaxTime=UNLIMITED DefaultTime=NONE
"""
SLURM = LaunchConfig(launcher="slurm", workers=8)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster that answers."""
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "partitions").write_text(PARTITIONS)
    write(tmp_path / "sbatch", "echo slurm 24.05.1")
    write(tmp_path / "scontrol", f'case "$*" in *config) cat {tmp_path}/config;; *) cat {tmp_path}/partitions;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def with_options(**options: str) -> LaunchConfig:
    return LaunchConfig(launcher="slurm", workers=8, slurm=dict(options))


def fails(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level == FAIL]


def test_a_cluster_that_answers(commands: Path) -> None:
    found = list(check_cluster(SLURM))
    said = "\n".join(one.line() for one in found)
    assert {one.level for one in found} == {OK}, said
    assert "slurm 24.05.1; no accounting, which batchgen does not need" in said
    assert "gpu* (at most 24h00m), old (no time limit)" in said
    assert "1001 elements (MaxArraySize)" in said and "JobRequeue=0" in said


def test_a_partition_that_is_not_there_or_not_up(commands: Path) -> None:
    [found] = fails(list(check_cluster(with_options(partition="gpus"))))
    assert "launch.slurm.partition=gpus" in found.what and "choose one of gpu, old" in found.advice
    assert [one.what for one in check_cluster(with_options(partition="old")) if one.level == WARN] == ["old is not up"]


def test_a_controller_that_does_not_answer(commands: Path) -> None:
    write(commands / "scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    [found] = fails(list(check_cluster(SLURM)))
    assert "Unable to contact" in found.what
    assert fails(list(check_cluster(LaunchConfig()))) == [], "nobody asked for it"


def test_a_machine_without_slurm(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(commands / "nothing"))
    assert [one.level for one in check_cluster(SLURM)] == [FAIL]
    assert [one.level for one in check_cluster(LaunchConfig())] == [OK]


def test_in_a_job_it_says_where(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("JOB_ID", "17"), ("D_NODENAME", "n4"), ("JOB_PARTITION", "gpu")):
        monkeypatch.setenv(f"SLURM{'' if name == 'D_NODENAME' else '_'}{name}", value)
    assert next(iter(check_cluster(SLURM))).what == "in job 17 on n4, partition gpu"


def test_arrays_that_are_too_large_and_no_default_partition() -> None:
    limits = Limits(max_array=4, partitions=(Partition("gpu"),))
    found = list(limit_findings(limits, SLURM))
    assert [one.level for one in found] == [WARN, OK, WARN]
    assert "8 are wanted" in found[0].what and "launch.slurm.partition=NAME" in found[2].advice
