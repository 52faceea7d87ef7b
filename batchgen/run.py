"""The front door past Hydra: prepare the plan, launch the workers, say how it went."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.dry_run import dry_run
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE
from batchgen.evening.outlook import Outlook
from batchgen.evening.start import check_disk, keep_run
from batchgen.files import supports_link, sync_directory
from batchgen.launch import local
from batchgen.launch.display import Display
from batchgen.machine.gpus import Gpu, find_gpus
from batchgen.machine.process import StopEvent, catch_signals
from batchgen.memory.forecast import refused_on
from batchgen.memory.frozen import task_of
from batchgen.models.find import find_model
from batchgen.paths import RunDir
from batchgen.plan.recipe import computed_otherwise
from batchgen.plan.rejects import rejected_line
from batchgen.plan.replan import at_work
from batchgen.plan.store import Plan
from batchgen.prepare import keep_edition, prepare
from batchgen.shards import index
from batchgen.shards.attempt import sweep
from batchgen.shards.finish import Outcome, finish, outcome
from batchgen.shards.progress import shard_states


def run(config: Config) -> int:
    """Do what the configuration asks for; return the exit code. Raises BatchgenError."""
    run_dir = RunDir(Path(config.run_dir))
    config = keep_edition(run_dir, config)
    # How many workers there will be is settled here: the plan is cut for them.
    gpus = find_gpus()
    config = replace(config, launch=replace(config.launch, workers=config.launch.workers or len(gpus) or 1))
    if config.dry_run:
        return dry_run(run_dir, config, gpus)
    began_s = time.time()
    plan = prepare(run_dir, config)
    states = shard_states(plan)
    if not states.open:
        done = not states.broken and index.is_current(plan)
        return _tell(outcome(plan, "is already done") if done else finish(plan))
    broken = f"{states.harm()}; the other shards are made all the same" if states.broken else None
    for line in filter(None, (computed_otherwise(plan.computes, config.job.scheduler), rejected_line(plan), broken)):
        say(line)
    gpus = _able_first(plan, gpus)
    outlook = Outlook.of_plan(plan, gpus)
    check_disk(plan, states.open, outlook, say)
    run_dir.create_directories()
    _make_durable(run_dir)
    if not supports_link(run_dir.work):
        say("this file system has no hard links: one worker, and start no second batchgen on this run meanwhile")
        plan.config.launch.workers = 1
    sweep(run_dir)
    stop = StopEvent()
    catch_signals(stop, second_ctrl_c_ends=True)
    display = Display(plan)
    launched_s = time.time()
    display.start(min(plan.config.launch.workers or len(gpus) or 1, plan.shard_count))
    try:
        with at_work(plan):
            code = local.launch(plan, [gpu.device for gpu in gpus], stop, display.tick, display.say)
    finally:
        display.close()
    end = finish(plan) if code == EXIT_WHOLE else None
    keep_run(plan, outlook, began_s, launched_s, is_over=end is not None)
    if end is not None:
        return _tell(end)
    if code == EXIT_INTERRUPTED:
        say("interrupted; what is finished is kept, and the same command goes on")
    return code


def _make_durable(run_dir: RunDir) -> None:
    """Make the names of the run's directories durable: a power cut must not take one with all that is in it."""
    sync_directory(run_dir.worker_logs.parent)
    sync_directory(run_dir.root)
    for directory in run_dir.root.absolute().parents:  # this command, or one that was killed, made some of them
        with suppress(OSError):  # some directories above may be entered but not read
            sync_directory(directory)


def _tell(end: Outcome) -> int:
    for line in end.lines:
        say(line)
    return end.code


def _able_first(plan: Plan, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs, those that cannot do the job last, each with a line that says why. Raises the reason if none can."""
    config, model = plan.config, find_model(plan.config.model)
    if model is None:
        return list(gpus)
    tasks = [task_of(config, config.job.width, config.job.height)]
    refused = refused_on(config, gpus, model, str(plan.recipe["model"]), tasks)
    for device, reason in refused.items():
        say(f"GPU {device} cannot do this job: {reason}")
    return sorted(gpus, key=lambda gpu: gpu.device in refused)
