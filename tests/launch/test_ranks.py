"""Which process of a group this is, from what each launcher sets."""

import os

import pytest

from batchgen.errors import UserError
from batchgen.launch.ranks import group_of, is_first_here

TORCH = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "prterun-node1-77@1",
}  # fmt: skip
HYDRA = {
    "PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4", "I_MPI_HYDRA_UUID": "f00",
}  # fmt: skip


@pytest.mark.parametrize("environ", [TORCH, SRUN, OPEN_MPI, HYDRA], ids=["torchrun", "srun", "Open MPI", "Intel MPI"])
def test_each_launcher_says_rank_and_world_and_place_on_the_machine(environ: dict[str, str]) -> None:
    group = group_of(environ)
    assert group is not None
    assert (group.rank, group.world, group.local_rank, group.local_world) == (5, 8, 1, 4)
    assert not is_first_here(environ)
    assert "/" not in group.id and " " not in group.id


def test_all_ranks_have_one_id_and_a_job_that_was_requeued_has_another() -> None:
    first, again = group_of(SRUN | {"SLURM_PROCID": "0"}), group_of(SRUN | {"SLURM_RESTART_COUNT": "1"})
    rank = group_of(SRUN)
    assert first is not None and rank is not None and again is not None
    assert first.id == rank.id == "slurm-41.0.0" and again.id == "slurm-41.0.1"


def test_torchrun_within_srun_counts_by_torchrun() -> None:
    group = group_of(SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"} | TORCH)
    assert group is not None and (group.rank, group.world) == (5, 8)


def test_a_name_that_may_come_again_is_told_apart_on_one_machine_by_the_parent() -> None:
    here = group_of(TORCH | {"WORLD_SIZE": "4", "RANK": "1"})
    assert here is not None and here.is_unique and str(os.getppid()) in here.id
    spread = group_of(TORCH)
    assert spread is not None and not spread.is_unique and str(os.getppid()) not in spread.id
    named = group_of(TORCH | {"TORCHELASTIC_RUN_ID": "3dc770af-1143-461e-84fd-8bd870f439a7"})
    assert named is not None and named.is_unique


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "41", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # a batch script is no step
        SRUN | {"SLURM_STEP_NUM_TASKS": "1"},
        TORCH | {"WORLD_SIZE": "1", "RANK": "0"},
        {"RANK": "1", "WORLD_SIZE": "2"},  # names that anybody may use
        TORCH | {"RANK": "one"},
    ],
    ids=["nothing", "batch script", "one task", "one process", "no address", "no number"],
)
def test_who_was_started_alone_has_no_group(environ: dict[str, str]) -> None:
    assert group_of(environ) is None
    assert is_first_here(environ)


def test_a_rank_uses_one_gpu_of_those_that_it_sees() -> None:
    group = group_of(TORCH)
    assert group is not None
    share = group.share(["0", "1", "2", "3"])
    assert (share.devices, list(share.ranks), share.world, share.here) == (["1"], [5], 8, 4)
    assert group.share(["GPU-7"]).devices == ["GPU-7"]  # the launcher gave it one
    assert group.share([]).devices == []


def test_ranks_of_mpi_without_a_common_name_are_refused_over_machines_only() -> None:
    nameless = {key: value for key, value in HYDRA.items() if key != "I_MPI_HYDRA_UUID"}
    with pytest.raises(UserError, match="no common name: start them with srun or torchrun"):
        group_of(nameless)
    assert is_first_here(nameless)
    here = group_of(nameless | {"PMI_SIZE": "4", "PMI_RANK": "1"})
    assert here is not None and here.is_unique
