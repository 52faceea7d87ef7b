"""A model folder with the shapes of a public model and random weights, where no real one can be had.

Its speed and its memory are those of the real one; its pictures are noise. The same seed gives other weights on a
GPU than on a CPU. Sentences take about twice the tokens that the real tokenizers make of them.

python -m tests.bench.full_size KIND FOLDER [--dtype fp16|bf16|fp32] [--seed 0] [--share OTHER]

KIND: sd15, sdxl, sd35_medium, flux_dev or z_image (Turbo). --share: parts that are the same in another such folder
are hard links to its files.
"""

import argparse
import hashlib
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from tests.bench.full_configs import CONFIGS, kind_of, pipeline

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# That of the public weights
DTYPE_OF = {kind: "fp16" if kind in ("sd15", "sdxl") else "bf16" for kind in CONFIGS}
# The files of diffusers' models and of transformers', by the part's place in the pipeline, as save_pretrained cuts them
_SHARD_SIZE, _TEXT_SHARD_SIZE = "10GB", "5GB"
_PARTS_AT_ONCE = 2  # one waits for the disk while the other is drawn; a file of each is in memory
_MADE = "made.json"  # {part: a digest of all that its files depend on}


def component(kind, name, config):
    """A model's part of that name, without memory: its tensors are on the meta device."""
    maker = kind_of(kind, name)
    settings_of = getattr(maker, "config_class", None)
    with torch.device("meta"):
        return maker(**config) if settings_of is None else maker(settings_of(**config))


def make(kind, folder, dtype=None, seed=0, shrink=None, share=None):
    """Write the folder; `shrink` is {component: {what is to be smaller in its configuration}}, for tests."""
    folder, dtype = Path(folder), dtype or DTYPE_OF[kind]
    configs = {name: config | (shrink or {}).get(name, {}) for name, config in CONFIGS[kind].items()}
    modules = {name: component(kind, name, config) for name, config in configs.items()}
    pipe = pipeline(kind, modules)
    known = {name: _digest(kind_of(kind, name), config, dtype, seed) for name, config in configs.items()}
    others = _made(share) if share else {}

    def write(name):
        same = next((other for other, digest in others.items() if digest == known[name]), None)
        if same is None:
            _write(modules[name], folder / name, DTYPES[dtype], seed)
        else:
            _link(Path(share) / same, folder / name)

    with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
        list(pool.map(write, modules))
    for name, part in pipe.components.items():
        if name not in modules and part is not None:
            part.save_pretrained(folder / name)
    (folder / _MADE).write_text(json.dumps(known))
    pipe.save_config(folder)  # last: without the index a folder is no model
    return folder


def _digest(maker, config, dtype, seed):
    said = json.dumps([maker.__name__, config, dtype, seed, torch.cuda.is_available()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _made(folder):
    path = Path(folder) / _MADE
    return json.loads(path.read_text()) if path.exists() else {}


def _link(source, folder):
    folder.mkdir(parents=True)
    for path in source.iterdir():
        os.link(path, folder / path.name)


def _write(module, folder, dtype, seed):
    """Write a part whose tensors are on the meta device as its save_pretrained would; one file's are in memory at once.

    Buffers that are saved with the parameters are written too; their values are random like all others.
    """
    folder.mkdir(parents=True)
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(seed)
    buffers = {name for name, _ in module.named_buffers()}
    saved = {name: one for name, one in module.state_dict(keep_vars=True).items() if name in buffers}
    likes = dict(module.named_parameters()) | saved  # each once, also where two names are tied
    likes = {name: torch.empty_like(one, dtype=dtype, device="meta") for name, one in likes.items()}
    of_text = hasattr(module, "config_class")
    stem, size = ("model", _TEXT_SHARD_SIZE) if of_text else ("diffusion_pytorch_model", _SHARD_SIZE)
    split = split_torch_state_dict_into_shards(
        likes, filename_pattern=stem + "{suffix}.safetensors", max_shard_size=size
    )
    for file, names in split.filename_to_tensors.items():
        weights = {name: _weights(name, likes[name].shape, dtype, generator) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))
    if of_text:
        module.config.architectures, module.config.dtype = [type(module).__name__], dtype
        module.config.save_pretrained(folder)
    else:
        module.save_config(folder)


def _weights(name, shape, dtype, generator):
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    # As large as what torch's own layers begin with, so that activations stay far within fp16.
    return noise.mul_((3 * math.prod(shape[1:])) ** -0.5).cpu()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=CONFIGS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    make(options.kind, options.folder, options.dtype, options.seed, share=options.share)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {options.kind}, {size / 1e9:.2f} GB, {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
