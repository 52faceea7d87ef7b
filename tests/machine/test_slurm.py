"""What the commands of SLURM print is read, and a cluster that does not answer holds nobody up."""

import os
import time

import pytest

from batchgen.machine import slurm
from batchgen.machine.slurm import Element, RefusedError, SlurmError, SlurmMissingError

CONFIG = """Configuration data as of 2026-11-27T06:13:41
AccountingStorageHost   = localhost
MaxArraySize            = 1001
MaxJobCount             = 10000
"""
PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL Default=YES QoS=N/A DefaultTime=01:00:00 MaxNodes=UNLIMITED MaxTime=1-00:00:00 \
MinNodes=0 State=UP TotalCPUs=16
PartitionName=old AllowGroups=ALL Default=NO QoS=N/A DefaultTime=NONE MaxTime=UNLIMITED State=DOWN
"""
QUEUE = """\
12_0|RUNNING|None|node1|2026-11-27T06:13:41|gpu
12_1|PENDING|JobHeldUser||N/A|gpu
12_2|COMPLETING|None|node2|2026-11-27T06:13:41|gpu
13|PENDING|Dependency|(null)|N/A|cpu
"""


def test_the_queue_is_read():
    first, held, ending, check = slurm.parse_queue(QUEUE)
    assert first == Element("12_0", "RUNNING", "", "node1", "2026-11-27T06:13:41", "gpu")
    assert (held.is_held, held.is_live, held.job, held.start) == (True, True, "12", "")
    assert (ending.is_live, ending.is_ending) == (False, True)
    assert (check.job, check.node, check.reason) == ("13", "", "Dependency")
    assert slurm.parse_queue("") == []


def test_the_limits_are_read():
    limits = slurm.parse_limits(CONFIG, PARTITIONS)
    assert (limits.max_array, limits.max_jobs) == (1001, 10_000)
    default, old = limits.partition(None), limits.partition("old")
    assert default is not None and old is not None
    assert (default.name, default.max_time_s, default.default_time_s, default.is_up) == ("gpu", 86_400, 3600, True)
    assert (old.max_time_s, old.default_time_s, old.is_up) == (None, None, False)
    assert limits.partition("nowhere") is None
    assert slurm.parse_limits("", "").max_array is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("30:15", 1815), ("08:00:00", 28_800), ("1-0", 86_400), ("1-02:30", 95_400),
        ("2-00:00:05", 172_805), ("UNLIMITED", None), ("NONE", None), ("soon", None), ("", None),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_means_them(text, seconds):
    assert slurm.time_s(text) == seconds


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("sbatch: error: invalid partition specified: nix\nsbatch: error: Batch job submission failed: Invalid "
         "partition name specified", RefusedError, "specified: nix; Invalid partition name specified"),
        ("sbatch: unrecognized option '--nixx=3'\nTry \"sbatch --help\" for more information", RefusedError,
         "sbatch: unrecognized option '--nixx=3'"),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates "
         "accounting/QOS policy (job submit limit, user's size and/or time limits)", SlurmError,
         "the queue takes no more jobs now"),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", SlurmError, "does not answer"),
        ("sbatch: fatal: Could not establish a configuration source", RefusedError, "not set up for a cluster"),
        ("", RefusedError, "sbatch: it failed"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_one_line(said, kind, told):
    error = slurm.refusal("sbatch", said)
    assert isinstance(error, kind)
    assert told in str(error) and len(str(error).splitlines()) == 1


def command(folder, name, text, monkeypatch):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_hanging_command_is_ended(tmp_path, monkeypatch):
    command(tmp_path, "squeue", "exec sleep 60", monkeypatch)
    with pytest.raises(SlurmError, match="squeue got no answer from SLURM within 0.3 s"):
        slurm.call("squeue", limit_s=0.3)


def test_sbatch_that_waits_for_room_is_ended_at_once(tmp_path, monkeypatch):
    waits = "echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying' >&2; exec sleep 60"
    command(tmp_path, "sbatch", waits, monkeypatch)
    began_s = time.monotonic()
    with pytest.raises(SlurmError, match="the queue of this cluster is full"):
        slurm.submit("#!/bin/sh\n")
    assert time.monotonic() - began_s < 30


def test_a_job_is_submitted_by_its_text(tmp_path, monkeypatch):
    command(tmp_path, "sbatch", f'cat >{tmp_path}/given; echo "$@" >{tmp_path}/options; echo "12;cluster"', monkeypatch)
    assert slurm.submit("#!/bin/sh\ntrue\n", "--hold") == "12"
    assert (tmp_path / "given").read_text() == "#!/bin/sh\ntrue\n"
    assert (tmp_path / "options").read_text() == "--parsable --hold\n"
    command(tmp_path, "sbatch", "echo no number", monkeypatch)
    with pytest.raises(SlurmError, match="printed no number"):
        slurm.submit("#!/bin/sh\n")


def test_jobs_that_the_queue_has_forgotten_are_left_out(tmp_path, monkeypatch):
    known = 'if [ "$5" = 12 ]; then echo "12_0|RUNNING|None|n|N/A|gpu"; exit; fi'
    forgotten = f"{known}; echo Invalid job id specified >&2; exit 1"
    command(tmp_path, "squeue", forgotten, monkeypatch)
    assert [one.id for one in slurm.live(["12", "7"])] == ["12_0"]
    assert slurm.live(["7"]) == []
    assert slurm.live([]) == []


def test_an_element_that_is_put_back_into_the_queue_is_counted(tmp_path, monkeypatch):
    """squeue says COMPLETING of it for a moment, as it does of one that is over."""
    ending = f"echo x >>{tmp_path}/asked; state=COMPLETING; [ $(wc -l <{tmp_path}/asked) -gt 2 ] && state=PENDING"
    command(tmp_path, "squeue", f'{ending}; echo "12_0|$state|None|n|N/A|gpu"', monkeypatch)
    assert [one.state for one in slurm.live(["12"])] == ["PENDING"]


def test_an_element_that_never_ends_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_SETTLE_S", 0.3)
    command(tmp_path, "squeue", 'echo "12_0|COMPLETING|None|n|N/A|gpu"', monkeypatch)
    assert slurm.live(["12"]) == []


@pytest.mark.parametrize(("states", "refused"), [("idle mix alloc", True), ("idle drain", False), ("down*", False)])
def test_what_no_node_can_run_is_refused_unless_nodes_are_away(tmp_path, monkeypatch, states, refused):
    said = "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1"
    command(tmp_path, "sbatch", said, monkeypatch)
    command(tmp_path, "sinfo", f"printf '%s\\n' {states}", monkeypatch)
    if refused:
        with pytest.raises(RefusedError, match="node configuration is not available"):
            slurm.doubt("#!/bin/sh\n")
    else:
        assert "not available" in str(slurm.doubt("#!/bin/sh\n"))


def test_without_slurm_it_is_said_where_to_go(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not slurm.is_here()
    for act in (slurm.require_here, slurm.limits, lambda: slurm.cancel(["1"])):
        with pytest.raises(SlurmMissingError, match="start this on a login node"):
            act()
