"""The front door past Hydra: prepare the plan, launch the workers, say how it went."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batchgen import index
from batchgen.config import Config, size_bytes
from batchgen.display import Display
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES, UserError
from batchgen.files import remove_temporaries, supports_link, sync_directory
from batchgen.gpus import Gpu, find_gpus
from batchgen.launch import local
from batchgen.memory.choose import Choice
from batchgen.memory.costs import Task
from batchgen.memory.meters import CONTEXT_BYTES
from batchgen.memory.policy import choose_policy, resolve_dtype
from batchgen.paths import RunDir
from batchgen.pipeline.model import find_model
from batchgen.plan import Plan
from batchgen.policies import foresee, task_of
from batchgen.prepare import prepare, summary
from batchgen.recipe import fingerprint_model
from batchgen.shards import sweep
from batchgen.worker import catch_signals

MIB = 1 << 20
_ASSUMED_CAPABILITY = (8, 0)  # of a GPU that is only assumed: one that has fp16 and bf16


def run(config: Config) -> int:
    """Do what the configuration asks for; return the exit code. Raises BatchgenError."""
    run_dir = RunDir(Path(config.run_dir))
    if config.dry_run:
        return _dry_run(run_dir, config)
    plan = prepare(run_dir, config)
    if index.is_current(plan):
        return _report(plan, "is done already")
    gpus = _able_first(plan, find_gpus())
    sync_directory(run_dir.root)  # the name of the plan, should who gave it have been killed: before there is more
    run_dir.make()
    _make_durable(run_dir)
    # The launch is free to change on a resume: it is taken from this call, not from the plan.
    plan = replace(plan, config=replace(plan.config, launch=config.launch))
    if not supports_link(run_dir.work):
        _say("this file system has no hard links: one worker, and start no second batchgen on this run meanwhile")
        plan.config.launch.workers = 1
    sweep(run_dir)
    stop = threading.Event()
    catch_signals(stop, second_ctrl_c_ends=True)
    display = Display(plan)
    try:
        code = local.launch(plan, [gpu.device for gpu in gpus], stop, display.tick, display.say)
    finally:
        display.close()
    if code == EXIT_WHOLE:
        return _finish(plan)
    if code == EXIT_INTERRUPTED:
        _say("interrupted; what is finished is kept, and the same command goes on")
    return code


def _make_durable(run_dir: RunDir) -> None:
    """Else a power cut could take a directory with all that is durable in it."""
    sync_directory(run_dir.worker_logs.parent)
    sync_directory(run_dir.root)
    for directory in run_dir.root.absolute().parents:  # this command made some of them, or one that was killed
        with suppress(OSError):  # above, there are directories that one may enter and not read
            sync_directory(directory)


def _finish(plan: Plan) -> int:
    sweep(plan.run)
    run = plan.run
    for directory in (run.root, run.work, run.leases, run.policies, run.shards, run.memory_logs):
        remove_temporaries(directory)
    for draft in plan.run.root.glob("plan.*"):  # of a planning that was cut off, or is asleep: never half a draft
        swept = draft.with_name(f"{draft.name}.swept")
        with suppress(OSError):
            draft.rename(swept)
        shutil.rmtree(swept, ignore_errors=True)
    index.write_index(plan)
    return _report(plan, "is done")


def _report(plan: Plan, state: str) -> int:
    shards = (index.read_index(plan.run) or {"shards": []})["shards"]
    samples = sum(entry["samples"] for entry in shards)
    tar_bytes = sum(entry["bytes"] for entry in shards)
    missing = plan.images - samples
    _say(f"{plan.run.root} {state}: {samples} images in {len(shards)} shards, {tar_bytes / MIB:,.1f} MiB")
    if missing:
        _say(f"{missing} images failed; retry_failed=true tries them again, the manifests in shards/ say why")
        return EXIT_WHOLE_WITH_FAILURES
    return EXIT_WHOLE


def _dry_run(run_dir: RunDir, config: Config) -> int:
    counts = summary(run_dir, config)
    gpus = _gpus_to_plan_for(config)
    lines = list(_policy_lines(config, gpus, counts["sizes"], counts["prompts"]))
    print(f"run        {run_dir.root}" + (f" ({counts['done_shards']} shards done)" if "done_shards" in counts else ""))
    print(f"prompts    {counts['prompts']}")
    first = counts["first_reject"]
    print(
        f"rejects    {counts['rejects']}" + (f" (first: {first.source}:{first.line}: {first.reason})" if first else "")
    )
    print(f"batches    {counts['batches']} of up to {config.job.batch_size}")
    print(f"packing    {counts['packing_percent']:.1f}% of the batches' places are filled")
    print(f"shards     {counts['shards']} of up to {config.output.batches_per_shard} batches")
    print(f"model      {config.model.path}, {_dtypes(config, gpus)}, scheduler {config.job.scheduler}")
    for line in lines:
        print(line)
    print("dry run: nothing was written")
    return EXIT_WHOLE


def _dtypes(config: Config, gpus: Sequence[Gpu]) -> str:
    """What the weights are computed in, and where."""
    named = config.model.dtype
    if not gpus:
        return f"{resolve_dtype(named, None)} on cpu"
    found = {resolve_dtype(named, gpu.capability) for gpu in gpus} if named == "auto" else {named}
    return " and ".join(sorted(found)) + " on cuda"


def _gpus_to_plan_for(config: Config) -> list[Gpu]:
    """The machine's GPUs; in a dry run with as much free memory as is assumed, though there be none."""
    gpus = find_gpus()
    if config.memory.assume_vram is None or not config.dry_run:
        return gpus
    free_bytes = size_bytes("memory.assume_vram", config.memory.assume_vram)
    assumed = Gpu("assumed", "", free_bytes, _ASSUMED_CAPABILITY)
    return [replace(gpu, kind=gpu.kind or "", free_bytes=free_bytes) for gpu in gpus] or [assumed]


def _able_first(plan: Plan, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs, those that cannot do the job last. Says which; raises what speaks against it where none can."""
    config, folder = plan.config, find_model(plan.config.model)
    if folder is None:
        return list(gpus)
    tasks = [task_of(config, config.job.width, config.job.height, plan.images)]
    refused = _refused(config, gpus, folder, str(plan.recipe["model"]), tasks)
    for device, reason in refused.items():
        _say(f"GPU {device} cannot do this job: {reason}")
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


def _policy_lines(config: Config, gpus: Sequence[Gpu], sizes: Sequence[tuple[int, int]], images: int) -> Iterator[str]:
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
    model, tasks = fingerprint_model(folder), [task_of(config, *size, images) for size in sizes]
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
        source = f"measured on this {kind}" if measured else "estimated from the model's files; the first run measures"
        yield f"policy     {where}: {choice.reason} ({source})"
        yield from (f"           {line}" for line in choice.table())
    yield from (f"cannot     GPU {device}: {reason}" for device, reason in refused.items())


def _say(line: str) -> None:
    print(f"batchgen: {line}", file=sys.stderr)
