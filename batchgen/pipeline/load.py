"""Loading a diffusers pipeline, and its scheduler, the one safe way."""

import inspect
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from batchgen.errors import ModelError
from batchgen.memory.refused import memory_was_refused
from batchgen.models.find import REFUSED_SCHEDULERS, ModelFiles, check_model
from batchgen.models.parts import INDEX_FILE, Part, read_index

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Classes of diffusers, and what to set whatever the model's own scheduler configuration says.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # Its default cuts latents off as if they were pixels. SD's pipeline corrects that and SDXL's does not.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    # Without it the last step ends in no number. Configurations of DPMSolverSinglestepScheduler turn it off.
    "unipc": ("UniPCMultistepScheduler", {"lower_order_final": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}


def load_pipeline(model: ModelFiles, scheduler: str, dtype: str) -> Any:
    """The model's pipeline with the named scheduler, on the CPU, weights in `dtype`; its safety checker if wanted.

    Only safetensors are read, nothing is downloaded, no code of the model's is run. Raises ModelError, and what
    says that the host refused memory as it is.
    """
    folder = model.folder
    parts = check_model(model, scheduler)
    chosen = scheduler_of(folder, scheduler)
    from diffusers import DiffusionPipeline

    try:
        with _view(folder, parts) as view:
            pipe = DiffusionPipeline.from_pretrained(
                view,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                local_files_only=True,
                scheduler=None,  # the model's own may need packages that the chosen one does not
            )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        if memory_was_refused(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the model in {folder} cannot be loaded: {reason}") from error
    pipe.register_modules(scheduler=chosen)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def _view(folder: Path, parts: list[Part]) -> Iterator[Path]:
    """A folder of links to the parts' files under the names that diffusers looks for, and to nothing else."""
    with tempfile.TemporaryDirectory(prefix="batchgen-") as name:
        view = Path(name)
        index = json.loads((folder / INDEX_FILE).read_bytes())
        loaded = {part.name for part in parts}
        left_out = {name: [None, None] for name in read_index(folder)[1] if name not in loaded}
        if "safety_checker" in left_out:
            left_out["requires_safety_checker"] = False  # type: ignore[assignment]
        (view / INDEX_FILE).write_text(json.dumps(index | left_out))
        for part in parts:
            (view / part.name).mkdir()
            for file, path in part.files.items():
                (view / part.name / file).symlink_to(path.resolve())
        yield view


def scheduler_of(folder: Path, name: str) -> Any:
    """The scheduler called `name` for the model in `folder`; 'model' is the model's own. No weights are loaded.

    It is made from the configuration file of the model's own scheduler, which itself is never made for another's sake,
    and has passed through the constructor of the model's pipeline: that is where diffusers sets outdated settings
    (clip_sample, steps_offset) right. Raises ModelError where it cannot be made or cannot replace the model's own.
    """
    import diffusers

    pipeline_name, own = _index(folder)
    if name == "model" and own in REFUSED_SCHEDULERS:
        raise ModelError(f"{own} ignores per-image seeds: set job.scheduler to another")
    class_name, settings = (own, {}) if name == "model" else SCHEDULERS[name]
    if name != "model" and class_name not in _replacing(own):
        raise ModelError(f"job.scheduler={name} does not fit this model's {own}; use job.scheduler=model")
    try:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_bytes())
        scheduler = getattr(diffusers, class_name).from_config(config, **settings)
        _correct(getattr(diffusers, pipeline_name), scheduler)
    except Exception as error:  # a foreign file in foreign constructors: any kind
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        where = f"scheduler/scheduler_config.json of the model in {folder}"
        advice = "mend that, or set job.scheduler to another"
        raise ModelError(f"{class_name} cannot be made from {where}: {reason}; {advice}") from error
    return scheduler


def _index(folder: Path) -> tuple[str, str]:
    # The classes of the pipeline and of its own scheduler
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
        pipeline_name, (library, own) = index["_class_name"], index["scheduler"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is not a model in the diffusers layout: model_index.json: {error}") from error
    if library != "diffusers":
        raise ModelError(f"the scheduler of the model in {folder} is not one of diffusers: {library}.{own}")
    return pipeline_name, own


def _replacing(own: str) -> set[str]:
    # The names of the schedulers that can replace the one named `own`, itself among them
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    karras = KarrasDiffusionSchedulers.__members__
    # A class whose packages are not installed is an empty shell, which does not say what is compatible with it.
    names = getattr(getattr(diffusers, own, None), "_compatibles", karras if own in karras else ())
    return {own, *names}


def _correct(pipeline: Any, scheduler: Any) -> None:
    # Pipelines of diffusers correct their scheduler's outdated settings when they are made, here with no other part.
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(pipeline).parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that the model's configuration is outdated
        pipeline(**parts | {"scheduler": scheduler})
