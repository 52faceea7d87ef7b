"""The front door past Hydra: prepare the plan, launch the workers, say how it went."""

import os
import time
from dataclasses import replace
from pathlib import Path

from batchgen import here
from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.dry_run import dry_run
from batchgen.errors import EXIT_INTERRUPTED, EXIT_USER, EXIT_WHOLE, ConfigError, StoppedError
from batchgen.evening.outlook import Outlook
from batchgen.here import Outset, Part
from batchgen.launch.copying import check_copies
from batchgen.launch.deadline import settled
from batchgen.launch.local import Share
from batchgen.launch.ranks import Group, group_of
from batchgen.launch.word import Speaker, Word, listen
from batchgen.machine.gpus import find_gpus
from batchgen.machine.process import StopEvent, catch_signals, started_s
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.prepare import keep_edition, prepare


def run(config: Config) -> int:
    """Do what the configuration asks for; return the exit code. Raises BatchgenError."""
    group = group_of(os.environ)
    if group is not None and config.launch.launcher == "slurm":
        if group.rank:
            return EXIT_USER
        raise ConfigError("launch=slurm submits a job by one command: start it once, without srun, torchrun or mpirun")
    run_dir = RunDir(Path(config.run_dir))
    if group is not None and group.rank:
        return EXIT_WHOLE if config.dry_run else _follow(run_dir, config, group)
    if config.dry_run:
        return _lead(run_dir, config, group, Speaker(run_dir, None))
    speaker = Speaker(run_dir, group)
    with speaker.speaking():
        code = _lead(run_dir, config, group, speaker)
        speaker.end(code)
    return code


def _lead(run_dir: RunDir, config: Config, group: Group | None, speaker: Speaker) -> int:
    """Prepare the run, let the other ranks begin, and work: all workers, or those of rank 0."""
    began_s = time.time()
    config = keep_edition(run_dir, config)
    # How many workers there will be is settled here: the plan is cut for them.
    gpus = find_gpus()
    workers = config.launch.workers or (group.world if group else len(gpus)) or 1
    stop_at = settled(config.launch, started_s())
    config = replace(config, launch=replace(config.launch, workers=workers, stop_at=stop_at))
    if config.dry_run:
        return dry_run(run_dir, config, gpus)
    check_copies(config, say)
    plan = prepare(run_dir, config)
    run_dir.stop.unlink(missing_ok=True)
    if (code := here.over(plan)) is not None:
        return code
    outset = here.set_out(plan, gpus, began_s)
    if not here.furnish(plan):
        say("this file system has no hard links: one worker, and start no second batchgen on this run meanwhile")
        plan.config.launch.workers = 1
        group = None
    if group is None:
        return here.work(plan, outset, Share.whole(plan, outset.devices), Part())
    speaker.say(Word("ready"))
    return here.work(plan, outset, group.share([gpu.device for gpu in gpus]), Part(shares=True, parent=group.parent))


def _follow(run_dir: RunDir, config: Config, group: Group) -> int:
    """Wait until rank 0 has prepared the run, and do this rank's share of the work."""
    began_s = time.time()
    stop = StopEvent()
    catch_signals(stop)
    try:
        word = listen(run_dir, group, config.launch.lease_timeout_s, stop)
    except StoppedError:  # with rank 0, which said why
        return EXIT_INTERRUPTED
    if word.state == "over":
        return word.code
    plan, gpus = load_plan(run_dir), find_gpus()
    outset = Outset(gpus, Outlook.of_plan(plan, gpus), began_s)
    return here.work(plan, outset, group.share(outset.devices), Part(shows=False, shares=True, parent=group.parent))
