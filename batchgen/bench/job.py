"""The job that a bench measures, settled: its model on this machine, the device, and what each row is asked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.bench.own import words_of
from batchgen.bench.place import Place
from batchgen.bench.rows import BATCHES, Row
from batchgen.bench.task import Task
from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.errors import ConfigError
from batchgen.machine.dtype import resolve_dtype
from batchgen.models.families.base import Family
from batchgen.models.find import ModelFiles, check_model, download, in_cache, place_px, settled
from batchgen.models.parts import settings

_MEASURED_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What is measured. `typed`: the words of the command that are Hydra's."""

    config: Config
    model: ModelFiles
    place: Place
    task: Task
    typed: tuple[str, ...]

    @property
    def family(self) -> Family:
        """The model's family."""
        return self.model.family

    @property
    def guided(self) -> bool:
        """Whether the denoiser runs twice a step."""
        return self.task.scale > (self.config.model.guided_above or 0.0)

    def dtype(self, row: Row) -> str:
        """The dtype of what a row's script loads as "half"."""
        if row.group != BATCHES and self.place.is_gpu:
            return self.family.half
        return resolve_dtype(self.config.model.dtype, self.place.capability, self.family.half)

    def request(self, row: Row, folder: Path) -> dict[str, Any]:
        """What `batchgen.bench.row` is asked for a row; `folder` is for what it writes."""
        if row.maker == "own":
            words = words_of(self.typed, row.speed, self.task, folder)
            own = {"words": words, "folder": str(folder), "rows": self.task.rows}
            return {"maker": "own", **own, "speed": dict(row.speed)}
        about = {"model": asdict(self.config.model), "scheduler": self.config.job.scheduler, "half": self.dtype(row)}
        return {"maker": row.maker, "name": row.name, "task": asdict(self.task), **about}


def settled_job(config: Config, place: Place, images: int | None, typed: Sequence[str]) -> Job:
    """The job, its model fetched unless it is here. `images`: how many of a row of batches count; None: two batches.

    Raises ModelError and ConfigError for what a run could not use, and DownloadError.
    """
    model = in_cache(config.model)
    if model is None:
        say(f"fetching {config.model.path}")
        model = download(config.model)
    parts = check_model(model, config.job.scheduler)
    config = settled(config, model)
    job = config.job
    (vae,) = [settings(part) for part in parts if part.name == "vae"]
    multiple_px = model.family.patch * place_px(vae)
    for name, value_px in (("job.width", job.width), ("job.height", job.height)):
        if value_px % multiple_px:
            raise ConfigError(f"{name}={value_px}: this model needs a multiple of {multiple_px}")
    wanted = images or _MEASURED_BATCHES * job.batch_size
    rows = min(job.batch_size, wanted)
    keyword = "true_cfg_scale" if model.family.pipeline == "QwenImagePipeline" else "guidance_scale"
    task = Task(job.width, job.height, job.steps, job.guidance, rows, -(-wanted // rows), keyword)
    config = replace(config, job=replace(job, batch_size=rows))
    return Job(config, model, place, task, tuple(typed))
