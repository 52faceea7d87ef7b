"""The configuration: types and defaults here, values in conf/.

The comment above a field is its description in docs/configuration.md (`make docs`). Code behind the front door never
sees OmegaConf: a run holds a plain `Config`.
"""

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from batchgen.types import Columns

SCHEDULERS = ("model", "ddim", "unipc", "euler", "euler_a", "dpm++", "lcm", "tcd")
# These keys hold any names, with values that another program understands.
OPEN = ("launch.slurm", "launch.collector")
_QUERY = re.compile(r"(https?://[^?#]*)[?#].*", re.DOTALL)
ATTENTION = ("sdpa", "flash", "efficient", "cudnn", "plain", "xformers")


@dataclass
class JobConfig:
    """What to make. A row of a prompt file may override the size, steps, guidance, seed and the like for itself."""

    # The job's name; it becomes the name of the run's directory. A job without one has the name of its file; prompts
    # without a job have that of the first prompt file.
    name: str = "???"
    # The prompt files: a path, a glob, an address such as s3://BUCKET/FILE.csv, or a list of them. Paths are relative
    # to the working directory.
    prompts: Any = "???"
    # The text encoding of the prompt files.
    encoding: str = "utf-8-sig"
    # What separates the columns of csv and tsv files: comma, semicolon, tab, pipe, or the character; null finds it.
    separator: str | None = None
    # Lines of text files that begin with this are skipped: 'job.comment="#"' on the command line; null skips none.
    comment: str | None = None
    # Which column of a prompt file holds which field. A field's own name finds its column, also under the names of
    # other programs (docs/prompts.md). Any other name must be there. null for the prompt finds its column, too; null
    # for another field means that no column sets it.
    columns: Columns = field(default_factory=Columns)
    # Only the first rows, up to this number, are used; null uses all of them. A run goes on with more rows where it is
    # raised.
    limit: int | None = None
    # What happens to a row that cannot be used: skip lists it in plan/rejects.jsonl, fail stops at the first.
    on_bad_row: str = "skip"
    # How many prompts go into a batch.
    batch_size: int = 32
    # How many images are made for each prompt, each from a seed of its own.
    images_per_prompt: int = 1
    # The width of the images, in pixels.
    width: int = "${model.size_px}"  # type: ignore[assignment]
    # The height of the images, in pixels.
    height: int = "${model.size_px}"  # type: ignore[assignment]
    # How many denoising steps are made for each image.
    steps: int = "${model.steps}"  # type: ignore[assignment]
    # How strongly an image follows its prompt. With most models there is no guidance at 1 or below, which takes half
    # the work.
    guidance: float = "${model.guidance}"  # type: ignore[assignment]
    # What the images should not show. <none> means no negative prompt, <empty> means that the empty text is encoded.
    negative_prompt: str = ""
    # The scheduler; model takes the model's own.
    scheduler: str = "${model.scheduler}"
    # The seed of the run, from which the seed of each row is derived unless the row has its own.
    seed: int = 0


@dataclass
class ModelConfig:
    """Which model makes the images."""

    # The name of a bundled model, a folder in the diffusers layout, a hub id, or one .safetensors file.
    path: str = "???"
    # For a model in one file: the folder or hub id of a model that gives the parts and settings that the file lacks.
    base: str | None = None
    # A VAE in place of the model's own: a folder (also of a model), a hub id, or one .safetensors file.
    vae: str | None = None
    # Textual inversions: a .safetensors file, whose name is then a word for prompts, WORD=FILE, or a list of these.
    embeddings: Any = None
    # The revision (branch, tag or commit) of a hub model.
    revision: str | None = None
    # Which set of weight files is loaded, for example fp16. A part without these files uses its plain ones.
    variant: str | None = None
    # The number format of the weights. auto means the one of 16 bits that suits the model's family (fp16 for
    # Stable Diffusion and XL, bf16 for transformers), and fp32 on the CPU and on GPUs that are slow in it.
    dtype: str = "auto"
    # The size that the model was trained for, in pixels; the default of job.width and job.height.
    size_px: int = 512
    # The guidance that suits the model; the default of job.guidance.
    guidance: float = 7.5
    # The number of steps that suits the model; the default of job.steps.
    steps: int = 30
    # The scheduler that suits the model; the default of job.scheduler.
    scheduler: str = "model"
    # How the scheduler spaces its timesteps: trailing, leading or linspace; null leaves it to the model.
    timestep_spacing: str | None = None
    # How far the scheduler of a flow model shifts its timesteps to noise, for all sizes; null leaves it to the model.
    timestep_shift: float | None = None
    # Above which guidance the model runs twice an image, with the negative prompt; null leaves it to its family.
    guided_above: float | None = None
    # LoRA files that are merged into the model: PATH or PATH:WEIGHT (1 unless given), or a list of them. PATH is a
    # .safetensors file or ORG/NAME/FILE.safetensors on the hub. A row's own LoRA replaces them.
    lora: Any = None
    # How many of the last layers of CLIP a prompt skips, as diffusers counts them (Stable Diffusion and XL); null takes
    # what the pipeline takes. What other programs call 'Clip skip 2' is 1 for Stable Diffusion and null for XL.
    clip_skip: int | None = None
    # As how many chunks of 75 tokens each text is encoded (Stable Diffusion and XL). What is longer is cut.
    text_chunks: int = 1
    # Whether brackets are weights (Stable Diffusion and XL): (word:1.3), (word) for 1.1, [word] for 1/1.1; \( is text.
    prompt_weights: bool = False
    # The size that XL is told an image had before it was scaled, [width, height] in pixels; null is the image's own.
    original_size: list[int] | None = None
    # The place of the image's top left corner in a larger one that XL is told, [x, y] in pixels; null is [0, 0].
    crop_top_left: list[int] | None = None
    # The size of the image that XL is told, [width, height] in pixels; null is its own.
    target_size: list[int] | None = None
    # The same for negative prompts, with negative_target_size; null is what the prompts have.
    negative_original_size: list[int] | None = None
    # The same for negative prompts, beside the two sizes; null is [0, 0].
    negative_crop_top_left: list[int] | None = None
    # The same for negative prompts, with negative_original_size; null is what the prompts have.
    negative_target_size: list[int] | None = None
    # The model's own safety checker: flag notes its verdict in the sample's JSON, drop leaves flagged images out.
    safety_checker: str = "off"


@dataclass
class PolicyConfig:
    """The memory policy. A field that is null is chosen by batchgen, by measurement on a GPU."""

    # How many rows are denoised at once.
    micro_batch: int | None = None
    # How many images the VAE decodes at once; 1 is VAE slicing.
    decode_chunk: int | None = None
    # The edge of a VAE tile, in pixels; 0 turns tiling off.
    tile_px: int | None = None
    # Where the weights wait: on the device (resident) or in host memory.
    placement: str | None = None
    # Under weight streaming: how many groups of layers are on the device at once; 0 leaves the number to batchgen.
    stream_buffers: int | None = None
    # Whether the two passes of guidance run one after the other, which needs half the memory for activations.
    guidance_split: bool | None = None
    # How many threads torch uses on the CPU.
    threads: int | None = None


@dataclass
class MemoryConfig:
    """How the model sits in memory."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    # The most memory that a worker may take on its GPU, for example 6GiB.
    max_vram: str | None = None
    # For a dry run, with or without a GPU: plan for this much free GPU memory, for example 24GiB.
    assume_vram: str | None = None


@dataclass
class SpeedConfig:
    """How the model computes. These settings may change the low bits of images."""

    # Use the memory format that tensor cores prefer for convolutions.
    channels_last: bool = False
    # Record the denoiser (of Stable Diffusion and XL) with torch.jit.trace, once for each shape.
    traced: bool = False
    # The attention backend. It is tried when a worker starts; where it does not run, sdpa is used and the log says why.
    attention: str = "sdpa"
    # torch.compile of the denoiser and the VAE, for whole micro-batches: eager, blocks (those that repeat), whole,
    # graphs (whole, launched as CUDA graphs), or auto: what measuring on a GPU shows to pay for a job of this length.
    compile: str = "eager"


@dataclass
class OutputConfig:
    """What is written."""

    # The image format.
    format: str = "png"
    # The quality of jpg and webp images; null takes the format's default.
    quality: int | None = None
    # What is written into each image besides its pixels: none, or the prompt and the settings as A1111's web UI writes
    # them (docs/reading.md).
    metadata: str = "none"
    # How many batches a shard holds. null lets the planner decide by images and workers, with at most 32 batches.
    batches_per_shard: int | None = None
    # Where each finished shard is copied to while the run goes on: an address that fsspec knows, such as
    # s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, or hf://datasets/OWNER/NAME for a data set on the Hugging Face hub.
    copy_to: str | None = None
    # Whether tars stay here once their copies have been checked.
    keep_local: bool = True


@dataclass
class LaunchConfig:
    """Where the workers run, and for how long. All of these settings may change when a run is resumed."""

    # Who starts the workers: local means this command, slurm means a job array that this command submits.
    launcher: str = "local"
    # How many workers run; null starts one for each GPU, or one on the CPU. Under SLURM null means one.
    workers: int | None = None
    # How many times in a row a dead worker is started again without having finished anything.
    restarts: int = 3
    # A worker counts as dead when it has been silent for this many seconds, or for ten of its steps if that is longer.
    lease_timeout_s: float = 60.0
    # Whether workers stay until the last shard is finished, so that they can take over from a worker that dies.
    wait_for_others: bool = True
    # Whether a run that certainly does not fit on the disk is refused before it starts.
    check_disk: bool = True
    # The time of day at which the workers end after what is under way, such as 07:00.
    stop_at: str | None = None
    # How long the workers of a command, or of an array's element, may work, such as 7h30m; they end in time for it.
    time_limit: str | None = None
    # How many seconds before a time limit the workers are asked to end: enough for a micro-batch and its images.
    warn_s: float = 120.0
    # A folder on each machine's own disk, such as /scratch/$USER. The model is copied to it once a machine, and the
    # workers load it from there. null loads it from where it is.
    scratch: str | None = None
    # Over how many seconds the starts of workers are spread, so that not all read the same files at once. null takes a
    # quarter of a second for each worker, and at most a minute, while nobody is at work yet.
    spread_s: float | None = None
    # A file that the figures of the run are written to every 15 s, in Prometheus' text format, such as
    # /var/lib/node_exporter/batchgen.prom. null writes none.
    metrics: str | None = None
    # Under SLURM: any options of sbatch by their long names, such as launch.slurm.partition=gpu.
    slurm: dict[str, Any] = field(default_factory=dict)
    # Under SLURM: the options of sbatch for the job that checks the run at its end, beside `slurm`.
    collector: dict[str, Any] = field(default_factory=dict)
    # Under SLURM: lines of shell that set a node up before batchgen starts, such as 'module load cuda'.
    setup: list[str] = field(default_factory=list)
    # Under SLURM: how many workers an element of the array starts. Sites that give whole nodes want one for each GPU.
    workers_per_element: int = 1
    # Under SLURM: how many elements may run at once (the %K of --array); null leaves that to the site.
    at_once: int | None = None
    # Under SLURM: whether an element that was ended by its time limit puts itself back into the queue.
    requeue: bool = True
    # Under SLURM: whether the command stays until the run is done, with a progress bar.
    wait: bool = False


@dataclass
class Config:
    """The whole configuration."""

    # The directory of the run. In a sweep (-m) the overrides are added to its name.
    run_dir: str = "outputs/${job.name}"
    # Show what the command would do, and write nothing. true shows it as text, json as one JSON object; probe loads
    # the model first and measures how long the images take and how large they are, for this dry run and later ones.
    dry_run: Any = False
    # What a GPU costs in an hour, in any currency: a dry run and the report then say what the run costs.
    price_per_gpu_hour: float | None = None
    # Plan the rows of new prompt files, and rows appended to txt, csv, tsv and jsonl files, as new shards.
    extend: bool = False
    # Try the failed images again, in new shards.
    retry_failed: bool = False
    # strict refuses whatever would change the low bits of an image: no batch is cut for the workers, the last rows are
    # padded to a whole micro-batch, and a worker stops if its device cannot use the run's policy.
    determinism: str = "best"
    job: JobConfig = field(default_factory=JobConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)


def from_plain(values: dict[str, Any]) -> Config:
    """Turn the plain values of a plan's config.yaml back into the `Config` that `asdict` made them from."""
    config = _build(Config, values)
    assert isinstance(config, Config)
    return config


def _build(kind: Any, values: dict[str, Any]) -> Any:
    nested = {one.name: one.default_factory for one in fields(kind) if is_dataclass(one.default_factory)}
    return kind(**{key: _build(nested[key], value) if key in nested else value for key, value in values.items()})


def prompt_patterns(config: Config) -> list[str]:
    """Return `job.prompts` as a list."""
    prompts = config.job.prompts
    return [prompts] if isinstance(prompts, str) else list(prompts)


def without_query(text: str) -> str:
    """Return a text without the query of an address of the web: it may hold a signature, which is a secret."""
    return _QUERY.sub(r"\1", text)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn {'job': {'steps': 20}} into {'job.steps': 20}; lists, and the dictionaries of `OPEN`, stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) and name not in OPEN else {name: value}
    return flat


def known_keys() -> list[str]:
    """List every dotted key of the configuration, groups included: job, job.name, ..."""
    leaves = flatten(asdict(Config()))
    groups = {key[:at] for key in leaves for at, char in enumerate(key) if char == "."}
    return sorted(groups | set(leaves))
