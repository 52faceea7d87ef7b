"""Models in one file by the command: the images are those of the folder that the file was made of, to the byte."""

import shutil

import pytest

pytest.importorskip("torch")

import torch

from tests.commands import REAL, front, samples, verify, write_prompts
from tests.models import one_file
from tests.models.families import test_flux
from tests.pipeline.small_models import save

pytestmark = pytest.mark.families
FILES = {"sd15": one_file.stable_diffusion, "sdxl": one_file.stable_diffusion_xl}
SETTINGS = (
    "job.width=64", "job.height=64", "job.steps=2", "job.guidance=3.0", "job.batch_size=2", "job.scheduler=model",
    "output.batches_per_shard=1", "memory.policy.threads=1", "launch.workers=1",
)  # fmt: skip


def images(run):
    return {name: data for name, data in samples(run).items() if name.endswith(".png")}


def made(run, prompts, *settings, **environment):
    done = front(run, prompts, *SETTINGS, *settings, command=REAL, **environment)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", FILES)
def test_a_file_makes_the_images_of_its_folder_and_resumes_without_the_cache(kind, tmp_path):
    folder = save(kind, tmp_path / "model")
    file = one_file.save(FILES[kind](folder), tmp_path / "model.safetensors")
    prompts, cache = write_prompts(tmp_path / "p.txt", 4), tmp_path / "cache"
    of_file = (f"model.path={file}", f"model.base={folder}")
    shown = front(tmp_path / "b", prompts, *SETTINGS, *of_file, "dry_run=true", command=REAL, BATCHGEN_CACHE=str(cache))
    assert shown.returncode == 0 and f"{file} (Stable Diffusion) is unpacked into the cache" in shown.stdout
    assert not list(cache.glob("models/*/*")) and not (tmp_path / "b").exists()
    made(tmp_path / "a", prompts, f"model.path={folder}")
    told = made(tmp_path / "b", prompts, *of_file, "job.limit=2", BATCHGEN_CACHE=str(cache))
    assert told.count("is unpacked once") == 1
    shutil.rmtree(cache)
    assert made(tmp_path / "b", prompts, *of_file, BATCHGEN_CACHE=str(cache)).count("is unpacked once") == 1
    assert verify(tmp_path / "b").returncode == 0
    assert images(tmp_path / "a") == images(tmp_path / "b") and len(images(tmp_path / "a")) == 4
    changed = FILES[kind](folder)
    changed["model.diffusion_model.out.2.bias"] += 1
    one_file.save(changed, file)
    refused = front(tmp_path / "b", prompts, *SETTINGS, *of_file, command=REAL, BATCHGEN_CACHE=str(cache))
    assert refused.returncode == 2 and "its files have changed" in refused.stderr


def test_another_vae_in_one_file_is_drawn_with_and_cannot_change_in_a_run(tmp_path):
    folder, other = save("sdxl", tmp_path / "model"), tmp_path / "other"
    shutil.copytree(folder, other)
    torch.manual_seed(5)
    weights = {name: one + 0.05 * torch.randn_like(one) for name, one in one_file.weights(folder, "vae").items()}
    one_file.save(weights, other / "vae/diffusion_pytorch_model.safetensors")
    file = one_file.save(one_file.vae(other), tmp_path / "vae.safetensors")
    prompts = write_prompts(tmp_path / "p.txt", 2)
    made(tmp_path / "a", prompts, f"model.path={other}")
    made(tmp_path / "b", prompts, f"model.path={folder}", f"model.vae={file}")
    made(tmp_path / "c", prompts, f"model.path={folder}")
    assert images(tmp_path / "a") == images(tmp_path / "b") != images(tmp_path / "c")
    refused = front(tmp_path / "b", prompts, *SETTINGS, f"model.path={folder}", command=REAL)
    assert refused.returncode == 2 and "or model.vae: its files have changed" in refused.stderr


def test_the_transformer_of_flux_in_one_file_runs_with_a_base(tmp_path):
    """As wide as the real one, because diffusers' mapping counts on that; with one block of each kind."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    pipe = test_flux.flux(guidance_embeds=True)
    wide = type(pipe.transformer)(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=24,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(16, 56, 56), guidance_embeds=True,
    ).eval()  # fmt: skip
    pipe.register_modules(transformer=wide.to(torch.bfloat16))
    pipe.save_pretrained(folder)
    file = one_file.save(one_file.flux(folder), tmp_path / "flux.safetensors")
    base = tmp_path / "base"
    shutil.copytree(folder, base, ignore=shutil.ignore_patterns("diffusion_pytorch_model*.safetensors"))
    shutil.copytree(folder / "vae", base / "vae", dirs_exist_ok=True)
    assert not list((base / "transformer").glob("*.safetensors"))
    prompts = write_prompts(tmp_path / "p.txt", 2)
    made(tmp_path / "a", prompts, f"model.path={folder}")
    made(tmp_path / "b", prompts, f"model.path={file}", f"model.base={base}")
    assert images(tmp_path / "a") == images(tmp_path / "b") and len(images(tmp_path / "a")) == 2
