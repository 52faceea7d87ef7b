"""The benchmarks' full-size models: their real sizes, and that small ones of the same making load and run."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

from batchgen.models.find import ModelFiles, check_model
from tests.bench.full_size import CONFIGS, component, make, tokenizer

PROMPT = "a photo of an astronaut riding a horse on mars"
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840,
    },
}  # fmt: skip
_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32,
}  # fmt: skip
_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
SHRINK = {
    "sd15": {
        "unet": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32},
        "vae": _VAE, "text_encoder": _TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": (32, 32, 64), "layers_per_block": 1, "cross_attention_dim": 64,
            "attention_head_dim": (2, 2, 4), "transformer_layers_per_block": (1, 1, 2),
            "projection_class_embeddings_input_dim": 6 * 256 + 32,
        },
        "vae": _VAE, "text_encoder": _TEXT, "text_encoder_2": _TEXT,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_full_sizes_are_the_real_ones(kind: str) -> None:
    made = {name: component(name, config) for name, config in CONFIGS[kind].items()}
    counts = {name: sum(one.numel() for one in module.parameters()) for name, module in made.items()}
    assert counts == PARAMETERS[kind]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_shrunken_folder_loads_and_runs(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "model", shrink=SHRINK[kind])
    check_model(ModelFiles(folder), "model")
    for name in CONFIGS[kind]:
        (path,) = (folder / name).glob("*.safetensors")
        with safe_open(path, "pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    positions = pipe.text_encoder.get_buffer("embeddings.position_ids")
    assert positions.tolist() == [list(range(77))]
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        PROMPT, height=64, width=64, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert latents.shape == (1, 4, 8, 8)
    assert latents.isfinite().all() and latents.std() > 0


def test_the_tokenizer_is_as_large_as_the_real_one() -> None:
    made = tokenizer()
    assert (len(made), made.bos_token_id, made.eos_token_id) == (49_408, 49_406, 49_407)
    ids = made(PROMPT).input_ids
    assert ids[0] == 49_406 and ids[-1] == 49_407 and len(ids) < len(PROMPT) / 2
    assert made.decode(ids, skip_special_tokens=True) == PROMPT
    long = made(PROMPT * 20, padding="max_length", truncation=True).input_ids
    assert len(long) == 77 and long[-1] == 49_407
