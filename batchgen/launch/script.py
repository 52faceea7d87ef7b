"""The batch scripts of a run: of an element of its array, and of the job that checks the run at the end. Pure."""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchgen.config.sbatch import GPU_OPTIONS, ONLY_FOR_GPUS, settled
from batchgen.config.schema import LaunchConfig
from batchgen.launch.notes import logs_dir
from batchgen.paths import RunDir

_PLAIN = re.compile(r"[A-Za-z0-9_./:,=@%^+&-]+")
# Options that a variable must not set, and those whose variable has another name.
_NEVER = {"ARRAY_INX", "HOLD", "NO_REQUEUE", "OUTPUT", "ERROR", "TEST_ONLY", "WAIT", "WAIT_ALL_NODES"}
_OTHER_NAMES = {"TIME": "TIMELIMIT", "NTASKS": "NPROCS", "MEM": "MEM_PER_NODE"}
_OF_THE_SITE = ("SLURM_CONF", "SLURM_CLUSTERS")
# SLURM before 23.02 does not tell a job when it ends.
_END_TIME = """\
if [ -z "${SLURM_JOB_END_TIME:-}" ]; then
    end=$(squeue -h -j "${SLURM_JOB_ID:-}" -o %e 2>/dev/null)
    if [ -n "$end" ] && end=$(date -d "$end" +%s 2>/dev/null); then
        export SLURM_JOB_END_TIME=$end
    fi
fi"""


@dataclass(frozen=True, slots=True)
class Here:
    """Where a command was given: its interpreter, its working directory, and the name of the job it is for."""

    python: str
    directory: Path
    name: str


def element_script(run: RunDir, launch: LaunchConfig, here: Here) -> str:
    """What an element of the array runs: the set-up lines, then workers on this run."""
    options = element_options(launch)
    head: dict[str, str | None] = {"job-name": here.name}
    if (warn_s := math.ceil(launch.warn_s)) > 0:
        head["signal"] = f"B:USR1@{warn_s}"
    head |= {"requeue": None, "open-mode": "append", "output": f"{_pattern(logs_dir(run))}/%A_%a.log", **options}
    command = ["-m", "batchgen.join", str(run.root.absolute()), "--workers", str(launch.workers_per_element)]
    return _script(
        f"An element of the array that works on {run.root.name}: batchgen wrote this script and submits it.",
        head,
        [_cd(here), _END_TIME, *launch.setup, f"exec {shlex.join([here.python, *command])}"],
    )


def collector_script(run: RunDir, launch: LaunchConfig, here: Here) -> str:
    """What checks the run once an array is over. It ends with 0 if the run is whole, and leaves a note of it."""
    shared = {name: value for name, value in settled(launch.slurm).items() if name not in ONLY_FOR_GPUS}
    shared = {name: value for name, value in shared.items() if name not in ("time", "exclusive", "dependency")}
    own = settled(launch.collector)
    head = {"job-name": f"{here.name}-check", "nodes": "1", "ntasks": "1", **shared, **own}
    left_out = {name for name, value in launch.collector.items() if value is None or value is False}
    head = {name: value for name, value in head.items() if name not in left_out}
    head["output"] = f"{_pattern(logs_dir(run))}/%j-check.log"
    verify = shlex.join([here.python, "-m", "batchgen.verify", str(run.root.absolute())])
    note = shlex.quote(str(run.slurm.absolute()))
    return _script(
        f"Checks {run.root.name} once its array is over: batchgen wrote this script and submits it.",
        head,
        [
            _cd(here),
            *launch.setup,
            verify,
            "code=$?",
            f"note={note}/check-$SLURM_JOB_ID.json",
            'printf \'{"job":"%s","code":%d,"ended_at":%d}\\n\' "$SLURM_JOB_ID" "$code" "$(date +%s)" '
            '>"$note.part" && mv -f -- "$note.part" "$note"',
            "# 3: whole, though some images failed",
            'if [ "$code" = 3 ]; then code=0; fi',
            'exit "$code"',
        ],
    )


def takes_gpus(launch: LaunchConfig) -> bool:
    """Whether an element asks for GPUs."""
    return bool(element_options(launch).keys() & set(GPU_OPTIONS))


def environment(script: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment to submit a script in.

    A variable such as SBATCH_PARTITION counts more than the script for sbatch, so those of options that the script sets
    are left out, and so is what an outer job of SLURM tells its processes.
    """
    options = {
        line.removeprefix("#SBATCH --").partition("=")[0] for line in script.splitlines() if "#SBATCH --" in line
    }
    words = {option.replace("-", "_").upper() for option in options} | _NEVER
    ours = {f"SBATCH_{word}" for word in words} | {
        f"SBATCH_{_OTHER_NAMES[word]}" for word in words & _OTHER_NAMES.keys()
    }
    outer = "SLURM_JOB_ID" in environ
    return {
        name: value
        for name, value in environ.items()
        if name not in ours and not (outer and name.startswith("SLURM_") and name not in _OF_THE_SITE)
    }


def element_options(launch: LaunchConfig) -> dict[str, str | None]:
    """The options of an element: one GPU for each of its workers unless `launch.slurm` says anything of GPUs."""
    options: dict[str, str | None] = {"nodes": "1", "ntasks": "1"}
    named = {name.replace("_", "-") for name in launch.slurm}
    if not named & set(GPU_OPTIONS):
        options["gres"] = f"gpu:{launch.workers_per_element}"
    return options | settled(launch.slurm)


def _script(about: str, head: Mapping[str, str | None], lines: list[str]) -> str:
    return "\n".join(["#!/bin/bash", *_head(head), f"# {about}", "", *lines]) + "\n"


def _head(options: Mapping[str, str | None]) -> Iterator[str]:
    for name, value in options.items():
        shown = "" if value is None else f"={value if _PLAIN.fullmatch(value) else shlex.quote(value)}"
        yield f"#SBATCH --{name}{shown}"


def _pattern(folder: Path) -> str:
    """A folder in a name that SLURM fills in: % begins what it replaces, and a backslash would switch that off."""
    return str(folder.absolute()).replace("%", "%%")


def _cd(here: Here) -> str:
    return f"cd -- {shlex.quote(str(here.directory))} || exit 1"
