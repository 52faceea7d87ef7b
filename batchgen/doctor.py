"""Check a site before the night: this machine, its disk, its GPUs, the model, the cluster. Nothing is left behind.

python -m batchgen.doctor [job=NAME] [key=value ...]
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from batchgen.__main__ import compose
from batchgen.config.compose import NO_PROMPTS, load_any
from batchgen.config.schema import Config
from batchgen.console import open_console, typed_as
from batchgen.dry_run import collect
from batchgen.errors import DeviceError, UserError
from batchgen.files import to_json
from batchgen.launch.deadline import deadline, settled
from batchgen.machine.gpus import find_gpus
from batchgen.models.editions import keep_edition
from batchgen.paths import RunDir
from batchgen.site import cluster, devices, disk, material
from batchgen.site.findings import FAIL, OK, WARN, Check, Finding, code_of, findings
from batchgen.units import duration

_JOB_LIMIT_S = 120.0
_TOLD = ("prompts", "rejects", "time", "disk", "rounds")  # of what a dry run says
_HELP = """\
usage: {command} [job=NAME] [key=value ...]

Checks this machine before a night, one line each (ok, warn or FAIL), with the settings of the command that is to make
the run. Without a job it checks the bundled model and the working directory. Nothing is left on the disk.
The exit code is 0 unless a line says FAIL.

  {command} job=NAME                        the job, the disk of its run, this machine
  srun -p gpu {command} job=NAME            the same on a node of the partition gpu
  {command} job=NAME launch=slurm           also what the cluster allows
  {command} job=NAME dry_run=json           one JSON object"""


def main() -> None:
    """The command line. Ends the process with the exit code."""
    open_console()
    if "--help" in sys.argv or "-h" in sys.argv:
        print(_HELP.format(command=typed_as("doctor")))
        return
    compose(_settled, _doctor)


def _settled(composed: Any) -> Config:
    return load_any(composed, "doctor")


def _doctor(config: Config) -> int:
    has_job = config.job.prompts != NO_PROMPTS
    found = []
    for check in checks(config, has_job):
        for finding in findings(check):
            found.append(finding)
            if config.dry_run != "json":
                print(finding.line(), flush=True)
    code = code_of(finding.level for finding in found)
    if config.dry_run == "json":
        print(to_json({"findings": [asdict(finding) for finding in found], "exit_code": code}))
    return code


def checks(config: Config, has_job: bool) -> list[Check]:
    """The checks for a job, or for a site without one, in the order in which they are told."""
    run_dir = Path(config.run_dir)
    is_array = config.launch.launcher == "slurm"
    many = is_array or (config.launch.workers or 2) > 1
    return [
        Check("run files", lambda: disk.check_commit(run_dir, many)),
        Check("disk", lambda: disk.check_room(run_dir)),
        Check("clock", lambda: disk.check_clock(run_dir)),
        Check("host", devices.check_host),
        Check("GPUs", lambda: devices.check_gpus(expected=not is_array), 3 * 10.0),
        Check("torch", devices.check_torch, devices.TORCH_LIMIT_S),
        Check("model", lambda: material.check_model_files(config.model, config.job.scheduler), material.MODEL_LIMIT_S),
        Check("cache", material.check_cache),
        Check("scratch", lambda: material.check_scratch(config)),
        Check("copies", lambda: material.check_copies(config.output.copy_to), material.COPY_LIMIT_S),
        Check("SLURM", lambda: cluster.check_cluster(config.launch), cluster.LIMIT_S),
        *([Check("job", lambda: _check_job(config), _JOB_LIMIT_S)] if has_job else []),
    ]


def _check_job(config: Config) -> Iterator[Finding]:
    """What a dry run says of the job: whether its prompts can be read, and whether it fits into disk and time."""
    run_dir = RunDir(Path(config.run_dir))
    config = keep_edition(run_dir, config)
    is_array = config.launch.launcher == "slurm"
    try:
        gpus = [] if is_array else find_gpus()
    except DeviceError:
        gpus = []  # which is told
    workers = config.launch.workers or len(gpus) or 1
    stop_at = settled(config.launch, time.time())
    config = replace(config, dry_run=True, launch=replace(config.launch, workers=workers, stop_at=stop_at))
    try:
        lines, refused = collect(run_dir, config, gpus)
    except UserError as error:
        yield Finding(FAIL, "job", str(error))
        return
    yield Finding(OK, "job", "; ".join(f"{one.label} {one.text}" for one in lines if one.label in _TOLD and one.text))
    yield from (Finding(WARN, "job", one.text) for one in lines if one.label == "warning")
    needs_s = next((one.values["time_s"] for one in lines if one.values.get("time_s")), None)
    ends = None if is_array else deadline(config.launch, os.environ, time.time())
    if ends is not None and needs_s is not None and time.time() + needs_s > ends.at_s:
        said = f"it is not over by then: {ends.why}, and the job takes about {duration(needs_s)}"
        yield Finding(WARN, "job", said, "the same command goes on another time")
    if refused is not None:
        yield Finding(FAIL, "job", str(refused))


if __name__ == "__main__":
    main()
