"""The clusters of these tests, and batchgen as a user of one starts it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.commands import ROOT, run

FAKE_SITE = Path(__file__).parent / "fake_site"


def pytest_collection_modifyitems(items):
    """All tests in this folder are marked `cluster`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def _cluster(**options):
    folder = Path(tempfile.mkdtemp(prefix="batchgen-slurm-"))
    cluster = Cluster(folder, **options)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster():
    """Four nodes without accounting."""
    yield from _cluster()


@pytest.fixture
def accounted():
    """Four nodes with accounting in a database."""
    yield from _cluster(accounting=True)


@pytest.fixture
def full_cluster():
    """A node whose queue has room for ten jobs."""
    yield from _cluster(nodes=1, most_jobs=10)


class Site:
    """A user of a cluster, with a folder for runs whose name has a space."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder / "my runs"
        self.folder.mkdir()

    def environment(self, fake=True, **more):
        """What the user's shell has set. With `fake`, workers have the fake engine."""
        path = os.pathsep.join([*([str(FAKE_SITE)] if fake else []), str(ROOT)])
        own = {name: self.cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
        return own | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "BATCHGEN_SITE": ""} | more

    def batchgen(self, command, *arguments, **environment):
        """A finished command of batchgen."""
        return run(command, *arguments, cwd=self.folder, **(self.environment() | environment))


@pytest.fixture
def site(cluster, tmp_path):
    """A user of the cluster without accounting."""
    return Site(cluster, tmp_path)
