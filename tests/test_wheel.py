"""The wheel, installed in a new environment, runs the shipped job from any directory."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import ROOT, run


@pytest.mark.slow
def test_the_wheel_runs_the_shipped_job_from_anywhere(tmp_path):
    built = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"], tmp_path / "dist")
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("batchgen-*.whl")
    assert wheel.stat().st_size < 50 << 20
    wanted = {"batchgen/py.typed", "batchgen/conf/config.yaml", "batchgen/report/assets/page.html"}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    # What batchgen depends on comes from this environment; batchgen itself does not.
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run([python, "-c", "import batchgen; print(batchgen.__file__)"], cwd=elsewhere, PYTHONPATH="")
    assert Path(where.stdout.strip()).is_relative_to(tmp_path)
    done = run([python, "-m", "batchgen"], "job=mars_batch", "job.limit=4", "job.steps=2", cwd=elsewhere, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    checked = run([python, "-m", "batchgen.verify"], "outputs/mars_batch", cwd=elsewhere, PYTHONPATH="")
    assert checked.returncode == 0 and "4 of 4 images" in checked.stdout
    batchgen = str(tmp_path / "venv" / "bin" / "batchgen")
    script = run([batchgen, "job=landscape_4k", "dry_run=true"], cwd=elsewhere, PYTHONPATH="")
    assert script.returncode == 0 and "tiles of 512 px" in script.stdout
    status = run([batchgen, "status", "outputs/mars_batch"], cwd=elsewhere, PYTHONPATH="")
    assert status.returncode == 0 and "outputs/mars_batch: done" in status.stdout
    assert run([batchgen, "verify", "-h"], PYTHONPATH="").stdout.startswith("usage: batchgen verify [")
    assert "batchgen repair RUN_DIR" in run([batchgen, "-h"], PYTHONPATH="").stdout
    assert str(ROOT) not in done.stderr + checked.stderr
