"""Options of sbatch: names with dashes or underscores, flags, and those that batchgen sets itself."""

import pytest

from batchgen.config.sbatch import meant_options, require_right, settled
from batchgen.errors import ConfigError


def test_names_have_dashes_flags_have_no_value_and_null_leaves_out():
    options = {"gpus_per_task": 1, "exclusive": True, "qos": None, "reboot": False, "mem": "8G", "--mem": "9G"}
    assert settled(options) == {"gpus-per-task": "1", "exclusive": None, "mem": "9G"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"array": "0-3"}, "launch.slurm.array: batchgen sets this option itself: launch.workers"),
        ({"signal": "USR1@9"}, "launch.warn_s"),
        ({"no_requeue": True}, "launch.requeue=false"),
        ({"output": "x"}, "logs/slurm/"),
        ({"wait": True}, "launch.wait=true"),
        ({"nodes": 2}, "jobs/srun.sbatch takes several"),
        ({"ntasks": "4"}, "one process on one node"),
        ({"mem": ["1G"]}, "it must be one value"),
        ({"comment": "a\nb"}, "a line break"),
        ({"two words": 1}, "not the long name of an option"),
    ],
)
def test_what_cannot_be_set_says_what_to_set(options, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        require_right("launch.slurm", options)


def test_any_other_option_is_sbatchs_affair():
    require_right("launch.slurm", {"nodes": 1, "container-image": "a/b:1", "x-of-this-site": "1", "constraint": "a&b"})


def test_the_option_that_was_meant():
    assert meant_options("partiton") == ["partition"]
    assert meant_options("gpus_per_tsk")[0] == "gpus-per-task"
    assert meant_options("partition") == meant_options("array") == meant_options("zzz") == []
