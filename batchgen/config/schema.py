"""The configuration: types and defaults here, values in conf/.

Nothing past the front door sees OmegaConf: a run holds a plain `Config`.
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from batchgen.types import Columns

SCHEDULERS = ("model", "ddim", "unipc", "euler", "euler_a", "dpm++")
ATTENTION = ("sdpa", "flash", "efficient", "cudnn", "plain", "xformers")


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
    variant: str | None = None  # which set of weight files: fp16, say; a part without them has plain ones
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
    batches_per_shard: int | None = None  # null: by batches and workers (cutting.py), 32 at most


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
    # strict: nothing may change a low bit of an image. No batch is cut for the workers, a rest is padded to the whole
    # micro-batch, and a device that cannot have the run's policy ends its worker.
    determinism: str = "best"
    job: JobConfig = field(default_factory=JobConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)


def from_plain(values: dict[str, Any]) -> Config:
    """The `Config` that `asdict` made plain, as a plan's config.yaml holds it."""
    config = _build(Config, values)
    assert isinstance(config, Config)
    return config


def _build(kind: Any, values: dict[str, Any]) -> Any:
    nested = {one.name: one.default_factory for one in fields(kind) if is_dataclass(one.default_factory)}
    return kind(**{key: _build(nested[key], value) if key in nested else value for key, value in values.items()})


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
