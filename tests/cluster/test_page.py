"""docs/launching.md on a cluster: every command that needs SLURM, in the order of the page."""

import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import ROOT, samples
from tests.test_docs import blocks

PAGE = ROOT / "docs" / "launching.md"


@pytest.fixture
def settled(site):
    """What a user's shell has who followed the page so far: its site file, and the checkout's jobs/ beside the runs."""
    (text,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    assert yaml.safe_load(text)["launch"]["slurm"]["partition"] == "gpu"
    file = site.folder / "site.yaml"
    file.write_text(text)
    (site.folder / "jobs").symlink_to(ROOT / "jobs")
    environment = site.environment(FAKE_STEP_S="0.2", BATCHGEN_SITE=str(file), PYTHON=sys.executable)
    return environment | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "TMPDIR": str(site.folder)}


def test_the_page_leads_from_nothing_to_a_night(cluster, site, settled):
    commands = [
        line
        for block in blocks(PAGE)
        if block.needs == "slurm"
        for line in block.text.splitlines()
        if line and not line.startswith("#")
    ]
    assert len(commands) >= 8
    for command in commands:
        done = site.batchgen(["bash", "-c", command], timeout_s=300, **settled)
        if command.startswith("srun "):  # the nodes of this cluster have no GPUs, and the doctor says so
            failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
            assert failed and all("GPU" in line for line in failed), (done.stdout, done.stderr)
            continue
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command.startswith("sbatch "):
            cluster.until(120, command, lambda: not cluster.queue())
    for name in ("mars_batch", "by_srun"):
        images = [name for name in samples(site.folder / "outputs" / name) if name.endswith(".png")]
        assert len(images) == 72, name
    assert (site.folder / "outputs" / "by_srun" / "index.json").is_file()
