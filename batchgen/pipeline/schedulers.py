"""The scheduler of a model: its own, or another one that can replace it, set right as diffusers does it."""

import inspect
import json
import warnings
from pathlib import Path
from typing import Any

from batchgen.errors import ModelError, in_one_line
from batchgen.models.find import REFUSED_SCHEDULERS

# Classes of diffusers, with the settings that override the configuration of the model's own scheduler.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # By default it clips latents as if they were pixels. SD's pipeline corrects that, SDXL's does not.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    # Without this the last step gives not-a-number. Configurations of DPMSolverSinglestepScheduler turn it off.
    "unipc": ("UniPCMultistepScheduler", {"lower_order_final": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}


def scheduler_of(folder: Path, name: str) -> Any:
    """The scheduler called `name` for the model in `folder`; 'model' is the model's own. No weights are loaded.

    It is made from the configuration file of the model's own scheduler, without making that one. It has passed through
    the constructor of the model's pipeline, because diffusers corrects outdated settings (clip_sample, steps_offset)
    there. Raises ModelError if it cannot be made or cannot replace the model's own.
    """
    import diffusers

    pipeline_name, own = _index(folder)
    if name == "model" and own in REFUSED_SCHEDULERS:
        raise ModelError(f"{own} ignores per-image seeds: set job.scheduler to another one")
    class_name, settings = (own, {}) if name == "model" else SCHEDULERS[name]
    if name != "model" and class_name not in _replacing(own):
        raise ModelError(f"job.scheduler={name} does not fit this model's {own}; use job.scheduler=model")
    try:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_bytes())
        scheduler = getattr(diffusers, class_name).from_config(config, **settings)
        _correct(getattr(diffusers, pipeline_name), scheduler)
    except Exception as error:  # a constructor may raise anything for a file it does not expect
        where = f"scheduler/scheduler_config.json of the model in {folder}"
        advice = "fix that file, or set job.scheduler to another one"
        raise ModelError(f"{class_name} cannot be made from {where}: {in_one_line(error)}; {advice}") from error
    return scheduler


def _index(folder: Path) -> tuple[str, str]:
    # The names of the pipeline's class and of its own scheduler's class
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
        pipeline_name, (library, own) = index["_class_name"], index["scheduler"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is not a model in the diffusers layout: model_index.json: {error}") from error
    if library != "diffusers":
        raise ModelError(f"the scheduler of the model in {folder} is {library}.{own}, which diffusers does not have")
    return pipeline_name, own


def _replacing(own: str) -> set[str]:
    # The names of the schedulers that can replace the one named `own`, including itself
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    karras = KarrasDiffusionSchedulers.__members__
    # A class whose packages are not installed is an empty shell that does not say what is compatible with it.
    names = getattr(getattr(diffusers, own, None), "_compatibles", karras if own in karras else ())
    return {own, *names}


def _correct(pipeline: Any, scheduler: Any) -> None:
    # Pipelines in diffusers correct their scheduler's outdated settings when they are made. Here nothing else is given.
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(pipeline).parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it says that the model's configuration is outdated
        pipeline(**parts | {"scheduler": scheduler})
