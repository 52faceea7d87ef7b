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
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.files import remove_temporaries, supports_link, sync_directory
from batchgen.launch import local
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
    _refuse_what_cannot_fit(plan)
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
        code = local.launch(plan, stop, display.tick, display.say)
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
    capability = local.capability()
    if config.memory.assume_vram is not None and capability is None:
        capability = _ASSUMED_CAPABILITY
    dtype = resolve_dtype(config.model.dtype, capability)
    device = "cuda" if capability else "cpu"
    print(f"run        {run_dir.root}" + (f" ({counts['done_shards']} shards done)" if "done_shards" in counts else ""))
    print(f"prompts    {counts['prompts']}")
    first = counts["first_reject"]
    print(
        f"rejects    {counts['rejects']}" + (f" (first: {first.source}:{first.line}: {first.reason})" if first else "")
    )
    print(f"batches    {counts['batches']} of up to {config.job.batch_size}")
    print(f"packing    {counts['packing_percent']:.1f}% of the batches' places are filled")
    print(f"shards     {counts['shards']} of up to {config.output.batches_per_shard} batches")
    print(f"model      {config.model.path}, {dtype} on {device}, scheduler {config.job.scheduler}")
    for line in _policy_lines(config, counts["sizes"], dtype):
        print(line)
    print("dry run: nothing was written")
    return EXIT_WHOLE


def _refuse_what_cannot_fit(plan: Plan) -> None:
    """Before anything is loaded. Raises MemoryNeededError for a job that no policy fits into the first GPU."""
    config, gpu, folder = plan.config, local.first_gpu(), find_model(plan.config.model)
    if gpu is None or folder is None:
        return
    dtype = resolve_dtype(config.model.dtype, local.capability())
    task = task_of(config, config.job.width, config.job.height)
    foresee(config, folder, str(plan.recipe["model"]), task, gpu[0], dtype, _budget_bytes(config, gpu[1]))


def _budget_bytes(config: Config, free_bytes: int | None) -> int:
    """What torch may allocate of a GPU with so much free, or of the one that is assumed."""
    memory = config.memory
    if memory.assume_vram is not None and config.dry_run:
        free_bytes = size_bytes("memory.assume_vram", memory.assume_vram)
    assert free_bytes is not None
    cap_bytes = free_bytes if memory.max_vram is None else size_bytes("memory.max_vram", memory.max_vram)
    return max(0, min(free_bytes, cap_bytes) - CONTEXT_BYTES)


def _policy_lines(config: Config, sizes: Sequence[tuple[int, int]], dtype: str) -> Iterator[str]:
    """What the policy for each size would be, why, and what else there is; `assume_vram` stands in for a GPU."""
    gpu, folder = local.first_gpu(), find_model(config.model)
    if (gpu is None and config.memory.assume_vram is None) or folder is None:
        why = "a GPU's is chosen once the model is there" if folder is None else "on the CPU"
        for width, height in sizes:
            policy = choose_policy(config.memory.policy, config.speed, width, height, dtype, os.cpu_count() or 1)
            tiling = f"tiles of {policy.tile_px} px" if policy.tile_px else "no tiling"
            rows = f"micro-batch {policy.micro_batch}, decode chunk {policy.decode_chunk}"
            yield f"policy     {width}x{height}: {rows}, {tiling}, {why}"
        return
    kind, free_bytes = gpu or ("", None)
    budget_bytes, model = _budget_bytes(config, free_bytes), fingerprint_model(folder)
    for width, height in sizes:
        task = task_of(config, width, height)
        choice, measured = foresee(config, folder, model, task, kind, dtype, budget_bytes)
        source = (
            f"measured on this {kind}"
            if measured
            else "estimated from the model's files; a run of enough images measures"
        )
        yield f"policy     {width}x{height}: {choice.reason} ({source})"
        yield from (f"           {line}" for line in choice.table())


def _say(line: str) -> None:
    print(f"batchgen: {line}", file=sys.stderr)
