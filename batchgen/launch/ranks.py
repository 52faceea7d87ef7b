"""Which process this is of those that srun, torchrun, accelerate launch or mpirun started at once."""

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from batchgen.errors import UserError
from batchgen.launch.local import Share

_FIRST_SPEAKS_S = 3.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that were started together.

    `id`: the same for all of them. `is_unique`: whether no other group ever has this id. `local_rank`: its number on
    this machine, which has `local_world` of them. `parent`: what started them here.
    """

    id: str
    is_unique: bool
    rank: int
    world: int
    local_rank: int
    local_world: int
    parent: int

    def share(self, devices: Sequence[str]) -> Share:
        """One worker on this rank's own GPU, of those that it sees."""
        own = [devices[self.local_rank % len(devices)]] if devices else []
        return Share(own, range(self.rank, self.rank + 1), self.world, self.local_world)


def group_of(environ: Mapping[str, str]) -> Group | None:
    """The group that this process was started in; None where it was started alone.

    Raises UserError where MPI does not say how the ranks on several machines find each other.
    """
    return _torch(environ) or _slurm(environ) or _mpi(environ)


def is_first_here(environ: Mapping[str, str]) -> bool:
    """Whether this process was started alone, or is the first of its group on this machine."""
    try:
        group = group_of(environ)
    except UserError:
        return True
    return group is None or not group.local_rank


def let_the_first_speak() -> None:
    """Wait until the first rank has said what is wrong: what starts ranks ends them all when one of them has ended."""
    time.sleep(_FIRST_SPEAKS_S)


def _torch(environ: Mapping[str, str]) -> Group | None:
    """torchrun, and accelerate launch, which uses it."""
    if "MASTER_ADDR" not in environ:
        return None
    group = _group(environ, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if group is None:
        return None
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    name = "torch-" + "-".join(environ.get(one, "0") for one in names)
    if _UUID.fullmatch(environ.get(names[0], "")):
        return _named(group, name, True)
    # The next command may have the same name; on one machine its ranks have another parent.
    is_here = environ.get("LOCAL_WORLD_SIZE") == environ["WORLD_SIZE"]
    return _named(group, f"{name}-{_parent()}" if is_here else name, is_here)


def _slurm(environ: Mapping[str, str]) -> Group | None:
    """srun. A batch script itself is no step, and has no number of tasks of a step."""
    group = _group(environ, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
    if group is None or not environ.get("SLURM_STEP_ID", "").isdecimal():
        return None
    tasks = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    name = "slurm-" + ".".join(environ.get(one, "0") for one in names)
    return _named(group, name, True, int(tasks[0]) if tasks else None)


def _mpi(environ: Mapping[str, str]) -> Group | None:
    """mpirun of Open MPI, MPICH and Intel MPI."""
    open_mpi = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
    others = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    group = _group(environ, *open_mpi, "OMPI_COMM_WORLD_LOCAL_SIZE") or _group(environ, *others)
    if group is None:
        return None
    names = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "I_MPI_HYDRA_UUID")
    if (name := next((environ[one] for one in names if environ.get(one)), None)) is not None:
        return _named(group, f"mpi-{name}", False)
    if group.local_world == group.world:
        return _named(group, f"mpi-{_parent()}", True)
    raise UserError(
        "this mpirun gives the ranks on several machines no common name: start them with srun or torchrun, or plan "
        "with one command and start `batchgen join RUN_DIR` on the other machines"
    )


def _group(environ: Mapping[str, str], *keys: str) -> Group | None:
    """The group by the names of its rank, size, local rank and local size; its own name is still to be found."""
    rank, world, local_rank, local_world = (environ.get(key, "") for key in keys)
    if not (rank.isdecimal() and world.isdecimal()) or int(world) < 2:
        return None
    return Group(
        "",
        False,
        int(rank),
        int(world),
        int(local_rank) if local_rank.isdecimal() else 0,
        int(local_world) if local_world.isdecimal() else int(world),
        os.getppid(),
    )


def _named(group: Group, name: str, is_unique: bool, local_world: int | None = None) -> Group:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    here = min(local_world or group.local_world, group.world)
    return replace(group, id=safe, is_unique=is_unique, local_world=here)


def _parent() -> str:
    """The process that started this one and its siblings on this machine."""
    pid = os.getppid()
    try:
        began_s = psutil.Process(pid).create_time()
    except psutil.Error:  # it has ended by now
        began_s = 0.0
    return f"{socket.gethostname()}-{pid}-{began_s:.0f}"
