"""The text that other programs look for inside an image: prompt and settings, in the form of A1111's web UI.

The form is that of AUTOMATIC1111's stable-diffusion-webui (`create_infotext` and `parse_generation_parameters`), which
its forks, image viewers and sites read: the prompt, a line that begins with `Negative prompt:`, and a last line of
settings. It has no way to escape a line of a prompt that itself begins with `Negative prompt:`.
"""

import json

from batchgen import __version__
from batchgen.types import Prompt

_NEGATIVE = "Negative prompt: "
_MORE = " ..."  # at the end of a prompt that is cut
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


def infotext(prompt: Prompt, scheduler: str, model: str, most_bytes: int | None = None) -> str:
    """The text for one image. `scheduler` is the name of diffusers' class. It depends on nothing but the recipe.

    Where a file holds no more than `most_bytes` of it in UTF-16, the prompts are cut, and end with " ...": the settings
    are what nothing else in the file tells.
    """
    settings = {
        "Steps": str(prompt.steps),
        "Sampler": _SAMPLERS.get(scheduler, scheduler.removesuffix("Scheduler")),
        "CFG scale": repr(prompt.guidance).removesuffix(".0"),
        "Seed": str(prompt.seed),
        "Size": f"{prompt.width}x{prompt.height}",
        "Model": model,
        "Version": f"batchgen {__version__}",
    }
    last = ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items())
    texts = [prompt.prompt, prompt.negative_text]
    if most_bytes is not None:
        texts = _cut(texts, most_bytes - _size(f"\n{_NEGATIVE}\n{last}"))
    negative = [f"{_NEGATIVE}{texts[1]}"] if texts[1] else []
    return "\n".join([texts[0], *negative, last]).strip()


def _size(text: str) -> int:
    return len(text.encode("utf-16-be"))


def _cut(texts: list[str], most_bytes: int) -> list[str]:
    """The prompt and the negative prompt in so many bytes together: the shorter has up to half, the other the rest."""
    sizes = [_size(text) for text in texts]
    if sum(sizes) <= most_bytes:
        return texts
    half = most_bytes // 2
    room = [max(half, most_bytes - other) for other in reversed(sizes)]
    return [text if size <= most else _begin(text, most) for text, size, most in zip(texts, sizes, room, strict=True)]


def _begin(text: str, most_bytes: int) -> str:
    data = text.encode("utf-16-be")[: max(0, most_bytes - _size(_MORE)) // 2 * 2]
    return f"{data.decode('utf-16-be', errors='ignore')}{_MORE}"  # half a character goes


def _quoted(value: str) -> str:
    """A value as it can be told from the next one."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value
