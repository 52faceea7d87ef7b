"""The front door past Hydra: prepare the plan, launch the workers, say how it went."""

import os
import time
from dataclasses import replace
from pathlib import Path

from batchgen import here
from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.dry_run import dry_run
from batchgen.errors import EXIT_INTERRUPTED, EXIT_USER, EXIT_WHOLE, ConfigError, StoppedError, UserError
from batchgen.evening.array import work_of
from batchgen.evening.outlook import Outlook
from batchgen.here import Outset, Part
from batchgen.launch.ahead import Ahead
from batchgen.launch.copying import check_copies
from batchgen.launch.deadline import settled
from batchgen.launch.display import Display
from batchgen.launch.local import Share
from batchgen.launch.ranks import Group, group_of, let_the_first_speak
from batchgen.launch.submit import submit
from batchgen.launch.wait import wait
from batchgen.launch.word import Speaker, Word, listen
from batchgen.machine import slurm
from batchgen.machine.gpus import find_gpus
from batchgen.machine.process import StopEvent, catch_signals, started_s
from batchgen.models.editions import keep_edition
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.prepare import prepare
from batchgen.shards.progress import shard_states


def run(config: Config) -> int:
    """Do what the configuration asks for; return the exit code. Raises BatchgenError."""
    group = group_of(os.environ)
    if group is not None and config.launch.launcher == "slurm":
        if group.rank:
            let_the_first_speak()
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
    is_array = config.launch.launcher == "slurm"
    gpus = [] if is_array else find_gpus()
    workers = config.launch.workers or (group.world if group else len(gpus)) or 1
    stop_at = settled(config.launch, started_s())
    config = replace(config, launch=replace(config.launch, workers=workers, stop_at=stop_at))
    if config.dry_run:
        return dry_run(run_dir, config, gpus)
    if is_array:
        slurm.require_here()
    devices = [gpu.device for gpu in gpus]
    share = group.share(devices) if group else Share.of(devices, workers)
    with Ahead() as ahead:
        if not is_array:
            ahead.begin(run_dir, config, share)
        check_copies(config, say)
        plan = prepare(run_dir, config)
        run_dir.stop.unlink(missing_ok=True)
        if (code := here.over(plan)) is not None:
            return code
        outset = here.set_out(plan, gpus, began_s)
        is_shared = here.furnish(plan)
        if is_array:
            return _in_array(plan, outset.outlook, is_shared)
        if not is_shared:
            say("this file system has no hard links: one worker, and start no second batchgen on this run meanwhile")
            plan.config.launch.workers = 1
        if group is None or not is_shared:
            return here.work(plan, outset, Share.whole(plan, outset.devices), Part(), ahead)
        speaker.say(Word("ready"))
        return here.work(plan, outset, share, Part(shares=True, parent=group.parent), ahead)


def _in_array(plan: Plan, outlook: Outlook, is_shared: bool) -> int:
    """Submit the workers as an array and, where that is asked for, wait for them; return the exit code."""
    if not is_shared:
        raise UserError(f"{plan.run.root}: its file system has no hard links, so only one worker can use it: move it")
    open_shards = shard_states(plan).open
    code = submit(plan, open_shards, work_of(plan, outlook, open_shards), say)
    if not plan.config.launch.wait:
        return code
    stop = StopEvent()
    catch_signals(stop, second_ctrl_c_ends=True)
    code = wait(plan, Display(plan), stop)
    return here.over(plan) or EXIT_WHOLE if code == EXIT_WHOLE else code


def _follow(run_dir: RunDir, config: Config, group: Group) -> int:
    """Wait until rank 0 has prepared the run, and do this rank's share of the work."""
    began_s = time.time()
    stop = StopEvent()
    catch_signals(stop)
    with Ahead() as ahead:
        gpus = find_gpus()
        share = group.share([gpu.device for gpu in gpus])
        ahead.begin(run_dir, config, share)
        try:
            word = listen(run_dir, group, config.launch.lease_timeout_s, stop)
        except StoppedError:  # with rank 0, which said why
            return EXIT_INTERRUPTED
        if word.state == "over":
            return word.code
        plan = load_plan(run_dir)
        outset = Outset(gpus, Outlook.of_plan(plan, gpus), began_s)
        return here.work(plan, outset, share, Part(shows=False, shares=True, parent=group.parent), ahead)
