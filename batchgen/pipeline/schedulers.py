"""The scheduler of a model: its own, or another one that can replace it, set right as diffusers does it."""

import inspect
import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchgen.errors import ModelError, in_one_line
from batchgen.models.find import REFUSED_SCHEDULERS, Timesteps
from batchgen.models.parts import read_index

# Classes of diffusers, with the settings that override the configuration of the model's own scheduler.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # By default it clips latents as if they were pixels. SD's pipeline corrects that, SDXL's does not.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    # Without this the last step gives not-a-number. Configurations of DPMSolverSinglestepScheduler turn it off.
    "unipc": ("UniPCMultistepScheduler", {"lower_order_final": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "lcm": ("LCMScheduler", {"clip_sample": False}),
    "tcd": ("TCDScheduler", {"clip_sample": False}),
}
# They come in place of DDIM, though diffusers does not list them; their own spacing of the steps is fixed.
_OF_FEW_STEPS = ("LCMScheduler", "TCDScheduler")
AS_IT_IS = Timesteps()
_FLOW, _FOR_FLOW = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"
# It gives the noise levels as a list, with which UniPC of diffusers 0.42.1 cannot calculate.
_WITHOUT_UNIPC = ("ZImagePipeline",)


def scheduler_of(folder: Path, name: str, timesteps: Timesteps = AS_IT_IS) -> Any:
    """The scheduler called `name` for the model in `folder`; 'model' is the model's own. No weights are loaded.

    It is made from the configuration file of the model's own scheduler, without making that one. It has passed through
    the constructor of the model's pipeline, because diffusers corrects outdated settings (clip_sample, steps_offset)
    there. Raises ModelError if it cannot be made or cannot replace the model's own.
    """
    pipeline_name, own = _index(folder)
    if name == "model" and own in REFUSED_SCHEDULERS:
        raise ModelError(f"{own} ignores per-image seeds: set job.scheduler to another one")
    class_name = own if name == "model" else SCHEDULERS[name][0]
    if class_name not in _replacing(own, pipeline_name):
        raise ModelError(f"job.scheduler={name} does not fit this model's {own}; use job.scheduler=model")
    try:
        scheduler = _made(folder, pipeline_name, own, name, timesteps)
    except Exception as error:  # a constructor may raise anything for a file it does not expect
        where = f"scheduler/scheduler_config.json of the model in {folder}"
        another = next((other for other, _ in others(folder, name)), None)
        advice = "fix that file or copy it again" + (f", or set job.scheduler={another}" if another else "")
        raise ModelError(f"{class_name} cannot be made from {where}: {in_one_line(error)}; {advice}") from error
    if timesteps.spacing is not None and not _is_spaced(scheduler):
        raise ModelError(
            f"model.timestep_spacing={timesteps.spacing}: the steps of {class_name} are not spaced by it; leave it "
            "out, or set job.scheduler to another one"
        )
    if timesteps.shift is not None and not _is_of_flow(scheduler):
        raise ModelError(f"model.timestep_shift is for flow models, and {class_name} is of another kind: leave it out")
    return scheduler


def others(folder: Path, name: str, timesteps: Timesteps = AS_IT_IS) -> Iterator[tuple[str, Any]]:
    """What `job.scheduler` could be in place of `name`, each with its scheduler, as far as they can be made.

    There are none where the scheduler's file itself is at fault. Raises ModelError where the model names no scheduler.
    """
    pipeline_name, own = _index(folder)
    replacing = _replacing(own, pipeline_name)
    fitting = [other for other, (class_name, _) in SCHEDULERS.items() if class_name in replacing]
    for other in [*fitting, *(["model"] if own not in REFUSED_SCHEDULERS else [])]:
        scheduler = None
        with suppress(Exception):  # as above
            scheduler = _made(folder, pipeline_name, own, other, timesteps) if other != name else None
        if scheduler is not None and (timesteps.spacing is None or _is_spaced(scheduler)):
            yield other, scheduler


def _made(folder: Path, pipeline_name: str, own: str, name: str, timesteps: Timesteps) -> Any:
    # Raises anything
    import diffusers

    class_name, settings = (own, {}) if name == "model" else SCHEDULERS[name]
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_bytes())
    if own == _FLOW and class_name == _FOR_FLOW:
        # The shift has another name here; one that goes by the size has the same name, and the pipeline gives it.
        shift = {"flow_shift": config.get("shift", 1.0)}
        settings = settings | shift | {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    if timesteps.spacing is not None:
        settings = settings | {"timestep_spacing": timesteps.spacing}
    kind = getattr(diffusers, class_name)
    if timesteps.shift is not None:
        shift = {"shift": timesteps.shift, "flow_shift": timesteps.shift}  # each class of flow has one of them
        shift |= {"use_dynamic_shifting": False, "shift_terminal": None}
        settings = settings | {name: shift[name] for name in shift.keys() & inspect.signature(kind).parameters.keys()}
    scheduler = kind.from_config(config, **settings)
    _correct(getattr(diffusers, pipeline_name), scheduler)
    return scheduler


def _index(folder: Path) -> tuple[str, str]:
    # The names of the pipeline's class and of its own scheduler's class
    import diffusers

    pipeline_name, kinds = read_index(folder)
    library, own = kinds["scheduler"]
    if library != "diffusers" or not hasattr(diffusers, own):
        where = f"the scheduler of the model in {folder} is {library}.{own}"
        raise ModelError(f"{where}, which diffusers does not have: correct model_index.json")
    return pipeline_name, own


def _replacing(own: str, pipeline_name: str) -> set[str]:
    # The names of the schedulers that can replace the one named `own` in a pipeline, including itself
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    karras = KarrasDiffusionSchedulers.__members__
    # A class whose packages are not installed is an empty shell that does not say what is compatible with it.
    names = {own, *getattr(getattr(diffusers, own, None), "_compatibles", karras if own in karras else ())}
    if own == _FLOW and pipeline_name not in _WITHOUT_UNIPC:
        names.add(_FOR_FLOW)
    return names | {*_OF_FEW_STEPS} if "DDIMScheduler" in names else names


def _is_spaced(scheduler: Any) -> bool:
    # Whether its timesteps go by `timestep_spacing`; some have the setting and do not look at it.
    config = scheduler.config
    is_free = type(scheduler).__name__ not in _OF_FEW_STEPS and not config.get("use_flow_sigmas")
    return is_free and "timestep_spacing" in inspect.signature(type(scheduler)).parameters


def _is_of_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__ == _FLOW or bool(scheduler.config.get("use_flow_sigmas"))


def _correct(pipeline: Any, scheduler: Any) -> None:
    # Pipelines in diffusers correct their scheduler's outdated settings when they are made. Here nothing else is given.
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(pipeline).parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it says that the model's configuration is outdated
        pipeline(**parts | {"scheduler": scheduler})
