"""The text that other programs look for inside an image: prompt and settings, in the form of A1111's web UI.

The form is that of AUTOMATIC1111's stable-diffusion-webui (`create_infotext` and `parse_generation_parameters`), which
its forks, image viewers and sites read: the prompt, a line that begins with `Negative prompt:`, and a last line of
settings. It has no way to escape a line of a prompt that itself begins with `Negative prompt:`.
"""

import json

from batchgen import __version__
from batchgen.types import Prompt

# A1111's names of what diffusers' classes do. Any other class keeps its own name.
_SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


def infotext(prompt: Prompt, scheduler: str, model: str) -> str:
    """The text for one image. `scheduler` is the name of diffusers' class. It depends on nothing but the recipe."""
    settings = {
        "Steps": str(prompt.steps),
        "Sampler": _SAMPLERS.get(scheduler, scheduler.removesuffix("Scheduler")),
        "CFG scale": repr(prompt.guidance).removesuffix(".0"),
        "Seed": str(prompt.seed),
        "Size": f"{prompt.width}x{prompt.height}",
        "Model": model,
        "Version": f"batchgen {__version__}",
    }
    negative = [f"Negative prompt: {prompt.negative_text}"] if prompt.negative_text else []
    last = ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items())
    return "\n".join([prompt.prompt, *negative, last]).strip()


def _quoted(value: str) -> str:
    """A value as it can be told from the next one."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value
