"""The front door past Hydra: prepare the plan, launch the workers, say how it went."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batchgen import index
from batchgen.config import Config, size_bytes
from batchgen.console import say
from batchgen.display import Display
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, UserError
from batchgen.files import supports_link, sync_directory
from batchgen.finish import Outcome, finish, outcome
from batchgen.gpus import Gpu, find_gpus
from batchgen.launch import local
from batchgen.memory.choose import Choice
from batchgen.memory.costs import Task
from batchgen.memory.meters import CONTEXT_BYTES
from batchgen.memory.policy import choose_policy, resolve_dtype
from batchgen.paths import RunDir
from batchgen.pipeline.fingerprint import fingerprint_model
from batchgen.pipeline.model import find_model
from batchgen.plan import Plan
from batchgen.policies import foresee, task_of
from batchgen.prepare import prepare, summary
from batchgen.process import catch_signals
from batchgen.recipe import computed_otherwise
from batchgen.rejects import rejected_line, remedy
from batchgen.replan import at_work
from batchgen.shards import sweep
from batchgen.stock import take_stock

_ASSUMED_CAPABILITY = (8, 0)  # of a GPU that is only assumed: one that has fp16 and bf16


def run(config: Config) -> int:
    """Do what the configuration asks for; return the exit code. Raises BatchgenError."""
    run_dir = RunDir(Path(config.run_dir))
    # How many workers there will be is settled here: the plan is cut for them.
    gpus = find_gpus()
    config = replace(config, launch=replace(config.launch, workers=config.launch.workers or len(gpus) or 1))
    if config.dry_run:
        return _dry_run(run_dir, config, _assumed(config, gpus))
    plan = prepare(run_dir, config)
    stock = take_stock(plan)
    if not stock.open:
        done = not stock.broken and index.is_current(plan)
        return _tell(outcome(plan, "is done already") if done else finish(plan))
    broken = f"{stock.harm()}; the other shards are made all the same" if stock.broken else None
    for line in filter(None, (computed_otherwise(plan.computes, config.job.scheduler), rejected_line(plan), broken)):
        say(line)
    gpus = _able_first(plan, gpus)
    run_dir.make()
    _make_durable(run_dir)
    if not supports_link(run_dir.work):
        say("this file system has no hard links: one worker, and start no second batchgen on this run meanwhile")
        plan.config.launch.workers = 1
    sweep(run_dir)
    stop = threading.Event()
    catch_signals(stop, second_ctrl_c_ends=True)
    display = Display(plan)
    try:
        with at_work(plan):
            code = local.launch(plan, [gpu.device for gpu in gpus], stop, display.tick, display.say)
    finally:
        display.close()
    if code == EXIT_WHOLE:
        return _tell(finish(plan))
    if code == EXIT_INTERRUPTED:
        say("interrupted; what is finished is kept, and the same command goes on")
    return code


def _make_durable(run_dir: RunDir) -> None:
    """Else a power cut could take a directory with all that is durable in it."""
    sync_directory(run_dir.worker_logs.parent)
    sync_directory(run_dir.root)
    for directory in run_dir.root.absolute().parents:  # this command made some of them, or one that was killed
        with suppress(OSError):  # above, there are directories that one may enter and not read
            sync_directory(directory)


def _tell(end: Outcome) -> int:
    for line in end.lines:
        say(line)
    return end.code


def _dry_run(run_dir: RunDir, config: Config, gpus: Sequence[Gpu]) -> int:
    counts = summary(run_dir, config)
    lines = list(_policy_lines(config, gpus, counts["sizes"]))
    print(f"run        {run_dir.root}" + (f" ({counts['done_shards']} shards done)" if "done_shards" in counts else ""))
    print(f"prompts    {counts['prompts']}")
    first = counts["first_reject"]
    print(
        f"rejects    {counts['rejects']}"
        + (
            f" (first: {first.source}:{first.line}: {first.reason}; {remedy(first.source, first.reason)})"
            if first
            else ""
        )
    )
    print(f"batches    {counts['batches']} of up to {config.job.batch_size}")
    print(f"packing    {counts['packing_percent']:.1f}% of the rows that run are prompts, the rest is padding")
    print(f"shards     {counts['shards']} of up to {counts['largest_shard']} batches")
    workers, left = config.launch.workers or 1, counts.get("open_shards", counts["shards"])
    print(f"workers    {min(workers, left)} of {workers} can be busy at once: {left} shards are left")
    if config.determinism == "strict":
        at_last = counts["batches"] % workers or min(workers, counts["batches"])
        print(
            f"strict     rests are padded: up to {counts['strict_percent']:.1f}% more rows are denoised; no batch is "
            f"cut: the last ones keep {at_last} of {workers} workers busy"
        )
    print(f"model      {config.model.path}, {_dtypes(config, gpus)}, scheduler {config.job.scheduler}")
    for line in lines:
        print(line)
    print("dry run: nothing was written")
    if counts.get("harm"):
        say(counts["harm"])
        return EXIT_BROKEN  # as the run itself would end
    return EXIT_WHOLE


def _dtypes(config: Config, gpus: Sequence[Gpu]) -> str:
    """What the weights are computed in, and where."""
    named = config.model.dtype
    if not gpus:
        return f"{resolve_dtype(named, None)} on cpu"
    found = {resolve_dtype(named, gpu.capability) for gpu in gpus} if named == "auto" else {named}
    return " and ".join(sorted(found)) + " on cuda"


def _assumed(config: Config, gpus: list[Gpu]) -> list[Gpu]:
    """The GPUs with as much free memory as a dry run is to assume, though there be none."""
    if config.memory.assume_vram is None:
        return gpus
    free_bytes = size_bytes("memory.assume_vram", config.memory.assume_vram)
    assumed = Gpu("assumed", "", free_bytes, _ASSUMED_CAPABILITY)
    return [replace(gpu, kind=gpu.kind or "", free_bytes=free_bytes) for gpu in gpus] or [assumed]


def _able_first(plan: Plan, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs, those that cannot do the job last. Says which; raises what speaks against it where none can."""
    config, folder = plan.config, find_model(plan.config.model)
    if folder is None:
        return list(gpus)
    tasks = [task_of(config, config.job.width, config.job.height)]
    refused = _refused(config, gpus, folder, str(plan.recipe["model"]), tasks)
    for device, reason in refused.items():
        say(f"GPU {device} cannot do this job: {reason}")
    return sorted(gpus, key=lambda gpu: gpu.device in refused)


def _refused(
    config: Config, gpus: Sequence[Gpu], folder: Path, model: str, tasks: Sequence[Task]
) -> dict[str, UserError]:
    """Which GPUs cannot do the tasks, and why. Loads nothing. Raises it where none can: MemoryNeededError, say."""
    refused: dict[str, UserError] = {}
    for gpu in sorted(gpus, key=lambda one: -(one.free_bytes or 0)):
        try:
            for task in tasks:
                _foresee(config, gpu, folder, model, task)
        except UserError as error:
            refused[gpu.device] = error
    if gpus and len(refused) == len(gpus):
        raise next(iter(refused.values()))
    return refused


def _foresee(config: Config, gpu: Gpu, folder: Path, model: str, task: Task) -> tuple[Choice, bool] | None:
    """What a worker on this GPU would choose; None where too little is known of the GPU."""
    dtype = resolve_dtype(config.model.dtype, gpu.capability)
    if gpu.kind is None or gpu.free_bytes is None:
        return None
    cap = config.memory.max_vram
    cap_bytes = gpu.free_bytes if cap is None else size_bytes("memory.max_vram", cap)
    budget_bytes = max(0, min(gpu.free_bytes, cap_bytes) - CONTEXT_BYTES)
    return foresee(config, folder, model, task, gpu.kind, dtype, budget_bytes)


def _policy_lines(config: Config, gpus: Sequence[Gpu], sizes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """What the policy for each size would be on each kind of GPU, why, and what else there is."""
    folder = find_model(config.model)
    if not gpus or folder is None:
        why = "a GPU's is chosen once the model is there" if folder is None else "on the CPU"
        dtype = resolve_dtype(config.model.dtype, None)
        for width, height in sizes:
            policy = choose_policy(config.memory.policy, config.speed, width, height, dtype, os.cpu_count() or 1)
            tiling = f"tiles of {policy.tile_px} px" if policy.tile_px else "no tiling"
            rows = f"micro-batch {policy.micro_batch}, decode chunk {policy.decode_chunk}"
            yield f"policy     {width}x{height}: {rows}, {tiling}, {why}"
        return
    model, tasks = fingerprint_model(folder, config.model), [task_of(config, *size) for size in sizes]
    refused = _refused(config, gpus, folder, model, tasks)
    able = [gpu for gpu in gpus if gpu.device not in refused]
    # Cards of a kind share a policy: that of the one with the most room is shown.
    kinds = {gpu.kind: gpu for gpu in sorted(able, key=lambda gpu: gpu.free_bytes or 0)}
    for (kind, gpu), task in ((one, task) for one in kinds.items() for task in tasks):
        where = f"{task.width}x{task.height}" + (f" on {kind}" if len(kinds) > 1 else "")
        foreseen = _foresee(config, gpu, folder, model, task)
        if foreseen is None:
            yield f"policy     {where}: nvidia-smi does not say what GPU {gpu.device} is; a worker will measure it"
            continue
        choice, measured = foreseen
        estimated = "estimated from the model's files; a run of enough images measures"
        source = f"measured on this {kind}" if measured else estimated
        yield f"policy     {where}: {choice.reason} ({source})"
        yield from (f"           {line}" for line in choice.table())
    yield from (f"cannot     GPU {device}: {reason}" for device, reason in refused.items())
