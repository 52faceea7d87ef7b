"""What a worker on each GPU would choose, foreseen before any worker starts. Loads nothing and needs no torch."""

from collections.abc import Sequence

from batchgen.config.schema import Config
from batchgen.errors import UserError
from batchgen.machine.dtype import resolve_dtype
from batchgen.machine.gpus import ASSUMED, Gpu
from batchgen.machine.host import Room, room_for
from batchgen.machine.meters import CONTEXT_BYTES
from batchgen.memory.choose import Choice
from batchgen.memory.costs import Task
from batchgen.memory.frozen import foresee
from batchgen.memory.loading import refuse_to_load
from batchgen.models.find import ModelFiles
from batchgen.units import size_bytes


def refused_on(
    config: Config, gpus: Sequence[Gpu], model: ModelFiles, fingerprint: str, tasks: Sequence[Task]
) -> dict[str, UserError]:
    """The GPUs that cannot do the tasks, and why: {device: error}.

    Raises the error of the GPU with the most free memory, MemoryNeededError for example, where no GPU can. Without a
    GPU it raises MemoryNeededError where the host cannot load the model.
    """
    refused: dict[str, UserError] = {}
    if not gpus and config.launch.launcher != "slurm":  # whose nodes have other memory than this machine
        refuse_to_load(model, resolve_dtype(config.model.dtype, None, model.family.half), False, room_for(1))
    room = room_of(config, gpus)
    for gpu in sorted(gpus, key=lambda one: -(one.free_bytes or 0)):
        try:
            for task in tasks:
                foresee_on(config, gpu, model, fingerprint, task, room)
        except UserError as error:
            refused[gpu.device] = error
    if gpus and len(refused) == len(gpus):
        raise next(iter(refused.values()))
    return refused


def room_of(config: Config, gpus: Sequence[Gpu]) -> Room | None:
    """The host's memory of each worker that these GPUs will have; None where the GPU is made up, and so its host."""
    if any(gpu.device == ASSUMED for gpu in gpus):
        return None
    return room_for(max(1, min(config.launch.workers or 1, len(gpus))))


def foresee_on(
    config: Config, gpu: Gpu, model: ModelFiles, fingerprint: str, task: Task, room: Room | None
) -> tuple[Choice, bool] | None:
    """What a worker on this GPU would choose, and whether by measured figures; None for a GPU that is not known.

    Raises MemoryNeededError as `foresee` does.
    """
    dtype = resolve_dtype(config.model.dtype, gpu.capability, model.family.half)
    if gpu.kind is None or gpu.free_bytes is None:
        return None
    cap = config.memory.max_vram
    cap_bytes = gpu.free_bytes if cap is None else size_bytes("memory.max_vram", cap)
    budget_bytes = max(0, min(gpu.free_bytes, cap_bytes) - CONTEXT_BYTES)
    return foresee(config, model, fingerprint, task, gpu.kind, dtype, budget_bytes, room)
