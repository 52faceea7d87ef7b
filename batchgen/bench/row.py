"""One row is measured in a process of its own, so that its memory and compiled code are its own.

    python -m batchgen.bench.row < request.json > answer.json

The answer has `seconds` of `images` (a batch, or one image), `start_s` from the start of the process to the end of the
first batch, and `peak_bytes`; or why it `failed` or is `left_out`.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.bench.own import run_command
from batchgen.bench.task import Task
from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError, in_one_line
from batchgen.machine.process import started_s
from batchgen.models.aside import answer
from batchgen.models.find import locate


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request. Raises ModelError where a GPU cannot be used."""
    if request["maker"] == "device":
        return _device(request["is_gpu"])
    if request["maker"] == "own":
        return run_command(request["words"], Path(request["folder"]), request["rows"], request["speed"])
    return _script(request)


def _device(is_gpu: bool) -> dict[str, Any]:
    """How fast the device multiplies matrices, in 16 bits on a GPU, in fp32 on a CPU."""
    import torch

    from batchgen.bench.timing import timed

    if is_gpu and not torch.cuda.is_available():
        raise ModelError("torch cannot use the GPU: `python -m batchgen.doctor` says more")
    size, dtype, device = (4096, torch.float16, "cuda") if is_gpu else (1024, torch.float32, "cpu")
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    taken = timed(lambda: [left @ right for _ in range(4)], 3)
    return {"flop_per_s": 4 * 2 * size**3 / taken.seconds}


def _script(request: dict[str, Any]) -> dict[str, Any]:
    import torch

    from batchgen.bench import compiled, guide
    from batchgen.bench.timing import peak_bytes
    from batchgen.memory.refused import memory_was_refused
    from batchgen.pipeline.load import load_pipeline

    model = locate(ModelConfig(**request["model"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(dtype: str) -> Any:
        return load_pipeline(model, request["scheduler"], "fp32" if dtype == "fp32" else request["half"]).to(device)

    task = Task(**request["task"])
    makers = {"guide_batch": guide.batch, "compile": compiled.batch}
    make = makers.get(request["name"]) or partial(guide.one_image, upto=request["name"])
    try:
        taken = make(load, task)
    except Exception as error:  # what does not run here is a row that says so
        if memory_was_refused(error):
            return {"failed": "it ran out of memory"}
        return {"failed": f"{type(error).__name__}: {in_one_line(error)}"}
    images = task.rows if request["name"] in makers else 1
    start_s = round(taken.ended - started_s(), 3)
    return {"seconds": taken.seconds, "images": images, "start_s": start_s, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    sys.exit(answer(measure))
