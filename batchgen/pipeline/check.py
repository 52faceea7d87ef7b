"""The part of checking a model that needs torch: whether its weights are complete and its scheduler works.

It runs in a process of its own:

    python -m batchgen.pipeline.check < request.json > answer.json

No weights are read. Each part is built without memory (on torch's meta device), and the names and shapes in the
headers of its files go through the functions with which its loader renames and ties them.
"""

import os
import sys
from pathlib import Path
from typing import Any

from batchgen.config.bounds import BOUNDS
from batchgen.errors import ModelError, in_one_line
from batchgen.models.aside import answer
from batchgen.models.families.texts import TextOptions
from batchgen.models.find import ModelFiles, Timesteps, check_model
from batchgen.models.parts import Part, settings, tensors
from batchgen.pipeline.rehearse import rehearse

# These numbers of steps are tried too, so that using one of them later needs no new check.
_USUAL_STEPS = range(1, 61)
# Where a number of steps does not work, numbers up to so many away are tried, and then these, to name one that does.
_NEAR = 5
_LIKELY_TO_WORK = (50, 30, 20, 10, 4, 1)


def check(model: ModelFiles, scheduler: str, steps: list[int], likely: list[int]) -> dict[str, Any]:
    """What can be known about a model before its weights are loaded.

    Returns {"told": remarks, "steps": numbers of steps that the scheduler can make: all of `steps`, and more}.
    Raises ModelError, with a message of one line, if a run could not use the model.
    """
    os.environ |= {"DIFFUSERS_DISABLE_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1"}
    parts = check_model(model, scheduler)
    judged = {part.name: judge(part) for part in parts if part.weights}
    working = working_steps(model, scheduler, steps, likely)
    rehearse(model, parts, scheduler, {name: built for name, (built, _) in judged.items()})
    return {"told": [remark for _, remarks in judged.values() for remark in remarks], "steps": working}


def check_loras(model: ModelFiles, scheduler: str, loras: dict[str, str]) -> dict[str, Any]:
    """What can be known about LoRA files, {digest: path}, before they are merged: {"loras": {digest: remarks}}.

    Raises ModelError, with a message of one line, for one that does not fit the model.
    """
    from batchgen.pipeline.lora_file import lora_kind, read_lora, refuse_infinite

    kind = lora_kind(model.family)
    built = {part.name: judge(part)[0] for part in check_model(model, scheduler) if part.name in kind.parts}
    told = {}
    for sha256, path in loras.items():
        changes = read_lora(kind, Path(path), built)
        refuse_infinite(Path(path), changes)
        told[sha256] = changes.told
    return {"loras": told}


def judge(part: Part, shapes: dict[str, list[int]] | None = None) -> tuple[Any, list[str]]:
    """The part on the meta device, and remarks about its weights. `shapes`: of these, if not of its files.

    Raises ModelError if they are not what its configuration needs.
    """
    import torch

    if shapes is None:
        shapes = {name: shape for path in part.weights for name, shape in tensors(path).items()}
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    find = _diffusers_keys if part.library == "diffusers" else _transformers_keys
    where = next(iter(part.files.values())).parent
    try:
        model, missing, unexpected, odd = find(part, state)
    except ModelError:
        raise
    except Exception as error:  # a constructor may raise anything for settings it does not expect
        reason = in_one_line(error)
        raise ModelError(f"{where}: the model's {part.name} cannot be built from its config.json: {reason}") from error
    advice = "its weights and its config.json do not belong together; copy both from the same model"
    if missing:
        also = f" and has {_count(unexpected)} that the model does not know" if unexpected else ""
        raise ModelError(f"{where} lacks {_count(missing)}{also}: {advice}")
    if odd:
        raise ModelError(f"{where} has {_count(odd)} of the wrong shape: {advice}")
    if unexpected and part.library == "diffusers":  # they belong to another model; in others it may be a leftover
        raise ModelError(f"{where} has {_count(unexpected)} that the model does not know: {advice}")
    return model, [f"{where} has {_count(unexpected)} that the model does not use"] if unexpected else []


def _count(keys: list[str]) -> str:
    return f"the weight {keys[0]}" if len(keys) == 1 else f"{len(keys)} weights (the first: {keys[0]})"


def _diffusers_keys(part: Part, state: dict[str, Any]) -> tuple[Any, list[str], list[str], list[str]]:
    # The model, missing keys, unexpected keys and keys of the wrong shape, found as ModelMixin.from_pretrained and
    # _load_pretrained_model of diffusers 0.42.1 find them
    import re

    import diffusers
    import torch

    with torch.device("meta"):
        model = getattr(diffusers, part.kind).from_config(settings(part))
    if len(part.weights) <= 1:  # it renames nothing in a model of several files
        model._fix_state_dict_keys_on_load(state)
    expected = model.state_dict()
    unexpected = sorted(state.keys() - expected.keys())
    for pattern in model._keys_to_ignore_on_load_unexpected or ():
        unexpected = [key for key in unexpected if re.search(pattern, key) is None]
    odd = sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)
    return model, sorted(expected.keys() - state.keys()), unexpected, odd


def _transformers_keys(part: Part, state: dict[str, Any]) -> tuple[Any, list[str], list[str], list[str]]:
    # The same, as PreTrainedModel.from_pretrained of transformers 5.23 reports them
    import diffusers.pipelines
    import transformers

    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    library = transformers if part.library == "transformers" else getattr(diffusers.pipelines, part.library)
    kind = getattr(library, part.kind)
    model, info = kind.from_pretrained(
        None,
        config=kind.config_class.from_dict(settings(part)),
        state_dict=state,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        device_map={"": "meta"},
    )
    odd = [one if isinstance(one, str) else one[0] for one in info["mismatched_keys"]]
    return model, sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), sorted(odd)


def working_steps(model: ModelFiles, name: str, steps: list[int], likely: list[int]) -> list[int]:
    """The numbers of steps that the scheduler `name` can make, among `steps`, `likely` ones and usual ones.

    Each is tried with a latent of a few numbers. Raises ModelError if the scheduler cannot make one of `steps`.
    """
    from batchgen.pipeline.schedulers import scheduler_of

    scheduler = scheduler_of(model.folder, name, model.timesteps)
    working = []
    for count in dict.fromkeys([*steps, *likely, *_USUAL_STEPS]):
        problem = _problem(scheduler, count)
        if problem is None:
            working.append(count)
        elif count in steps:
            advice = _advice(model, name, scheduler, count)
            raise ModelError(f"{type(scheduler).__name__} cannot make {count} steps: {problem}; {advice}")
    return sorted(working)


def _advice(model: ModelFiles, name: str, scheduler: Any, count: int) -> str:
    """What to do where the scheduler called `name` cannot make so many steps; what would not work is left out."""
    from batchgen.pipeline.schedulers import others

    near = _near(scheduler, count)
    if near is None:
        advice = f"fix scheduler/scheduler_config.json of the model in {model.folder} or copy it again"
    else:
        advice = f"set job.steps (or the row's steps) to {near}"
    made = others(model.folder, name, model.timesteps)
    another = next((other for other, one in made if _problem(one, count) is None), None)
    set_it = "" if near is not None else "set "
    return advice if another is None else f"{advice}, or {set_it}job.scheduler={another}"


def _near(scheduler: Any, count: int) -> int | None:
    """A number of steps that the scheduler can make, as near to `count` as it is easily found."""
    others = [*range(count + 1, count + _NEAR), *range(count - 1, max(0, count - _NEAR), -1), *_LIKELY_TO_WORK]
    allowed = [one for one in others if one <= BOUNDS["steps"].high]
    return next((one for one in allowed if _problem(scheduler, one) is None), None)


def _problem(scheduler: Any, count: int) -> str | None:
    import torch

    sample = torch.linspace(-1.0, 1.0, 16).view(1, 1, 4, 4)
    try:
        # Some schedules are shifted by the size, which pipelines know.
        shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}
        scheduler.set_timesteps(count, device="cpu", **shift)
        sample = sample * getattr(scheduler, "init_noise_sigma", 1.0)
        for timestep in scheduler.timesteps:
            noise = 0.5 * getattr(scheduler, "scale_model_input", _unscaled)(sample, timestep)
            sample = scheduler.step(noise, timestep, sample, return_dict=False)[0]
    except Exception as error:  # a scheduler may raise anything
        return in_one_line(error)
    return None if bool(sample.isfinite().all()) else "its values become infinite or not a number"


def _unscaled(sample: Any, _: Any) -> Any:
    return sample


def model_of(request: dict[str, Any]) -> ModelFiles:
    """The model that a request is about; what is said of it is taken out of the request."""
    folder, timesteps = Path(request.pop("folder")), Timesteps(*request.pop("timesteps"))
    how = {name: request.pop(name) for name in ("variant", "safety_checker")}
    return ModelFiles(folder, **how, timesteps=timesteps, texts=TextOptions.of(request.pop("texts")))


def main() -> int:
    """Answer the request on standard input with what `check` returns, or {"problem": why the model is refused}."""
    return answer(lambda request: (check_loras if "loras" in request else check)(model_of(request), **request))


if __name__ == "__main__":
    sys.exit(main())
