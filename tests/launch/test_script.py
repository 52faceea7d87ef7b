"""The batch scripts: options as sbatch reads them, lines as bash does, and nothing that a path could break."""

import subprocess
from pathlib import Path

import pytest

from batchgen.config.schema import LaunchConfig
from batchgen.launch.script import Here, collector_script, element_script, environment
from batchgen.paths import RunDir

HERE = Here("/opt/my venv/bin/python", Path("/home/a user"), "mars")
RUN = RunDir(Path("/data/my runs/100%"))


def head(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def test_an_element_has_our_options_and_then_the_users():
    launch = LaunchConfig(
        warn_s=89.5, slurm={"partition": "gpu", "gpus_per_task": 1, "exclusive": True, "qos": None, "reboot": False}
    )
    assert head(element_script(RUN, launch, HERE)) == [
        "--job-name=mars",
        "--signal=B:USR1@90",
        "--requeue",
        "--open-mode=append",
        "--output='/data/my runs/100%%/logs/slurm/%A_%a.log'",
        "--nodes=1",
        "--ntasks=1",
        "--partition=gpu",
        "--gpus-per-task=1",
        "--exclusive",
    ]


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({}, ["--gres=gpu:4"]),
        ({"gpus-per-node": 4}, ["--gpus-per-node=4"]),
        ({"gres": "gpu:a100:4"}, ["--gres=gpu:a100:4"]),
        ({"gres": None}, []),
    ],
)
def test_an_element_has_a_gpu_for_each_worker_unless_gpus_are_named(options, gpus):
    told = head(element_script(RUN, LaunchConfig(workers_per_element=4, slurm=options), HERE))
    assert [line for line in told if "gpu" in line] == gpus


def test_no_warning_is_no_signal():
    assert not [line for line in head(element_script(RUN, LaunchConfig(warn_s=0), HERE)) if "signal" in line]


@pytest.mark.parametrize("script", [element_script, collector_script])
def test_bash_takes_the_script(script, tmp_path):
    text = script(RUN, LaunchConfig(setup=["module load cuda", "export A='x y'"]), HERE)
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    assert "module load cuda\nexport A='x y'\n" in text
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run_script(tmp_path, text, **environment):
    return subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, check=False, cwd="/",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment},
    )  # fmt: skip


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_element_knows_when_it_ends_and_where_it_is(tmp_path):
    (tmp_path / "a dir").mkdir()
    python = program(tmp_path / "my python", 'echo "$SLURM_JOB_END_TIME|$PWD|$A|$*"')
    program(tmp_path / "squeue", "echo 2026-01-02T03:04:05")
    here = Here(python, tmp_path / "a dir", "mars")
    text = element_script(RUN, LaunchConfig(setup=["export A=set"], workers_per_element=2), here)
    end, where, setup, arguments = run_script(tmp_path, text, TZ="UTC", SLURM_JOB_ID="5").stdout.strip().split("|")
    assert (end, where, setup) == ("1767323045", str(tmp_path / "a dir"), "set")
    assert arguments == "-m batchgen.join /data/my runs/100% --workers 2"
    # What SLURM says itself counts, and where nothing says it there is none.
    assert run_script(tmp_path, text, SLURM_JOB_END_TIME="7").stdout.startswith("7|")
    program(tmp_path / "squeue", "echo N/A")
    assert run_script(tmp_path, text).stdout.startswith("|")


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (3, 0), (75, 75), (1, 1)])
def test_the_check_ends_with_0_only_if_the_run_is_whole_and_leaves_a_note(tmp_path, code, ended):
    from batchgen.launch.notes import checks

    run = RunDir(tmp_path / "my run")
    run.slurm.mkdir(parents=True)
    here = Here(program(tmp_path / "python", f"exit {code}"), tmp_path, "mars")
    done = run_script(tmp_path, collector_script(run, LaunchConfig(), here), SLURM_JOB_ID="12")
    assert done.returncode == ended, done.stderr
    assert [(one.job, one.code) for one in checks(run)] == [("12", code)]
    assert [path.name for path in run.slurm.iterdir()] == ["check-12.json"]


def test_the_check_takes_no_gpu_and_has_options_of_its_own():
    launch = LaunchConfig(
        slurm={"partition": "gpu", "account": "us", "gres": "gpu:4", "time": "08:00:00", "mem_per_gpu": "8G"},
        collector={"partition": "cpu", "mem": "2G", "account": None},
    )
    assert head(collector_script(RUN, launch, HERE)) == [
        "--job-name=mars-check",
        "--nodes=1",
        "--ntasks=1",
        "--partition=cpu",
        "--mem=2G",
        "--output='/data/my runs/100%%/logs/slurm/%j-check.log'",
    ]


def test_variables_of_sbatch_do_not_undo_what_the_script_says():
    script = element_script(RUN, LaunchConfig(slurm={"partition": "gpu", "time": "1:00:00"}), HERE)
    mine = {
        "SBATCH_PARTITION": "debug", "SBATCH_TIMELIMIT": "5", "SBATCH_NO_REQUEUE": "1", "SBATCH_SIGNAL": "9",
        "SBATCH_WAIT": "1", "SBATCH_ACCOUNT": "us", "SLURM_CONF": "/etc/x", "PATH": "/bin", "SLURM_JOB_END_TIME": "7",
    }  # fmt: skip
    kept = environment(script, mine)
    assert kept == {"SBATCH_ACCOUNT": "us", "SLURM_CONF": "/etc/x", "PATH": "/bin", "SLURM_JOB_END_TIME": "7"}
    # A job that submits tells its element nothing of itself.
    outer = {"SLURM_JOB_ID": "5", "SLURM_JOB_END_TIME": "7", "SLURM_CONF": "/x"}
    assert environment(script, outer) == {"SLURM_CONF": "/x"}
