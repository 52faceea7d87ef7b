"""The site file: between the defaults and a job or the command line, found without an option, told with its line."""

import pytest

from batchgen.config.site import used_site
from batchgen.errors import ConfigError
from tests.commands import REAL, run, write_prompts

SITE = """\
launch:
  launcher: slurm
  workers: 4
  slurm:
    partition: gpu
    time: 12:00:00
    gpus_per_task: 1
output:
  format: jpg
"""


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path


def shown(site, *arguments, cwd=None):
    """What a dry run shows, and the resolved configuration."""
    prompts = write_prompts(site.parent / "p.txt", 8)
    more = (f"job.prompts={prompts}", f"run_dir={site.parent / 'run'}", "dry_run=json")
    done = run(REAL, "job=mars_batch", *more, *arguments, BATCHGEN_SITE=str(site), PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    import json

    return json.loads(done.stdout)


def test_the_site_counts_more_than_the_defaults(site):
    found = shown(site)
    assert found["site_file"] == str(site)
    script = found["slurm"]["script"]
    assert "#SBATCH --partition=gpu\n#SBATCH --time=12:00:00\n#SBATCH --gpus-per-task=1\n" in script
    assert found["workers"] == 4


def test_the_command_line_counts_more_than_the_site(site):
    found = shown(site, "launch.slurm.partition=other", "launch.slurm.gpus-per-task=2", "launch.workers=2")
    assert "--partition=other" in found["slurm"]["script"] and "--gpus-per-task=2" in found["slurm"]["script"]
    assert found["workers"] == 2


def test_an_option_that_is_chosen_counts_more_than_the_site(site):
    assert "slurm" not in shown(site, "launch=local")


def test_a_job_counts_more_than_the_site(site, tmp_path):
    job = tmp_path / "mine" / "job" / "venus.yaml"
    job.parent.mkdir(parents=True)
    job.write_text("# @package _global_\njob:\n  name: venus\nlaunch:\n  workers: 3\n  slurm:\n    partition: theirs\n")
    found = shown(site, "--config-dir", str(tmp_path / "mine"), "job=venus")
    assert found["workers"] == 3
    assert "--partition=theirs" in found["slurm"]["script"] and "--time=12:00:00" in found["slurm"]["script"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("launch:\n  workrs: 3\n", "site.yaml:2: launch.workrs=3: no such key; did you mean launch.workers?"),
        ("launch:\n  workers: many\n", "site.yaml:2: launch.workers=many: it must be a whole number"),
        ("launch:\n  slurm:\n    array: 1-3\n", "site.yaml:3: launch.slurm.array: batchgen sets this option itself"),
        ("launch:\n\tworkers: 3\n", "site.yaml:2: it is indented with a tab"),
        ("defaults:\n  - override /model: sdxl\n", "a site file sets keys"),
        ("- launch\n", "site.yaml:1: the file holds a list"),
        (
            "launch:\n  setup:\n    - export HF_TOKEN=hf_abc\n",
            "site.yaml:2: launch.setup: HF_TOKEN=... would be readable",
        ),
        ("launch:\n  workers: 0\n", "site.yaml:2: launch.workers must be between 1 and"),
    ],
)
def test_a_mistake_is_told_with_its_line(site, text, said):
    site.write_text(text)
    done = run(REAL, "job=mars_batch", "dry_run=true", BATCHGEN_SITE=str(site))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_file_that_was_named_and_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHGEN_SITE", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="there is no such file"):
        used_site()
    monkeypatch.setenv("BATCHGEN_SITE", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert used_site() is None
    (tmp_path / "batchgen").mkdir()
    (tmp_path / "batchgen" / "site.yaml").write_text(SITE)
    assert used_site() == tmp_path / "batchgen" / "site.yaml"


def test_secrets_that_are_not_written_out_are_right(site):
    site.write_text("launch:\n  setup:\n    - export HF_TOKEN=$(cat ~/.token)\n    - export TOKEN_FILE=/x\n")
    assert shown(site)["warnings"] is not None
