"""Which configurations are valid, beyond their types: choices, bounds, and settings that exclude each other."""

import difflib
import re
import time
from dataclasses import asdict
from typing import Any

from batchgen.config.bounds import BOUNDS
from batchgen.config.loras import parse_loras
from batchgen.config.sbatch import require_right
from batchgen.config.schema import ATTENTION, SCHEDULERS, Config, ModelConfig, flatten
from batchgen.errors import ConfigError
from batchgen.placements import PLACEMENTS, STEADY, UNHOOKED
from batchgen.units import duration_s, moment_s, size_bytes

_MOST_LISTED = 12
_MOST_TOLD_PX = 65_536  # of sizes that a model is told
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
# A password or the like that is written out; one that comes from a variable or a command is not.
_SECRET = re.compile(r"\b(\w*(?:TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY\w*))=[\"']?(?![\"'$`]|\s|$)", re.IGNORECASE)
CHOICES = {
    "dry_run": ("false", "true", "probe", "json"),
    "job.scheduler": SCHEDULERS,
    "model.scheduler": SCHEDULERS,
    "model.timestep_spacing": (None, "trailing", "leading", "linspace"),
    "job.on_bad_row": ("skip", "fail"),
    "model.dtype": ("auto", "fp32", "fp16", "bf16"),
    "model.safety_checker": ("off", "flag", "drop"),
    "memory.policy.placement": (None, *PLACEMENTS),
    "speed.attention": ATTENTION,
    "speed.compile": ("auto", "eager", "blocks", "whole", "graphs"),
    "output.format": ("png", "jpg", "webp"),
    "output.metadata": ("none", "a1111"),
    "launch.launcher": ("local", "slurm"),
    "determinism": ("best", "strict"),
}


def check(config: Config) -> None:
    """Refuse values that no run could use. Raises ConfigError with one line that says which values are valid."""
    for name, value in flatten(asdict(config)).items():
        written = str(value).lower() if isinstance(value, bool) else value  # as YAML writes it
        if name in CHOICES and written not in CHOICES[name]:
            raise ConfigError(f"{name}={written} is not valid{did_you_mean(str(written), CHOICES[name])}")
        bound = None if name.startswith("job.columns.") else BOUNDS.get(name.rpartition(".")[2])
        no_tiling = name == "memory.policy.tile_px" and value == 0
        if bound and value is not None and not no_tiling and (problem := bound.problem(name, value)):
            raise ConfigError(problem)
    for name in ("max_vram", "assume_vram"):
        if (value := getattr(config.memory, name)) is not None:
            size_bytes(f"memory.{name}", value)
    if config.launch.stop_at is not None:
        moment_s("launch.stop_at", config.launch.stop_at, time.time())
    limit, warn_s = config.launch.time_limit, config.launch.warn_s
    if limit is not None and duration_s("launch.time_limit", limit) <= warn_s:
        raise ConfigError(
            f"launch.time_limit={limit} leaves no time to work, because launch.warn_s={warn_s:g} seconds are kept for "
            "the end: allow more time, or set launch.warn_s to less"
        )
    require_right("launch.slurm", config.launch.slurm)
    require_right("launch.collector", config.launch.collector)
    for line in config.launch.setup:
        if (secret := _SECRET.search(line)) is not None:
            raise ConfigError(
                f"launch.setup: {secret[1]}=... would be readable in the run's files: set it in the shell that starts "
                "batchgen, from which SLURM takes it over, or read it there from a file of your own"
            )
    if not config.output.keep_local and config.output.copy_to is None:
        raise ConfigError(
            "output.keep_local=false needs output.copy_to=ADDRESS, or the images would be nowhere: set it, such as "
            "output.copy_to=s3://BUCKET/FOLDER"
        )
    if config.speed.traced and config.memory.policy.placement not in (None, *UNHOOKED):
        raise ConfigError(
            "speed.traced=true needs a placement that does not move the denoiser's weights, but "
            f"memory.policy.placement={config.memory.policy.placement} does: change one of the two"
        )
    if config.speed.compile in ("blocks", "whole", "graphs"):
        _check_compiled(config)
    if (problem := BOUNDS["width"].problem("model.size_px", config.model.size_px)) is not None:
        raise ConfigError(problem)
    try:
        parse_loras(config.model.lora)
    except ValueError as error:
        raise ConfigError(f"model.lora: {error}") from error
    _check_told_sizes(config.model)
    if not _NAME.fullmatch(config.job.name):
        raise ConfigError(
            f"job.name={config.job.name!r} must be a plain name (letters, digits, _ . -): it names the run's directory"
        )
    prompts = config.job.prompts
    if not (isinstance(prompts, str) or _is_list_of_text(prompts)) or not prompts:
        raise ConfigError("job.prompts must be a path, a glob, or a list of them, such as '[a.txt,b/*.csv]'")


def _check_compiled(config: Config) -> None:
    """Refuse what cannot be compiled."""
    setting, placement = f"speed.compile={config.speed.compile}", config.memory.policy.placement
    allowed = STEADY if config.speed.compile == "graphs" else UNHOOKED
    if placement not in (None, *allowed):
        raise ConfigError(
            f"{setting} needs a placement that has the denoiser's weights in place ({', '.join(allowed)}), but "
            f"memory.policy.placement={placement} does not: change one of the two"
        )
    if config.speed.traced or config.speed.attention == "xformers":
        other = "speed.traced=true" if config.speed.traced else "speed.attention=xformers"
        raise ConfigError(f"{setting} does not work with {other}: set one of the two")


def _check_told_sizes(model: ModelConfig) -> None:
    """Refuse sizes and places that are not two numbers of pixels, and a size for negative prompts without the other."""
    for name, value in vars(model).items():
        if not name.endswith(("original_size", "target_size", "crop_top_left")) or value is None:
            continue
        form, least = ("[x, y]", 0) if name.endswith("left") else ("[width, height]", 1)
        if len(value) != 2 or not all(least <= one <= _MOST_TOLD_PX for one in value):
            raise ConfigError(f"model.{name}={value} must be {form} in pixels, each from {least} to {_MOST_TOLD_PX}")
    sizes = (model.negative_original_size, model.negative_target_size)
    if None in sizes and (*sizes, model.negative_crop_top_left) != (None, None, None):
        raise ConfigError(
            "what a negative prompt is told takes both model.negative_original_size and model.negative_target_size: "
            "set both, or none"
        )


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def did_you_mean(wrong: str, known: Any) -> str:
    """What to append to 'X is not valid': the names that are close to it, or the valid names if none is close."""
    names = [str(name) for name in known if name is not None]
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    more = f", and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"; choose one of {', '.join(names[:_MOST_LISTED])}{more}"
