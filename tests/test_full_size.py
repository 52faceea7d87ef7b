"""The benchmarks' full-size models: their real sizes, and that small ones of the same making load and run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

from batchgen.models.find import ModelFiles, check_model
from tests.bench import full_size, full_tokenizers
from tests.bench.full_configs import CONFIGS
from tests.bench.full_shrunk import SHRINK
from tests.bench.full_size import DTYPE_OF, DTYPES, component, make

PROMPT = "a photo of an astronaut riding a horse on mars"
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840,
    },
    "flux_dev": {
        "transformer": 11_901_408_320, "vae": 83_819_683, "text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656,
    },
    "sd35_medium": {
        "transformer": 2_243_171_520, "vae": 83_819_683, "text_encoder": 123_650_304, "text_encoder_2": 694_659_840,
        "text_encoder_3": 4_762_310_656,
    },
    "z_image": {"transformer": 6_154_908_736, "vae": 83_819_683, "text_encoder": 4_022_468_096},
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_full_sizes_are_the_real_ones(kind: str) -> None:
    made = {name: component(kind, name, config) for name, config in CONFIGS[kind].items()}
    counts = {name: sum(one.numel() for one in module.parameters()) for name, module in made.items()}
    assert counts == PARAMETERS[kind]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_shrunken_folder_loads_and_runs(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "model", shrink=SHRINK[kind])
    check_model(ModelFiles(folder), "model")
    for name in CONFIGS[kind]:
        (path,) = (folder / name).glob("*.safetensors")
        with safe_open(path, "pt") as file:
            found = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
        assert found == {DTYPES[DTYPE_OF[kind]]}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    if kind != "z_image":
        positions = pipe.text_encoder.get_submodule("text_model" if kind == "sd35_medium" else "").embeddings
        assert positions.position_ids.tolist() == [list(range(77))]
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        PROMPT, height=64, width=64, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert latents.shape == {"sd15": (1, 4, 8, 8), "sdxl": (1, 4, 8, 8), "flux_dev": (1, 16, 64)}.get(
        kind, (1, 16, 8, 8)
    )
    assert latents.isfinite().all() and latents.std() > 0


def test_large_parts_are_in_several_files_as_the_library_saves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size, "_SHARD_SIZE", "50KB")
    monkeypatch.setattr(full_size, "_TEXT_SHARD_SIZE", "1MB")
    folder = make("flux_dev", tmp_path / "model", shrink=SHRINK["flux_dev"])
    assert check_model(ModelFiles(folder), "model")
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    for name, size in (("transformer", "50KB"), ("text_encoder_2", "1MB")):
        getattr(pipe, name).save_pretrained(tmp_path / name, max_shard_size=size)
        ours, saved = (sorted(path.name for path in one.iterdir()) for one in (folder / name, tmp_path / name))
        assert ours == saved and len(ours) > 3


def test_what_is_the_same_in_another_folder_is_linked_from_there(tmp_path: Path) -> None:
    small = {kind: SHRINK[kind] | {"vae": SHRINK["sd15"]["vae"]} for kind in ("flux_dev", "z_image")}
    first = make("flux_dev", tmp_path / "first", shrink=small["flux_dev"])
    second = make("z_image", tmp_path / "second", shrink=small["z_image"], share=first)
    name = "diffusion_pytorch_model.safetensors"
    assert (first / "vae" / name).samefile(second / "vae" / name)
    assert not (first / "transformer" / name).samefile(second / "transformer" / name)


def test_the_tokenizers_are_as_large_as_the_real_ones() -> None:
    made = full_tokenizers.clip()
    assert (len(made), made.bos_token_id, made.eos_token_id) == (49_408, 49_406, 49_407)
    ids = made(PROMPT).input_ids
    assert ids[0] == 49_406 and ids[-1] == 49_407 and len(ids) < len(PROMPT) / 2
    assert made.decode(ids, skip_special_tokens=True) == PROMPT
    long = made(PROMPT * 20, padding="max_length", truncation=True).input_ids
    assert len(long) == 77 and long[-1] == 49_407


@pytest.mark.parametrize(("maker", "size"), [(full_tokenizers.t5, 32_100), (full_tokenizers.qwen, 151_669)])
def test_other_tokenizers_know_every_word_too(maker: Callable[[], Any], size: int) -> None:
    made = maker()
    ids = made(PROMPT).input_ids
    assert len(made) == size and max(ids) < size and len(ids) < 0.8 * len(PROMPT)
    assert made.decode(ids, skip_special_tokens=True) == PROMPT
    assert maker is full_tokenizers.qwen or made.unk_token_id not in ids
