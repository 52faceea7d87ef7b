"""Whether compiling pays for a job. Pure functions over measured seconds, without torch."""

import math
from dataclasses import dataclass

from batchgen.memory.costs import Task
from batchgen.policy import Policy

# What is expected before anything was measured (H100: SD 1.5 takes 0.70 of the eager time after 59 s of compiling, SDXL
# 0.78 after 97 s). It decides only whether compiling is tried.
LIKELY_SHARE = 0.75
LIKELY_COMPILE_S = 90.0
# Compiled code that is on the disk already is there in about this share of the time, until that was seen.
AGAIN_SHARE = 0.4
# A gain below this share is not worth other low bits, nor the memory of a graph.
LEAST_GAIN = 0.03


@dataclass(frozen=True, slots=True)
class Timed:
    """What one way of computing takes: seconds of a step of a micro-batch, and of a decode chunk."""

    step_s: float
    chunk_s: float

    def batch_s(self, task: Task, policy: Policy) -> float:
        """Seconds of a whole batch."""
        steps_s = task.steps * math.ceil(task.rows / policy.micro_batch) * self.step_s
        return steps_s + math.ceil(task.rows / policy.decode_chunk) * self.chunk_s


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured for one shape: each way, and the seconds to compile, at first and from the disk's code.

    `graphed`: what is compiled, launched as CUDA graphs; None where that was not measured.
    """

    eager: Timed
    compiled: Timed
    compile_s: float
    again_s: float | None = None
    graphed: Timed | None = None

    def best(self, task: Task, policy: Policy) -> tuple[str, Timed]:
        """The fastest way to compute what is compiled, by the name that it has as a setting."""
        launched, graphed = self.compiled, self.graphed
        if graphed is None or graphed.batch_s(task, policy) > (1 - LEAST_GAIN) * launched.batch_s(task, policy):
            return "whole", launched
        return "graphs", graphed

    def start_s(self, is_on_disk: bool) -> float:
        """What a worker waits for compiled code."""
        if not is_on_disk:
            return self.compile_s
        return AGAIN_SHARE * self.compile_s if self.again_s is None else self.again_s


def is_worth_trying(batch_s: float, batches: float, workers: int) -> bool:
    """Whether compiling would probably pay for so many batches of so many seconds, divided among the workers."""
    return batches / workers * batch_s * (1 - LIKELY_SHARE) > LIKELY_COMPILE_S


def pays(measured: Measured, task: Task, policy: Policy, batches: float, start_s: float) -> bool:
    """Whether compiling pays for the `batches` of a worker that waits `start_s` for it."""
    ways = (measured.eager, measured.best(task, policy)[1])
    eager_s, compiled_s = (way.batch_s(task, policy) for way in ways)
    saved_s = eager_s - compiled_s
    return saved_s > LEAST_GAIN * eager_s and batches * saved_s > start_s
