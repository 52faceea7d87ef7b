"""Texts of Stable Diffusion and XL in chunks, with weights and skipped layers, and the sizes that XL is told."""

import dataclasses
import json

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from diffusers import DiffusionPipeline

from batchgen.errors import ModelError
from batchgen.memory.estimate import estimate
from batchgen.models.families.clip import chunked
from batchgen.models.families.texts import TextOptions
from batchgen.models.find import ModelFiles
from batchgen.pipeline.check import check
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.placements import PLACEMENTS
from tests import commands
from tests.commands import front, samples, write_prompts
from tests.models.families.contract import POLICY, ROUNDING, apart, denoised, pixels, seen_ids
from tests.pipeline.small_models import ALL_KINDS, save
from tests.pipeline.test_engine import prompt

WORDS = "a red horse under an old tree by the sea "
LONG = WORDS * 12  # some 360 tokens of the small tokenizer
SIZES = TextOptions(
    original_size=(640, 480), crop_top_left=(8, 32), target_size=(72, 64), negative_original_size=(256, 320),
    negative_crop_top_left=(4, 2), negative_target_size=(96, 80),
)  # fmt: skip


@pytest.fixture(scope="module", params=ALL_KINDS)
def model(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def pipe(model):
    """Diffusers' own pipeline, whose clip_skip finds the norm again that transformers has put elsewhere."""
    pipe = DiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    return pipe


def engine_of(model, policy=POLICY, **options):
    engine = DiffusersEngine(ModelFiles(model, texts=TextOptions(**options)), "model", "fp32")
    engine.prepare(policy)
    return engine


def text_of(engine, text, role="prompt"):
    """What the text encoders make of one text, by the keywords of the pipeline."""
    guided = prompt(0, prompt=text if role == "prompt" else "x", negative_prompt=text if role == "negative" else "")
    return engine.encode([guided])[text].roles[role]


def reference(pipe, row, **given):
    [latent] = pipe(
        row.prompt, negative_prompt=row.negative_prompt or None, guidance_scale=row.guidance, width=row.width,
        height=row.height, generator=torch.Generator("cpu").manual_seed(row.seed), num_inference_steps=row.steps,
        output_type="latent", **given,
    ).images  # fmt: skip
    return latent


def is_xl(pipe):
    return hasattr(pipe, "text_encoder_2")


# Layers that are skipped ----------------------------------------------------------------------------------------


def test_skipped_layers_are_those_of_diffusers_own_call(model, pipe):
    guided = [prompt(0), prompt(1, negative_prompt="blurry, grey")]
    for skip in (1,) if is_xl(pipe) else (1, 2):
        engine = engine_of(model, clip_skip=skip)
        for rows in (guided, [prompt(2, guidance=1.0)]):
            for row, latent in zip(rows, denoised(engine, rows), strict=True):
                assert apart(latent, reference(pipe, row, clip_skip=skip)) < 1e-4
                assert apart(latent, reference(pipe, row)) > 1e-3


# Chunks ---------------------------------------------------------------------------------------------------------


def test_one_chunk_read_piece_by_piece_is_the_pipelines_text_to_the_bit(model):
    plain, weighing = engine_of(model), engine_of(model, prompt_weights=True)
    rows = [prompt(place, prompt=text) for place, text in enumerate(("a cat", LONG, "", "x:1.2 \\ é"))]
    texts, others = plain.encode(rows), weighing.encode(rows)
    for text, one in texts.items():
        found, other = one.roles["prompt"], others[text].roles["prompt"]
        assert found.keys() == other.keys() and all(torch.equal(found[name], other[name]) for name in found)
        assert one.cut == others[text].cut
    assert all(map(torch.equal, denoised(plain, rows), denoised(weighing, rows)))


def test_each_chunk_is_the_text_of_its_own_tokens_and_what_is_beyond_is_cut(model, pipe):
    engine, plain = engine_of(model, text_chunks=3), engine_of(model)
    letters = [chr(ord("a") + place % 23) for place in range(240)]  # each is a token
    long, *pieces = (" ".join(letters[start:end]) for start, end in ((0, 240), (0, 75), (75, 150), (150, 225)))
    made, alone = text_of(engine, long), [text_of(plain, one) for one in pieces]
    assert apart(made["prompt_embeds"], torch.cat([one["prompt_embeds"] for one in alone])) < ROUNDING
    if is_xl(pipe):
        assert apart(made["pooled_prompt_embeds"], alone[0]["pooled_prompt_embeds"]) < ROUNDING
    assert engine.encode([prompt(0, prompt=long)])[long].cut == " ".join(letters[225:])
    assert engine.encode([prompt(0, prompt=WORDS * 6)])[WORDS * 6].cut is None
    short, empty = text_of(engine, "a cat")["prompt_embeds"], text_of(plain, "")["prompt_embeds"]
    assert apart(short[77:], torch.cat([empty, empty])) < ROUNDING


def test_chunks_need_no_model():
    class Tokenizer:
        model_max_length, bos_token_id, eos_token_id = 5, 8, 9

        def num_special_tokens_to_add(self):
            return 2

    tokens = [(one, 1.5) for one in range(5)]
    marks = ((8, 1.0), (9, 1.0))
    assert chunked(tokens, Tokenizer(), 1) == [[marks[0], *tokens[:3], marks[1]]]
    assert chunked(tokens, Tokenizer(), 3) == [
        [marks[0], *tokens[:3], marks[1]], [marks[0], *tokens[3:], marks[1]], [*marks],
    ]  # fmt: skip


def test_long_and_short_and_negative_texts_share_a_batch_and_change_no_other(model):
    engine = engine_of(model, text_chunks=3, clip_skip=1, prompt_weights=True)
    rows = [
        prompt(0, prompt="a (cat:1.4)", negative_prompt=LONG, guidance=2.0), prompt(1, prompt=LONG, guidance=3.0),
        prompt(2, prompt=f"[{WORDS * 6}]", negative_prompt="(grey)", guidance=7.0),
    ]  # fmt: skip
    together = denoised(engine, rows)
    for row, latent in zip(rows, together, strict=True):
        engine._texts.clear()
        assert apart(denoised(engine, [row])[0], latent) < ROUNDING
    engine._texts.clear()
    assert all(map(torch.equal, together, reversed(denoised(engine, rows[::-1]))))


# Weights --------------------------------------------------------------------------------------------------------


def test_weights_move_tokens_away_from_the_empty_text(model, pipe):
    """Computed here in another way: from what diffusers makes of the text without brackets and of the empty text."""
    engine = engine_of(model, prompt_weights=True)
    made = text_of(engine, "a (red:1.5) [horse] tree")
    encode = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    with torch.no_grad():
        whole, empty = (pipe.encode_prompt(text, **encode) for text in ("a red horse tree", ""))
    tokens = pipe.tokenizer.convert_ids_to_tokens(pipe.tokenizer("a red horse tree").input_ids)
    assert len("".join(tokens).replace("</w>", "")) == len("<|startoftext|>aredhorsetree<|endoftext|>")
    first, letters = 2, {"red": 1.5, "horse": 1 / 1.1}  # the small tokenizer has letters only
    weights = [1.0] * 77
    for word, weight in letters.items():
        weights[first : first + len(word)] = [weight] * len(word)
        first += len(word)
    expected = np.array(weights)[:, None] * (whole[0] - empty[0])[0].numpy() + empty[0][0].numpy()
    assert np.abs(made["prompt_embeds"].numpy() - expected).max() < 1e-5
    untouched = torch.tensor(weights) == 1.0
    assert torch.equal(made["prompt_embeds"][untouched], whole[0][0][untouched])
    if is_xl(pipe):
        assert apart(made["pooled_prompt_embeds"], whole[2][0]) < ROUNDING


def test_tokens_are_those_of_the_text_without_its_marks(model):
    engine = engine_of(model, prompt_weights=True)
    with seen_ids(engine._pipe, engine._family) as seen:
        engine.encode([prompt(0, prompt="a (red:1.5) horse", guidance=1.0)])
    plain = engine_of(model)
    with seen_ids(plain._pipe, plain._family) as expected:
        plain.encode([prompt(place, prompt=text, guidance=1.0) for place, text in enumerate(("a red horse", ""))])
    assert seen == expected


# Sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_are_told_as_diffusers_tells_them_and_each_row_gets_its_own(tmp_path):
    folder = save("sdxl", tmp_path / "sdxl")
    own = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    own.set_progress_bar_config(disable=True)
    given = {
        "original_size": (480, 640), "crops_coords_top_left": (32, 8), "target_size": (64, 72),
        "negative_original_size": (320, 256), "negative_crops_coords_top_left": (2, 4),
        "negative_target_size": (80, 96),
    }  # fmt: skip
    rows = [prompt(0), prompt(1, negative_prompt="blurry"), prompt(2, guidance=3.0)]
    plain = [reference(own, row) for row in rows]
    for options, count in ((dataclasses.asdict(SIZES), 6), ({"crop_top_left": (8, 32)}, 1)):
        names = [name for name in given if count == 6 or name == "crops_coords_top_left"]
        engine = engine_of(folder, **options)
        for policy in (POLICY, dataclasses.replace(POLICY, guidance_split=True)):
            engine.prepare(policy)
            for row, latent, other in zip(rows, denoised(engine, rows, policy), plain, strict=True):
                assert apart(latent, reference(own, row, **{name: given[name] for name in names})) < 1e-4
                assert apart(latent, other) > 1e-3
        unguided = prompt(3, guidance=1.0)
        [latent] = denoised(engine, [unguided])
        assert apart(latent, reference(own, unguided, **{name: given[name] for name in names})) < 1e-4


# All together ---------------------------------------------------------------------------------------------------


@pytest.mark.families
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_where_the_weights_wait_changes_no_byte_of_any_option(model, pipe, placement):
    sizes = SIZES if is_xl(pipe) else TextOptions()
    options = dataclasses.asdict(dataclasses.replace(sizes, clip_skip=1, text_chunks=3, prompt_weights=True))
    rows = [prompt(0, prompt="a (cat:1.4)", negative_prompt=LONG), prompt(1, prompt=LONG)]
    resident = denoised(engine_of(model, **options), rows)
    policy = dataclasses.replace(POLICY, placement=placement)
    other = engine_of(model, policy, **options)
    for _ in range(2):
        made = other.denoise(other.encode(rows), rows, policy)
        assert all(map(torch.equal, made, resident))
        assert pixels(other.decode(made, policy))
        other._texts.clear()


def test_a_rehearsal_tries_the_options(model, pipe):
    sizes = SIZES if is_xl(pipe) else TextOptions()
    texts = dataclasses.replace(sizes, clip_skip=1, text_chunks=2, prompt_weights=True)
    assert check(ModelFiles(model, texts=texts), "model", [2], [])["told"] == []
    with pytest.raises(ModelError, match="its text encoders cannot encode a text"):
        check(ModelFiles(model, texts=TextOptions(clip_skip=3)), "model", [2], [])


def test_more_chunks_count_where_texts_are_encoded(model):
    def encode_bytes(chunks):
        config = json.loads((model / "text_encoder/config.json").read_text())
        path = model / "text_encoder/config.json"
        kept = path.read_text()
        path.write_text(json.dumps(config | {"intermediate_size": 50_000}))  # else too small to count
        try:
            return estimate(ModelFiles(model, texts=TextOptions(text_chunks=chunks)), "fp32", 64, 64).encode_bytes
        finally:
            path.write_text(kept)

    assert encode_bytes(3) == 3 * encode_bytes(1)


@pytest.mark.slow
@pytest.mark.families
def test_long_weighted_prompts_by_the_command_killed_and_resumed(tmp_path):
    folder = save("sdxl", tmp_path / "sdxl")
    lines = write_prompts(tmp_path / "p.txt", 21).read_text().splitlines()
    prompts = tmp_path / "long.txt"
    prompts.write_text("".join(f"({line}:1.3), {WORDS * (place % 7)}\n" for place, line in enumerate(lines)))
    settings = [
        f"model.path={folder}", "job.steps=2", "job.scheduler=model", "memory.policy.micro_batch=4", "launch.workers=1",
        "model.text_chunks=2", "model.prompt_weights=true", "model.clip_skip=1", "model.original_size=[640,480]",
        'job.negative_prompt="[grey]"', "output.batches_per_shard=1",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = front(whole, prompts, *settings, command=commands.REAL)
    assert done.returncode == 0, done.stderr
    code, _ = commands.kill_when(
        0.0, lambda: any(killed.glob("shards/*.tar")), commands.REAL, *commands.SMALL, f"run_dir={killed}",
        f"job.prompts={prompts}", *settings,
    )  # fmt: skip
    assert code != 0
    refused = front(killed, prompts, *settings, "model.text_chunks=3", command=commands.REAL)
    assert refused.returncode == 2 and "model.text_chunks: 2 -> 3" in refused.stderr
    done = front(killed, prompts, *settings, command=commands.REAL)
    assert done.returncode == 0, done.stderr
    images = [{name: one for name, one in samples(run).items() if name.endswith(".png")} for run in (whole, killed)]
    assert images[0] == images[1] and len(images[0]) == 21
