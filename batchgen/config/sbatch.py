"""The options of sbatch as a configuration holds them: their names, and those that batchgen sets itself. Pure."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from batchgen.errors import ConfigError

# Long options of sbatch, and of pyxis; a site may have more of its own, and sbatch decides.
_KNOWN = """
account acctg-freq bb bbf batch begin chdir cluster-constraint comment constraint container container-entrypoint
container-env container-image container-mount-home container-mounts container-name container-readonly
container-remap-root container-save container-workdir container-writable contiguous core-spec cores-per-socket
cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude exclusive export
export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres
gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu
mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu
ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe partition power prefer priority profile
propagate qos quiet reboot reservation signal sockets-per-node spread-job switches thread-spec threads-per-core time
time-min tmp uid use-min-nodes verbose wckey
"""
KNOWN = frozenset(_KNOWN.split())
# Those that people also write without launch.slurm before them.
_BARE = "account constraint cpus-per-task exclude gpus-per-node gpus-per-task gres mail-type mail-user mem nodelist"
BARE = frozenset([*_BARE.split(), "partition", "qos", "reservation", "time"])
GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres")
# Of these the job that checks the run has no use, since it takes no GPU.
ONLY_FOR_GPUS = (*GPU_OPTIONS, "gpu-bind", "gpu-freq", "cpus-per-gpu", "mem-per-gpu", "ntasks-per-gpu", "gres-flags")
# What batchgen sets itself, and what to set or do instead.
_OURS = {
    "array": "launch.workers and launch.workers_per_element decide how many elements there are, and launch.at_once how "
    "many of them run at once",
    "clusters": "set the variable SLURM_CLUSTERS, so that all commands of SLURM ask the same cluster",
    "error": "an element writes into one file in logs/slurm/ of the run",
    "hold": "an array is released as soon as its number is noted in the run; launch.slurm.begin starts it later",
    "input": "an element reads nothing",
    "no-requeue": "an element whose node is lost goes back into the queue; launch.requeue=false is for time limits",
    "output": "an element writes into one file in logs/slurm/ of the run",
    "parsable": "batchgen reads the number of the job itself",
    "requeue": "an element whose node is lost goes back into the queue; launch.requeue is for time limits",
    "signal": "launch.warn_s says how long before its end an element is told",
    "test-only": "dry_run=true shows what would be submitted",
    "wait": "set launch.wait=true, which shows the progress",
    "wrap": "lines that set a node up go into launch.setup",
}
_ONE = ("nodes", "ntasks")  # an element is one process on one node
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_CLOSE = 0.75


def option_name(name: str) -> str:
    """The long name of an option as sbatch has it: with dashes, which YAML and people may write as underscores."""
    return str(name).lstrip("-").replace("_", "-")


def settled(options: Mapping[str, Any]) -> dict[str, str | None]:
    """The options that are given, by their long names; None is a flag without a value.

    Null and false leave an option out, true makes it a flag.
    """
    found: dict[str, str | None] = {}
    for name, value in options.items():
        found.pop(option_name(name), None)
        if value is not None and value is not False:
            found[option_name(name)] = None if value is True else str(value)
    return found


def problem(key: str, options: Mapping[str, Any]) -> str | None:
    """What is wrong with the options in `key` (launch.slurm or launch.collector); None if nothing is."""
    for name, value in options.items():
        full, plain = f"{key}.{name}", option_name(name)
        if not _NAME.fullmatch(plain):
            return f"{full}: it is not the long name of an option of sbatch, such as {key}.partition"
        if plain in _OURS:
            return f"{full}: batchgen sets this option itself: {_OURS[plain]}"
        if plain in _ONE and value is not None and str(value) != "1":
            return f"{full}={value}: an element of the array is one process on one node; jobs/srun.sbatch takes several"
        if isinstance(value, dict | list | tuple):
            return f"{full}: it must be one value, as sbatch takes it, such as {key}.{plain}=VALUE"
        if any(ord(char) < 32 for char in str(value)):
            return f"{full}: it holds a line break or a control character; write it in one line"
    return None


def require_right(key: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError for options that batchgen sets itself or that no sbatch could take."""
    if (told := problem(key, options)) is not None:
        raise ConfigError(told)


def meant_options(name: str) -> list[str]:
    """The known options that are spelt nearly like one that is not known, the best first; [] for a known one."""
    plain = option_name(name)
    return [] if plain in KNOWN or plain in _OURS else difflib.get_close_matches(plain, KNOWN, n=2, cutoff=_CLOSE)
