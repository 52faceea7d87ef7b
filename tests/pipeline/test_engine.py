"""The engine against diffusers itself, for each family of models, at sizes that run in a moment."""

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from diffusers import DiffusionPipeline

from batchgen.models.families.scales import RowGuidance
from batchgen.models.find import ModelFiles
from batchgen.padding import spans
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.schedulers import SCHEDULERS
from batchgen.policy import Policy
from batchgen.types import Prompt
from tests.pipeline.small_models import KINDS, save

POLICY = Policy(micro_batch=4, decode_chunk=2, tile_px=0, placement="resident", dtype="fp32", threads=2)


def prompt(place, text=None, **changes):
    fields = {
        "key": f"k{place}", "prompt": text or f"a red horse {place}", "negative_prompt": "", "seed": 1000 + place,
        "width": 64, "height": 64, "steps": 3, "guidance": 5.0, "source": "p.txt", "line": place + 1,
    }  # fmt: skip
    return Prompt(**(fields | changes))


def make(engine, prompts, policy=POLICY):
    """{key: (height, width, 3) array} of the prompts, run together."""
    engine.prepare(policy)
    latents = engine.denoise(engine.encode(prompts), prompts, policy)
    chunks = [latents[span.start : span.stop] for span in spans(len(latents), policy.decode_chunk)]
    images = [image for chunk in chunks for image in engine.decode(chunk, policy)]
    return {
        one.key: np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)
        for one, image in zip(prompts, images, strict=True)
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("models") / kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def family(request, folders):
    return folders[request.param], DiffusersEngine(ModelFiles(folders[request.param]), "model", "auto")


def test_an_image_is_the_one_that_diffusers_makes(family):
    folder, engine = family
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    one = prompt(3)
    expected = pipe(
        one.prompt, generator=torch.Generator("cpu").manual_seed(one.seed), guidance_scale=one.guidance,
        num_inference_steps=one.steps, width=64, height=64, output_type="np",
    ).images[0]  # fmt: skip
    got = make(engine, [one])[one.key]
    assert np.abs((expected * 255).round() - got).max() <= 1


def test_neighbours_order_and_padding_change_no_bit(family):
    _, engine = family
    prompts = [prompt(place) for place in range(4)]
    together = make(engine, prompts)
    turned = make(engine, prompts[::-1])
    others = make(engine, [prompts[0], *(prompt(place, guidance=9.0) for place in (7, 8, 9))])
    padded = make(engine, prompts[:3])  # three rows are padded to four
    for key in together:
        assert (together[key] == turned[key]).all()
    assert (others["k0"] == together["k0"]).all()
    assert all((padded[key] == together[key]).all() for key in padded)


def test_each_text_step_and_decode_is_a_beat_and_beats_change_no_bit(family, monkeypatch):
    _, engine = family
    rows = [prompt(place) for place in range(4)]
    before = make(engine, rows)
    engine._texts.clear()
    beats = []
    monkeypatch.setattr(engine, "beat", lambda: beats.append(1))
    after = make(engine, rows)
    assert len(beats) == 1 + 3 + 2  # the texts at once, three steps, two chunks
    assert all((before[key] == after[key]).all() for key in before)


def test_each_row_has_its_own_guidance_seed_and_negative(family):
    _, engine = family
    base = prompt(0)
    same = {"prompt": base.prompt, "seed": base.seed}
    rows = [
        base,
        prompt(1, guidance=9.0, **same),
        prompt(2, prompt=base.prompt),
        prompt(3, negative_prompt="x", **same),
    ]
    images = make(engine, rows)
    assert all((images["k0"] != images[key]).any() for key in ("k1", "k2", "k3"))
    alone = make(engine, [rows[1]] * 4)
    assert (alone["k1"] == images["k1"]).all()


def test_no_negative_prompt_and_the_empty_one_are_those_of_diffusers(family):
    folder, engine = family
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rows = [prompt(0), prompt(0, negative_prompt="<empty>"), prompt(0, negative_prompt="blurry")]
    made = [make(engine, [row])["k0"] for row in rows]
    for image, said in zip(made, [None, "", "blurry"], strict=True):
        expected = pipe(
            rows[0].prompt, negative_prompt=said, generator=torch.Generator("cpu").manual_seed(rows[0].seed),
            guidance_scale=5.0, num_inference_steps=3, width=64, height=64, output_type="np",
        ).images[0]  # fmt: skip
        assert np.abs((expected * 255).round() - image).max() <= 1
    is_xl = "xl" in type(pipe).__name__.lower()
    assert (made[0] != made[1]).any() == is_xl and (made[1] != made[2]).any()


def test_without_guidance_the_negative_prompt_does_not_matter(family):
    _, engine = family
    plain = make(engine, [prompt(0, guidance=1.0)])
    assert (make(engine, [prompt(0, guidance=1.0, negative_prompt="blurred")])["k0"] == plain["k0"]).all()


def test_a_text_is_encoded_once_and_what_was_cut_is_told(family, monkeypatch):
    _, engine = family
    engine._texts.clear()
    calls = []
    real = engine._pipe.encode_prompt

    def spy(**arguments):
        calls.append(arguments["prompt"])
        return real(**arguments)

    monkeypatch.setattr(engine._pipe, "encode_prompt", spy)
    long = "z" * 100
    texts = engine.encode([prompt(0), prompt(0), prompt(1, long), prompt(2, long)])
    engine.encode([prompt(0)])
    assert len(calls) == 1 and len(texts) == 3
    assert texts["a red horse 0"].cut is None
    assert texts[long].cut == "z" * 25


def test_an_image_that_is_not_finite_is_decoded_again_in_fp32_then_fails(family, monkeypatch):
    _, engine = family
    latents = engine.denoise(engine.encode([prompt(0), prompt(1)]), [prompt(0), prompt(1)], POLICY)
    seen = []
    real = engine._decode_in

    def first_time_bad(dtype, rows, decode):
        seen.append(dtype)
        images = real(dtype, rows, decode)
        return [None, *images[1:]] if len(seen) == 1 else images

    monkeypatch.setattr(engine, "_decode_in", first_time_bad)
    first, second = engine.decode(latents, POLICY)
    assert seen == [torch.float32, torch.float32]
    assert first.pixels is not None and first.retried_in_fp32 and not second.retried_in_fp32
    monkeypatch.undo()
    latents[1] = latents[1] * float("nan")
    good, bad = engine.decode(latents, POLICY)
    assert good.pixels is not None
    assert bad.pixels is None and bad.retried_in_fp32


def test_tiling_and_chunks_decode_the_same_picture_nearly(family):
    _, engine = family
    one = prompt(0, width=128, height=128)
    whole = make(engine, [one])["k0"].astype(int)
    tiled = Policy(**{**{name: getattr(POLICY, name) for name in POLICY.__slots__}, "tile_px": 64})
    got = make(engine, [one], tiled)["k0"].astype(int)
    assert got.shape == (128, 128, 3) and (got != whole).any()  # it did tile
    assert not engine._pipe.vae.use_slicing
    assert (make(engine, [one])["k0"] == whole).all()  # and it is off again


def test_steps_copy_no_guidance_from_the_host(family, monkeypatch):
    _, engine = family
    engine.prepare(POLICY)
    texts = engine.encode([prompt(0)])
    copied = []

    def product(guidance, rows):
        copied.append(guidance._scales)
        return guidance._scales[0] * rows

    monkeypatch.setattr(RowGuidance, "__mul__", product)
    engine.denoise(texts, [prompt(0)], POLICY)
    assert len(copied) == 3 and len({id(one) for one in copied}) == 1  # made once, used at each step
    assert all(one.device == engine.device and one.dtype == torch.float32 for one in copied)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_make_images_that_do_not_depend_on_neighbours(folders, scheduler):
    engine = DiffusersEngine(ModelFiles(folders["sd15"]), scheduler, "auto")
    assert engine.scheduler_name == SCHEDULERS[scheduler][0]
    prompts = [prompt(place) for place in range(4)]
    together = make(engine, prompts)
    turned = make(engine, prompts[::-1])
    assert all((together[key] == turned[key]).all() for key in together)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_close_to_fp32(folders, dtype):
    one = prompt(0)
    exact = make(DiffusersEngine(ModelFiles(folders["sdxl"]), "model", "fp32"), [one])["k0"].astype(float)
    half = make(DiffusersEngine(ModelFiles(folders["sdxl"]), "model", dtype), [one])["k0"].astype(float)
    error = ((exact - half) ** 2).mean()
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 30
