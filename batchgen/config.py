"""The configuration: types and defaults here, values in conf/. Hydra acts once, at the front door.

`load` turns what Hydra composed into a plain `Config`; nothing past the front door sees OmegaConf.
"""

import atexit
import difflib
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from batchgen.bounds import BOUNDS
from batchgen.errors import ConfigError
from batchgen.paths import jobs_dir
from batchgen.types import Columns

_LISTED_NAMES = 12
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{prefix}{i}b": (1024 if i else 1000) ** power for power, prefix in enumerate("kmgt", 1) for i in ("", "i")}
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
SCHEDULERS = ("model", "ddim", "unipc", "euler", "euler_a", "dpm++")
# Where the weights wait while they are not needed, from the fastest to the smallest: pipeline/placement.py.
PLACEMENTS = (
    "resident", "text_offload", "model_offload", "weight_streaming", "group_offload_block", "group_offload_leaf",
    "sequential_offload",
)  # fmt: skip
# Under these the UNet's weights stay where they are while it runs; under the others hooks move them.
UNHOOKED = ("resident", "text_offload", "model_offload")
ATTENTION = ("sdpa", "flash", "efficient", "cudnn", "plain", "xformers")
CHOICES = {
    "job.scheduler": SCHEDULERS,
    "job.on_bad_row": ("skip", "fail"),
    "model.dtype": ("auto", "fp32", "fp16", "bf16"),
    "model.safety_checker": ("off", "flag", "drop"),
    "memory.policy.placement": (None, *PLACEMENTS),
    "speed.attention": ATTENTION,
    "output.format": ("png", "jpg", "webp"),
}


@dataclass
class JobConfig:
    """What to make. Rows of the prompt files may override size, steps, guidance, seed and the like."""

    name: str = "???"
    prompts: Any = "???"  # a path, a glob, or a list of them; relative to the working directory
    encoding: str = "utf-8-sig"
    columns: Columns = field(default_factory=Columns)
    limit: int | None = None  # only the first so many rows
    on_bad_row: str = "skip"
    batch_size: int = 32
    images_per_prompt: int = 1
    width: int = "${model.size_px}"  # type: ignore[assignment]
    height: int = "${model.size_px}"  # type: ignore[assignment]
    steps: int = 30
    guidance: float = "${model.guidance}"  # type: ignore[assignment]
    negative_prompt: str = ""
    scheduler: str = "model"
    seed: int = 0


@dataclass
class ModelConfig:
    """Which model: the name of one that the package carries, a folder in the diffusers layout, or a hub id."""

    path: str = "???"
    revision: str | None = None
    variant: str | None = None  # which of a hub model's weight files to download: fp16, say
    dtype: str = "auto"  # auto: fp32 on the CPU, fp16 on a GPU
    size_px: int = 512  # the size the model was trained for; the default of job.width and job.height
    guidance: float = 7.5  # how strongly it likes to be guided; the default of job.guidance
    # Of a model that has one: flag notes what it says in the sample's JSON, drop leaves such images out.
    safety_checker: str = "off"


@dataclass
class PolicyConfig:
    """The memory policy; a field that is null is chosen."""

    micro_batch: int | None = None  # rows denoised at once
    decode_chunk: int | None = None  # images the VAE decodes at once; 1 is VAE slicing
    tile_px: int | None = None  # edge of a VAE tile; 0: no tiling
    placement: str | None = None  # resident, or where the weights wait in host memory
    stream_buffers: int | None = None  # weight streaming: how many groups of layers are on the device at once
    guidance_split: bool | None = None  # the two passes of guidance one after the other: half the activations
    threads: int | None = None  # of torch on the CPU


@dataclass
class MemoryConfig:
    """How the model sits in memory."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    max_vram: str | None = None  # the most that a worker may take of its GPU: 6GiB, say
    assume_vram: str | None = None  # of a dry run on a machine without a GPU: plan for one with so much free


@dataclass
class SpeedConfig:
    """How the model computes. Each changes low bits of images."""

    channels_last: bool = False  # the memory format that tensor cores like for convolutions
    traced: bool = False  # the UNet recorded by torch.jit.trace, once for each shape
    attention: str = "sdpa"  # tried at the start; where it does not run, sdpa is used and the log says why


@dataclass
class OutputConfig:
    """What is written."""

    format: str = "png"
    quality: int | None = None  # of jpg and webp
    batches_per_shard: int = 32


@dataclass
class LaunchConfig:
    """The worker processes; free to change when a run is resumed."""

    workers: int | None = None  # null: one for each GPU, or one on the CPU
    restarts: int = 3  # how often in a row a worker that died is started again without having got on
    lease_timeout_s: float = 60.0  # a worker not heard of for so long, or for ten of its steps, is taken to be dead
    wait_for_others: bool = True  # workers stay until the last shard is in, to take over what a dead one leaves


@dataclass
class Config:
    """The whole configuration."""

    run_dir: str = "outputs/${job.name}"
    dry_run: bool = False
    extend: bool = False  # plan the rows of prompt files that were added to a run
    retry_failed: bool = False  # try failed images again
    job: JobConfig = field(default_factory=JobConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)


def register() -> None:
    """Tell Hydra the schema and the resolvers that conf/ uses."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store("schema", Config)
    OmegaConf.register_new_resolver("batchgen.jobs", lambda name: str(jobs_dir() / name), replace=True)
    OmegaConf.register_new_resolver("batchgen.scratch", _scratch, replace=True, use_cache=True)


def _scratch() -> str:
    """Hydra insists on a folder for each sweep's multirun.yaml; nobody reads it."""
    folder = tempfile.mkdtemp(prefix="batchgen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(composed: Any) -> Config:
    """A checked `Config` from what Hydra composed. Raises ConfigError, or OmegaConf's own errors."""
    from omegaconf import OmegaConf

    # Composed once more: a key added with + has slipped past the schema.
    plain = OmegaConf.to_container(composed, resolve=False)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert isinstance(config, Config)
    check(config)
    return config


def from_plain(values: dict[str, Any]) -> Config:
    """The `Config` that `asdict` made plain, as a plan's config.yaml holds it."""
    config = _build(Config, values)
    assert isinstance(config, Config)
    return config


def _build(kind: Any, values: dict[str, Any]) -> Any:
    nested = {one.name: one.default_factory for one in fields(kind) if is_dataclass(one.default_factory)}
    return kind(**{key: _build(nested[key], value) if key in nested else value for key, value in values.items()})


def check(config: Config) -> None:
    """Refuse values that no run could use. Raises ConfigError with one line that says what is possible."""
    for name, value in flatten(asdict(config)).items():
        if name in CHOICES and value not in CHOICES[name]:
            raise ConfigError(f"{name}={value} is not possible{did_you_mean(str(value), CHOICES[name])}")
        bound = None if name.startswith("job.columns.") else BOUNDS.get(name.rpartition(".")[2])
        no_tiling = name == "memory.policy.tile_px" and value == 0
        if bound and value is not None and not no_tiling and (problem := bound.problem(name, value)):
            raise ConfigError(problem)
    for name in ("max_vram", "assume_vram"):
        if (value := getattr(config.memory, name)) is not None:
            size_bytes(f"memory.{name}", value)
    if config.speed.traced and config.memory.policy.placement not in (None, *UNHOOKED):
        raise ConfigError(
            f"speed.traced=true needs the UNet's weights in one place, not memory.policy.placement="
            f"{config.memory.policy.placement}: set one of the two"
        )
    if (problem := BOUNDS["width"].problem("model.size_px", config.model.size_px)) is not None:
        raise ConfigError(problem)
    if not _NAME.fullmatch(config.job.name):
        raise ConfigError(f"job.name={config.job.name!r} must be a plain name: it becomes the run's directory")
    prompts = config.job.prompts
    if not (isinstance(prompts, str) or _is_list_of_text(prompts)) or not prompts:
        raise ConfigError("job.prompts must be a path, a glob, or a list of them, such as '[a.txt,b/*.csv]'")


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def size_bytes(name: str, value: str) -> int:
    """`6GiB`, `6GB` (which is less) or `800MiB` in bytes. Raises ConfigError in the name of the key."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ConfigError(f"{name}={value} is not a size: write it as 6GiB, 6GB or 800MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def prompt_patterns(config: Config) -> list[str]:
    """`job.prompts` as a list."""
    prompts = config.job.prompts
    return [prompts] if isinstance(prompts, str) else list(prompts)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'job': {'steps': 20}} as {'job.steps': 20}; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def known_keys() -> list[str]:
    """Every key of the configuration, dotted, groups too: job, job.name, ..."""
    leaves = flatten(asdict(Config()))
    groups = {key[:at] for key in leaves for at, char in enumerate(key) if char == "."}
    return sorted(groups | set(leaves))


def did_you_mean(wrong: str, known: Any) -> str:
    """What to append to 'X is not possible': the nearest right names, or the possible ones when none is near."""
    names = list(known)
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; possible: {', '.join(names)}" if len(names) <= _LISTED_NAMES else "; --help lists the possible ones"
