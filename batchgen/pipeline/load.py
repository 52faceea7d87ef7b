"""Loading a diffusers pipeline, and its scheduler, the one safe way."""

import os
from pathlib import Path
from typing import Any

import torch

from batchgen.errors import ModelError
from batchgen.pipeline.model import REFUSED_SCHEDULERS, check_model

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Classes of diffusers, and what to set beside the model's own scheduler configuration.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}


def load_pipeline(
    folder: Path, scheduler: str, dtype: str, variant: str | None = None, safety_checker: bool = False
) -> Any:
    """The pipeline in `folder` with the named scheduler, on the CPU, weights in `dtype`; its safety checker if wanted.

    Only safetensors are read, nothing is downloaded, no code of the model's is run. Raises ModelError.
    """
    check_model(folder, scheduler, "flag" if safety_checker else "off")
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    from diffusers import DiffusionPipeline

    # A local folder may have one set of weights alone, without the variant's mark in their names.
    marked = variant is not None and any(folder.glob(f"*/*.{variant}.safetensors"))
    # A component given as None is not loaded.
    spare = {"safety_checker": None, "requires_safety_checker": False}
    has_spare = "safety_checker" in (folder / "model_index.json").read_text() and not safety_checker
    try:
        pipe = DiffusionPipeline.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            local_files_only=True,
            variant=variant if marked else None,
            **(spare if has_spare else {}),
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the model in {folder} cannot be loaded: {reason}") from error
    if pipe.unet.config.get("time_cond_proj_dim"):
        raise ModelError(f"{folder} embeds its guidance (time_cond_proj_dim), which batchgen does not run yet")
    pipe.scheduler = make_scheduler(scheduler, pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_scheduler(name: str, own: Any) -> Any:
    """The scheduler called `name`, set up from the model's `own`; 'model' is the own one itself.

    Raises ModelError for a model whose own scheduler the named one cannot stand in for.
    """
    if name == "model":
        if type(own).__name__ in REFUSED_SCHEDULERS:
            raise ModelError(f"{type(own).__name__} ignores per-image seeds: set job.scheduler to another")
        return own
    import diffusers

    class_name, settings = SCHEDULERS[name]
    kind = getattr(diffusers, class_name)
    if kind not in own.compatibles and not isinstance(own, kind):
        raise ModelError(f"job.scheduler={name} does not fit this model's {type(own).__name__}; use model")
    return kind.from_config(own.config, **settings)
