"""What the same command stood for when its run was planned, where the package has changed since."""

from dataclasses import replace

from batchgen.config.schema import Config
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan

# The bundled models that were trained again, each with its earlier editions: runs that were begun with one keep it.
EARLIER_EDITIONS = {"tiny_2": ("tiny",)}


def keep_edition(run: RunDir, config: Config) -> Config:
    """The configuration with the bundled model and the scheduler that its command stood for when the run was planned.

    `model=tiny` is the newest edition for new runs alone, and the schedulers of the files in conf/model are for plans
    that knew them, so that the same command resumes. Raises BatchgenError where the plan cannot be read.
    """
    if not run.plans():
        return config
    plan = load_plan(run)
    path, job = plan.config.model.path, plan.planned.job
    if path in EARLIER_EDITIONS.get(config.model.path, ()):
        config = replace(config, model=replace(config.model, path=path))
    if plan.planned.model.scheduler is None and config.job.scheduler == config.model.scheduler:
        config = replace(config, job=replace(config.job, scheduler=job.scheduler))
    return config
