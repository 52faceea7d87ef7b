"""Loading a diffusers pipeline the one safe way."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from batchgen.errors import ModelError, in_one_line
from batchgen.memory.refused import memory_was_refused
from batchgen.models.find import ModelFiles, check_model
from batchgen.models.parts import INDEX_FILE, Part, read_index
from batchgen.pipeline.inversion import add_words
from batchgen.pipeline.schedulers import scheduler_of

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_pipeline(model: ModelFiles, scheduler: str, dtype: str) -> Any:
    """The model's pipeline on the CPU, with the named scheduler and weights in `dtype`.

    It has its safety checker only if that is wanted. Only safetensors are read, nothing is downloaded, and no code that
    comes with the model is run. Raises ModelError; an error that means that the host refused memory passes unchanged.
    """
    folder = model.folder
    parts = check_model(model, scheduler)
    chosen = scheduler_of(folder, scheduler, model.timesteps)
    from diffusers import DiffusionPipeline

    try:
        with view_of(folder, parts) as view:
            pipe = DiffusionPipeline.from_pretrained(
                view,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                local_files_only=True,
                **{name: None for name in model.family.optional if name not in {part.name for part in parts}},
                scheduler=None,  # the model's own scheduler may need packages that the chosen one does not
            )
    except Exception as error:  # a loader may raise anything for files that it does not expect
        if memory_was_refused(error):
            raise
        raise ModelError(f"the model in {folder} cannot be loaded: {in_one_line(error)}") from error
    pipe.register_modules(scheduler=chosen)
    add_words(pipe, model.embeddings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def view_of(folder: Path, parts: list[Part]) -> Iterator[Path]:
    """A folder that has only links to the parts' files, under the names that diffusers looks for."""
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
