"""What a SLURM cluster allows, as far as jobs of batchgen are concerned."""

import os
import re
from collections.abc import Iterator, Mapping

from batchgen.config.sbatch import settled
from batchgen.config.schema import LaunchConfig
from batchgen.machine import slurm
from batchgen.site.findings import FAIL, OK, WARN, Finding
from batchgen.units import duration

_LIMIT_S = 8.0
_PARTITIONS_NAMED = 8
LIMIT_S = 4 * _LIMIT_S


def check_cluster(launch: LaunchConfig) -> Iterator[Finding]:
    """The commands, partitions and limits of SLURM, and where this is, if it is in a job."""
    wanted = launch.launcher == "slurm"
    if not slurm.is_here():
        advice = "start this on a login node of the cluster" if wanted else ""
        yield Finding(FAIL if wanted else OK, "SLURM", "there is no sbatch on this machine", advice)
        return
    yield from _job(os.environ)
    try:
        version = slurm.call("sbatch", "--version", limit_s=_LIMIT_S).strip()
        config = slurm.call("scontrol", "show", "config", limit_s=_LIMIT_S)
        partitions = slurm.call("scontrol", "-o", "-a", "show", "partition", limit_s=_LIMIT_S)
    except (slurm.SlurmError, slurm.SlurmMissingError, slurm.RefusedError) as error:
        yield Finding(FAIL if wanted else WARN, "SLURM", str(error))
        return
    yield Finding(OK, "SLURM", f"{version}; {_accounting(config)}")
    yield from limit_findings(slurm.parse_limits(config, partitions), launch)
    yield from _requeue(config, launch)


def _job(environ: Mapping[str, str]) -> Iterator[Finding]:
    if job := environ.get("SLURM_JOB_ID"):
        where = environ.get("SLURMD_NODENAME") or "a login node"
        yield Finding(
            OK, "SLURM", f"in job {job} on {where}, partition {environ.get('SLURM_JOB_PARTITION', 'unknown')}"
        )


def _accounting(config: str) -> str:
    kind = _stated(config, "AccountingStorageType")
    if kind in ("", "(null)", "accounting_storage/none"):
        return "no accounting, which batchgen does not need"
    return f"accounting by {kind.removeprefix('accounting_storage/')}"


def _stated(config: str, name: str) -> str:
    match = re.search(rf"^{name}\s*=\s*(.*?)\s*$", config, re.MULTILINE)
    return match[1] if match else ""


def limit_findings(limits: slurm.Limits, launch: LaunchConfig) -> Iterator[Finding]:
    """What the limits of a cluster mean for a launch."""
    most = limits.max_array
    if most is not None:
        elements = -(-(launch.workers or 1) // launch.workers_per_element)
        said = f"an array may have {most} elements (MaxArraySize)"
        if launch.launcher == "slurm" and elements > most:
            yield Finding(WARN, "SLURM", f"{said}, and {elements} are wanted", "set launch.workers_per_element higher")
        else:
            yield Finding(OK, "SLURM", said)
    named = settled(launch.slurm).get("partition")
    yield Finding(OK, "partitions", ", ".join(map(_partition, limits.partitions[:_PARTITIONS_NAMED])) or "none")
    for name in named.split(",") if named else [None]:
        found = limits.partition(name)
        if found is None and name is not None:
            known = ", ".join(one.name for one in limits.partitions)
            yield Finding(FAIL, "partitions", f"launch.slurm.partition={name} is not there", f"choose one of {known}")
        elif found is None:
            advice = "set launch.slurm.partition=NAME"
            yield Finding(WARN, "partitions", "no partition is the default one", advice)
        elif not found.is_up:
            yield Finding(WARN, "partitions", f"{found.name} is not up", "its jobs wait until it is")


def _partition(partition: slurm.Partition) -> str:
    most = "no time limit" if partition.max_time_s is None else f"at most {duration(partition.max_time_s)}"
    return f"{partition.name}{'*' if partition.is_default else ''} ({most})"


def _requeue(config: str, launch: LaunchConfig) -> Iterator[Finding]:
    may = _stated(config, "JobRequeue") not in ("0", "")
    if may or not launch.requeue:
        return
    said = "JobRequeue=0: jobs are put back into the queue only where they ask for it"
    yield Finding(OK, "SLURM", f"{said}, as those of launch=slurm do")
