"""What a script by hand is to make: size, steps and scale, and how a pipeline of diffusers is called for it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROMPT = "a photo of an astronaut riding a horse on mars, number {}"
Load = Callable[[str], Any]
"""Gives diffusers' pipeline on the device, without its bar, for "fp32" or "half", which is fp32 on a CPU."""


@dataclass(frozen=True, slots=True)
class Task:
    """`rows` images at once of width x height px in `steps`; `batches` such batches are measured.

    `scale`: of guidance, under the keyword that the model's pipeline has for it.
    """

    width: int
    height: int
    steps: int
    scale: float
    rows: int = 1
    batches: int = 1
    keyword: str = "guidance_scale"

    def call(self, pipe: Any, rows: int, **more: Any) -> Any:
        """What the pipeline returns for so many prompts, each another one."""
        known = inspect.signature(type(pipe).__call__).parameters
        given: dict[str, Any] = {self.keyword: self.scale} if self.keyword in known else {}
        if self.keyword == "true_cfg_scale":  # which counts only beside a negative prompt
            given["negative_prompt"] = [" "] * rows
        prompts = [PROMPT.format(place) for place in range(rows)]
        size = {"height": self.height, "width": self.width}
        return pipe(prompt=prompts, **size, num_inference_steps=self.steps, **given, **more)
