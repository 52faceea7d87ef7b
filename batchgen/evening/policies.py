"""The policies that workers would choose, as lines of a dry run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from batchgen.config.schema import Config
from batchgen.evening.lines import Line
from batchgen.evening.outlook import Model
from batchgen.machine.dtype import resolve_dtype
from batchgen.machine.gpus import ASSUMED, Gpu
from batchgen.machine.host import Room
from batchgen.memory.choose import Choice
from batchgen.memory.forecast import foresee_on, refused_on, room_of
from batchgen.memory.frozen import task_of
from batchgen.memory.measure import base_policy
from batchgen.models.find import ModelFiles, half_of
from batchgen.policy import Policy
from batchgen.units import GIB, size_bytes

# What an assumed GPU is capable of: it has fp16 and bf16.
_CAPABILITY = (8, 0)


def model_line(config: Config, model: ModelFiles | None, gpus: Sequence[Gpu]) -> Line:
    """The model, its dtype on these GPUs or the CPU, and the scheduler. Raises ConfigError as `resolve_dtype` does."""
    dtypes, scheduler = _dtypes(config, half_of(model), gpus), config.job.scheduler
    values = {"model": config.model.path, "dtype": dtypes, "scheduler": scheduler}
    return Line("model", f"{config.model.path}, {dtypes}, scheduler {scheduler}", values)


def _dtypes(config: Config, half: str, gpus: Sequence[Gpu]) -> str:
    """The dtype of the weights, and the device."""
    named = config.model.dtype
    if not gpus:
        return f"{resolve_dtype(named, None, half)} on cpu"
    found = {resolve_dtype(named, gpu.capability, half) for gpu in gpus} if named == "auto" else {named}
    return " and ".join(sorted(found)) + " on cuda"


def assumed(config: Config, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """The GPUs with as much free memory as `memory.assume_vram` says; without any GPU, one that is made up."""
    if config.memory.assume_vram is None:
        return gpus
    free_bytes = size_bytes("memory.assume_vram", config.memory.assume_vram)
    assumed = Gpu(ASSUMED, "", free_bytes, _CAPABILITY)
    return [replace(gpu, kind=gpu.kind or "", free_bytes=free_bytes) for gpu in gpus] or [assumed]


def able_of(config: Config, model: Model | None, gpus: Sequence[Gpu], sizes: Sequence[tuple[int, int]]) -> list[Gpu]:
    """The GPUs that can make images of these sizes, that with the most free memory first.

    Raises the reason where none can: MemoryNeededError, or ConfigError for a dtype.
    """
    refused = {}
    if model is not None and model.files is not None:
        tasks = [task_of(config, *size) for size in sizes]
        refused = refused_on(config, gpus, model.files, model.fingerprint, tasks)
    able = [gpu for gpu in gpus if gpu.device not in refused]
    return sorted(able, key=lambda gpu: -(gpu.free_bytes or 0))


def policy_lines(
    config: Config,
    model: Model | None,
    gpus: Sequence[Gpu],
    sizes: Sequence[tuple[int, int]],
) -> Iterator[Line]:
    """The policy of each size on each kind of GPU, why it would be chosen, and what else was considered.

    `model` is None for a hub model that is not here. Raises MemoryNeededError where no GPU can do a size.
    """
    files = None if model is None else model.files
    if not gpus or model is None or files is None:
        why = "a GPU's is chosen once the model is there" if files is None else "on the CPU"
        yield from _default_lines(config, sizes, why)
        return
    tasks, room = [task_of(config, *size) for size in sizes], room_of(config, gpus)
    refused = refused_on(config, gpus, files, model.fingerprint, tasks)
    able = [gpu for gpu in gpus if gpu.device not in refused]
    # Cards of one kind share a policy; the card with the most room is shown.
    kinds = {gpu.kind: gpu for gpu in sorted(able, key=lambda gpu: gpu.free_bytes or 0)}
    for (kind, gpu), task in ((one, task) for one in kinds.items() for task in tasks):
        where = f"{task.width}x{task.height}" + (f" on {kind}" if len(kinds) > 1 else "")
        foreseen = foresee_on(config, gpu, files, model.fingerprint, task, room)
        if foreseen is None:
            yield Line("policy", f"{where}: nvidia-smi does not say what GPU {gpu.device} is; a worker will measure it")
            continue
        choice, measured = foreseen
        estimated = "estimated from the model's files; a run of enough images measures"
        source = f"measured on this {kind}" if measured else estimated
        values = _policy_values(task.width, task.height, kind, choice.option.policy)
        yield Line("policy", f"{where}: {choice.reason} ({source})", values)
        yield _host_line(choice, room)
        yield from (Line("", line) for line in choice.table())
    for device, reason in refused.items():
        yield Line("cannot", f"GPU {device}: {reason}", {"refused": {device: str(reason)}})


def _host_line(choice: Choice, room: Room | None) -> Line:
    """What the policy takes of the host's memory."""
    values = {"host_needed_bytes": choice.host_bytes, "host_room_bytes": None if room is None else room.held_bytes}
    there = "" if room is None else f" of {room.held_bytes / GIB:.1f} GiB that are there for each worker"
    return Line("", f"at least {choice.host_bytes / GIB:.1f} GiB of the host's memory{there}", values)


def _policy_values(width: int, height: int, device: str | None, policy: Policy) -> dict[str, Any]:
    return {"policies": [{"width": width, "height": height, "device": device, "policy": asdict(policy)}]}


def _default_lines(config: Config, sizes: Sequence[tuple[int, int]], why: str) -> Iterator[Line]:
    dtype = resolve_dtype(config.model.dtype, None)
    for width, height in sizes:
        policy = base_policy(config, task_of(config, width, height), dtype)
        tiling = f"tiles of {policy.tile_px} px" if policy.tile_px else "no tiling"
        rows = f"micro-batch {policy.micro_batch}, decode chunk {policy.decode_chunk}"
        values = _policy_values(width, height, "cpu", policy)
        yield Line("policy", f"{width}x{height}: {rows}, {tiling}, {why}", values)
