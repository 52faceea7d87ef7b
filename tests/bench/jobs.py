"""A job of a bench that tests build without a command."""

from batchgen.bench.job import settled_job
from batchgen.bench.place import Place
from tests.builders import make_config

CPU = Place("a CPU, 2 cores")
GPU = Place("a GPU", "0", (9, 0), has_xformers=False)


def make_job(tmp_path, place=CPU, images=4, model="tiny", **overrides):
    """The job of `make_config` with 2 steps of 64x64 px, settled."""
    config = make_config(tmp_path, **overrides)
    config.model.path = str(model)
    return settled_job(config, place, images, ["job.steps=2"])
