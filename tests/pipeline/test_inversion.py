"""Words of textual inversions reach the encoders as diffusers' own loading has them."""

import dataclasses

import pytest

pytest.importorskip("torch")

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from batchgen.evening.cuts import cut_warning
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.policy import Policy
from batchgen.types import Prompt
from tests.pipeline.small_models import save

POLICY = Policy(micro_batch=2, decode_chunk=1, tile_px=0, placement="resident", dtype="fp32", threads=1)
ROW = Prompt(
    key="a", prompt="a photo of newword", negative_prompt="badword, grey", seed=3, width=64, height=64, steps=2,
    guidance=4.0, source="p.txt", line=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("models") / kind) for kind in ("sd15", "sdxl")}


def files(kind, folder):
    """A word of three vectors and one of one vector: (word, file)."""
    torch.manual_seed(1)
    found = []
    for word, count in (("newword", 3), ("badword", 1)):
        drawn = {"clip_l": torch.randn(count, 32), "clip_g": torch.randn(count, 32)}
        state = drawn if kind == "sdxl" else {"emb_params": drawn["clip_l"]}
        save_file(state, folder / f"{word}.safetensors")
        found.append((word, folder / f"{word}.safetensors"))
    return tuple(found)


def latent(engine, row):
    return engine.denoise(engine.encode([row]), [row], POLICY)[0]


def by_diffusers(kind, model, words):
    """The latents of diffusers' own pipeline with its own loading."""
    from safetensors.torch import load_file

    pipe = (
        DiffusionPipeline.from_pretrained(model, safety_checker=None)
        if kind == "sd15"
        else (DiffusionPipeline.from_pretrained(model))
    )
    for word, path in words:
        state = load_file(path)
        if kind == "sd15":
            pipe.load_textual_inversion(state, token=word)
        else:
            pipe.load_textual_inversion(state["clip_l"], token=word)
            pipe.load_textual_inversion(
                state["clip_g"], token=word, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
            )
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(ROW.seed))[None]
    return pipe(
        prompt=ROW.prompt, negative_prompt=ROW.negative_prompt, latents=noise, num_inference_steps=ROW.steps,
        width=64, height=64, guidance_scale=ROW.guidance, output_type="latent",
    ).images[0]  # fmt: skip


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_words_in_prompts_and_negative_prompts_are_drawn_as_by_diffusers(models, tmp_path, kind):
    words = files(kind, tmp_path)
    engine = DiffusersEngine(ModelFiles(models[kind], embeddings=words), "model", "fp32")
    engine.prepare(POLICY)
    made = latent(engine, ROW)
    assert (made - by_diffusers(kind, models[kind], words)).abs().max() < 1e-5 * made.abs().max()
    plain = DiffusersEngine(ModelFiles(models[kind]), "model", "fp32")
    plain.prepare(POLICY)
    assert (latent(plain, ROW) - made).abs().max() > 1e-3
    shouted = dataclasses.replace(ROW, prompt="a photo of NewWord", negative_prompt="BADWORD, grey")
    assert torch.equal(latent(engine, shouted), made), "CLIP reads all texts in lower case"
    neither = dataclasses.replace(ROW, prompt="a photo", negative_prompt="grey")
    assert torch.equal(latent(engine, neither), latent(plain, neither))


def test_a_word_within_another_changes_nothing(models, tmp_path):
    (_, path), _ = files("sd15", tmp_path)
    engines = [
        DiffusersEngine(ModelFiles(models["sd15"], embeddings=one), "model", "fp32") for one in ((), (("ze", path),))
    ]
    plain, taught = engines
    for engine in engines:
        engine.prepare(POLICY)
    inside = dataclasses.replace(ROW, prompt="a zebra, size ze2", negative_prompt="ze_1")
    assert torch.equal(latent(taught, inside), latent(plain, inside))
    ids = [
        [one for one, _ in engine._family.tokens(engine._pipe, engine._pipe.tokenizer, "a ze!")] for engine in engines
    ]
    known = len(plain._pipe.tokenizer)
    assert ids[1] == [ids[0][0], known, known + 1, known + 2, ids[0][-1]]
    assert (
        taught._pipe.text_encoder.get_input_embeddings()
        .weight[:known]
        .equal(plain._pipe.text_encoder.get_input_embeddings().weight)
    )


def test_the_cut_text_counts_all_vectors(models, tmp_path):
    words = files("sd15", tmp_path)
    model = ModelFiles(models["sd15"], embeddings=words)
    engine = DiffusersEngine(model, "model", "fp32")
    engine.prepare(POLICY)
    text = "newword " * 25 + "a"  # 76 tokens of the 75 that are read
    row = dataclasses.replace(ROW, prompt=text)
    assert engine.encode([row])[text].cut == "a"
    longer = "newword " * 26  # its last one begins where nothing is read any more
    assert str(engine.encode([dataclasses.replace(ROW, prompt=longer)])[longer].cut).split() == ["newword"]
    assert str(cut_warning(model, [longer])).endswith("(first: 'newword ')")
    assert "1 prompt is longer than the 75 tokens" in str(cut_warning(model, [text]))
    fits = "newword " * 25
    assert engine.encode([dataclasses.replace(ROW, prompt=fits)])[fits].cut is None
    assert cut_warning(model, [fits]) is None
