"""What holds for every family, with a tiny random pipeline of its true architecture, saved and loaded as models are.

The class of tests of a family derives from `Contract` and says how its tiny pipeline is made.
"""

import dataclasses
import json
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from batchgen.errors import ConfigError, ModelError
from batchgen.evening.cuts import cut_warning
from batchgen.memory.estimate import estimate
from batchgen.models.families.base import NEVER
from batchgen.models.find import ModelFiles, place_px
from batchgen.models.lora import digest
from batchgen.paths import RunDir
from batchgen.pipeline.check import check
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.lora_file import lora_kind
from batchgen.pipeline.placement import components
from batchgen.placements import PLACEMENTS
from batchgen.policy import Policy
from batchgen.prepare import prepare
from batchgen.types import Lora, Prompt
from tests import commands
from tests.builders import make_config
from tests.commands import front, samples, write_prompts
from tests.pipeline import loras

POLICY = Policy(micro_batch=4, decode_chunk=4, tile_px=0, placement="resident", dtype="fp32", threads=1)
TEXTS = ("a red horse", "an old tree " * 6, "a")
LONG = "a red horse under an old tree " * 80
# Sums may be rounded otherwise where other rows are computed beside a row.
ROUNDING = 1e-5


class Contract:
    """The contract of one family."""

    family: Any
    guided: tuple[float, ...] = (2.0, 3.5, 6.0)  # scales that share a batch
    off = 0.0  # without guidance
    size = (64, 96)
    noisy: tuple[str, dict[str, Any]] = ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True})
    scale_word = "guidance_scale"
    call: dict[str, Any] = {}  # what a user gives the family's own pipeline besides

    @staticmethod
    def build() -> Any:
        raise NotImplementedError

    # What tests share -------------------------------------------------------------------------------------------

    def above(self, folder):
        index = json.loads((folder / "model_index.json").read_text())
        return self.family.guidance_starts(index)

    def row(self, place, folder, **changes):
        fields = {
            "key": f"k{place}", "prompt": TEXTS[place % 3], "negative_prompt": "", "seed": 1000 + place, "steps": 3,
            "width": self.size[0], "height": self.size[1], "guidance": self.guided[place % 3], "source": "p.txt",
            "line": place + 1, "guided_above": self.above(folder),
        }  # fmt: skip
        return Prompt(**(fields | changes))

    def rows(self, folder, **changes):
        return [self.row(place, folder, **changes) for place in range(3)]

    # The tests --------------------------------------------------------------------------------------------------

    def test_the_whole_model_passes_the_check(self, folder):
        assert check(ModelFiles(folder), "model", [2, 9], [])["told"] == []

    def test_a_row_in_a_batch_is_the_row_alone_whatever_its_text_its_scale_and_its_neighbours(self, engine, folder):
        rows = self.rows(folder)
        together = denoised(engine, rows)
        for row, latent in zip(rows, together, strict=True):
            assert apart(denoised(engine, [row])[0], latent) < ROUNDING
        assert not near(together[0], denoised(engine, [dataclasses.replace(rows[0], prompt=TEXTS[1])])[0])

    def test_the_scale_of_a_row_counts(self, engine, folder):
        row = self.row(0, folder)
        scales = [denoised(engine, [dataclasses.replace(row, guidance=one)])[0] for one in self.guided[:2]]
        assert near(*scales) == (not self.heeds_scales(engine))

    def heeds_scales(self, engine):
        return True

    def test_without_guidance_rows_are_those_alone_too(self, engine, folder):
        rows = self.rows(folder, guidance=self.off)
        for row, latent in zip(rows, denoised(engine, rows), strict=True):
            assert apart(denoised(engine, [row])[0], latent) < ROUNDING

    def test_a_second_run_and_another_order_and_a_padded_rest_have_the_same_bits(self, engine, folder):
        rows = self.rows(folder)
        first = denoised(engine, rows)
        assert all(map(torch.equal, first, denoised(engine, rows)))
        assert all(map(torch.equal, first, reversed(denoised(engine, rows[::-1]))))
        fourth = denoised(engine, [*rows, self.row(3, folder)])
        assert all(map(torch.equal, first, fourth))  # three rows are padded to four

    def test_decoding_is_that_of_the_pipeline_to_the_bit_whole_and_in_chunks(self, engine, pipe, folder):
        row = self.row(0, folder)
        made, expected = self.reference(pipe, row)
        family = self.family
        with torch.inference_mode():
            latents = family.unpack(pipe, made, row.width, row.height)
            decoded = pipe.vae.decode(family.unscale(pipe.vae, latents), return_dict=False)[0]
        decoded = decoded[:, :, 0] if decoded.dim() == 5 else decoded
        assert torch.equal((decoded / 2 + 0.5).clamp(0, 1), expected)
        [latent] = latents
        whole = engine.decode([latent], dataclasses.replace(POLICY, decode_chunk=1))
        chunked = engine.decode([latent] * 3, dataclasses.replace(POLICY, decode_chunk=2))
        [image] = pixels(whole)
        assert np.array_equal(image, (expected[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8))
        assert all(np.abs(one.astype(int) - image).max() <= 1 for one in pixels(chunked))

    def test_tiles_are_decoded_in_the_vaes_own_way(self, engine, folder):
        edge = 4 * engine._pipe.vae_scale_factor * self.family.patch
        row = self.row(0, folder, width=2 * edge, height=2 * edge, steps=1)
        latents = denoised(engine, [row])
        tiled = engine.decode(latents, dataclasses.replace(POLICY, tile_px=edge, decode_chunk=1))
        whole = engine.decode(latents, dataclasses.replace(POLICY, decode_chunk=1))
        assert pixels(tiled)[0].shape == pixels(whole)[0].shape == (2 * edge, 2 * edge, 3)
        assert not np.array_equal(*pixels([*tiled, *whole]))

    def test_a_scheduler_that_adds_noise_draws_it_for_each_row(self, folder):
        engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
        engine.prepare(POLICY)
        own = engine._pipe.scheduler
        kind, settings = self.noisy
        engine._pipe.register_modules(scheduler=getattr(diffusers, kind).from_config(own.config, **settings))
        rows = self.rows(folder, steps=4)
        together = denoised(engine, rows)
        for row, latent in zip(rows, together, strict=True):
            assert apart(denoised(engine, [row])[0], latent) < ROUNDING
        assert not near(together[0], denoised(engine, [dataclasses.replace(rows[0], seed=5)])[0])

    def test_a_negative_prompt_may_be_longer_than_the_prompt(self, engine, folder):
        rows = self.rows(folder, negative_prompt="a grey horse " * 9)
        together = denoised(engine, rows)
        for row, latent in zip(rows, together, strict=True):
            assert apart(denoised(engine, [row])[0], latent) < ROUNDING
        plain = denoised(engine, self.rows(folder))
        assert near(together[0], plain[0]) == (not rows[0].is_guided)

    def test_images_have_the_size_asked_for(self, engine, folder):
        edge = self.family.patch * engine._pipe.vae_scale_factor
        for width, height in ((64, 64 + edge), (128, 64)):
            row = self.row(0, folder, width=width, height=height, steps=1)
            [image] = engine.decode(denoised(engine, [row]), POLICY)
            assert (image.width, image.height, len(image.pixels)) == (width, height, width * height * 3)

    def test_a_latent_that_was_saved_decodes_to_the_same_image(self, engine, folder, tmp_path):
        [latent] = denoised(engine, [self.row(0, folder)])
        torch.save(latent, tmp_path / "latent")
        images = [engine.decode([one], POLICY)[0].pixels for one in (latent, torch.load(tmp_path / "latent"))]
        assert images[0] == images[1]
        cropped = engine.crop(latent, self.size[0], self.size[0])
        assert engine.decode([cropped], POLICY)[0].height == self.size[0]

    @pytest.mark.parametrize("placement", PLACEMENTS)
    def test_where_the_weights_wait_changes_no_byte(self, engine, folder, placement):
        rows = self.rows(folder)
        resident = pixels(engine.decode(denoised(engine, rows), POLICY))
        other = DiffusersEngine(ModelFiles(folder), "model", "fp32")
        policy = dataclasses.replace(POLICY, placement=placement)
        other.prepare(policy)
        for _ in range(2):
            made = other.denoise(other.encode(rows), rows, policy)
            assert all(map(np.array_equal, pixels(other.decode(made, policy)), resident))
            other._texts.clear()

    def test_a_lora_changes_the_picture_as_diffusers_own_loading_does(self, engine, folder, tmp_path):
        left_out = {name: None for name in self.family.optional if not (folder / name).is_dir()}
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **left_out)
        pipe.set_progress_bar_config(disable=True)
        row, paths = self.row(0, folder), []
        for seed, weight in ((1, 0.7), (2, -0.4)):
            made = loras.layers(pipe, (self.family.denoiser,) if seed == 2 else lora_kind(self.family).parts, seed)
            paths.append((loras.as_diffusers(made, tmp_path / f"{seed}.safetensors"), weight))
        for path, _ in paths:
            pipe.load_lora_weights(str(path), adapter_name=path.stem)
        pipe.set_adapters([path.stem for path, _ in paths], [weight for _, weight in paths])
        [reference] = self.family.unpack(pipe, self.reference(pipe, row)[0], row.width, row.height)
        merged = dataclasses.replace(row, lora=tuple(Lora(str(path), one, digest(path)) for path, one in paths))
        plain = denoised(engine, [row])[0]
        assert near(denoised(engine, [merged])[0], reference) and not near(plain, reference)
        assert torch.equal(denoised(engine, [row])[0], plain)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    def test_a_lora_leaves_no_trace_wherever_the_weights_wait(self, engine, folder, tmp_path, placement):
        rows = {name: self.row(0, folder, steps=2) for name in ("", "a", "b")}
        for name, seed in (("a", 1), ("b", 2)):
            made = loras.layers(engine._pipe, lora_kind(self.family).parts, seed)
            path = loras.as_diffusers(made, tmp_path / f"{name}.safetensors")
            rows[name] = dataclasses.replace(rows[name], lora=(Lora(str(path), 1.0, digest(path)),))
        expected = {name: denoised(engine, [row])[0] for name, row in rows.items()}
        other = DiffusersEngine(ModelFiles(folder), "model", "fp32")
        policy = dataclasses.replace(POLICY, placement=placement)
        other.prepare(policy)
        weights: dict[str, list[dict[str, torch.Tensor]]] = {}
        model: Any = other._model
        for name in ("a", "b", "a", "", "a"):
            # Latents may differ in low bits where the weights lie elsewhere in the host's memory; weights may not.
            assert near(denoised(other, [rows[name]], policy)[0], expected[name]), name
            parts = [getattr(model.pipe, part) for part in model._merger._parts]
            homes = [{key: one.clone() for key, one in model._placement.homes(part).items()} for part in parts]
            first = weights.setdefault(name, homes)
            assert all(torch.equal(one[key], same[key]) for one, same in zip(homes, first, strict=True) for key in one)
        assert not near(expected["a"], expected["b"]) and not near(expected["a"], expected[""])

    def test_encoders_are_gone_while_the_denoiser_works(self, folder):
        engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
        engine.prepare(dataclasses.replace(POLICY, placement="text_offload"))
        encoders = components(engine._pipe, self.family, "encode")
        assert len(encoders) == sum(getattr(engine._pipe, name) is not None for name in self.family.encoders)
        host = [weight.data_ptr() for encoder in encoders for weight in encoder.parameters()]
        rows = self.rows(folder)
        texts = engine.encode(rows)
        assert all(one != other for one, other in zip(host, pointers(encoders), strict=True))
        engine.denoise(texts, rows, POLICY)
        assert host == pointers(encoders)

    def test_two_passes_of_guidance_are_one(self, engine, folder):
        rows = self.rows(folder)
        whole = denoised(engine, rows)
        split = dataclasses.replace(POLICY, guidance_split=True)
        engine.prepare(split)
        assert all(apart(*pair) < ROUNDING for pair in zip(denoised(engine, rows, split), whole, strict=True))
        engine.prepare(POLICY)

    def test_text_beyond_what_the_model_reads_is_told_and_not_drawn(self, engine, folder):
        name, room = self.family.read_by(engine._denoiser.config)
        tokenizer = getattr(engine._pipe, name)
        kept = self.room(tokenizer, room)
        long = self.row(0, folder, prompt=LONG)
        texts = engine.encode([long])
        [(read, _)] = self.family.pieces(LONG)
        ids = tokenizer(read, add_special_tokens=False, verbose=False).input_ids
        assert len(ids) > kept and texts[LONG].cut == tokenizer.decode(ids[kept:])
        assert engine.encode([self.row(0, folder)])[TEXTS[0]].cut is None
        assert "1 prompt is longer" in str(cut_warning(ModelFiles(folder), [LONG, TEXTS[0]]))

    @staticmethod
    def room(tokenizer, room):
        return tokenizer.model_max_length - 2 if room is None else room

    def reference(self, pipe, row):
        """The latents as the pipeline's loop leaves them, and its image of 0..1, from the text itself."""
        noise = self.family.noise(pipe, [torch.Generator("cpu").manual_seed(row.seed)], row.width, row.height)
        given = {self.scale_word: row.guidance} | self.call | self.negative(pipe, row)

        def run_to(kind):
            return pipe(
                prompt=row.prompt, latents=noise.clone(), num_inference_steps=row.steps, width=row.width,
                height=row.height, output_type=kind, **given,
            ).images  # fmt: skip

        return run_to("latent"), run_to("pt")

    def negative(self, pipe, row):
        """What a user gives the pipeline for the row's negative prompt."""
        return {"negative_prompt": row.negative_prompt} if row.is_guided and row.negative_prompt else {}

    def unused(self, pipe, row, encoder):
        """The texts, as ids, that only the engine encodes, without using what comes out."""
        return set()

    def test_a_prompt_through_the_engine_is_the_pipeline_called_with_the_text(self, engine, pipe, folder):
        for row in (self.row(0, folder), self.row(1, folder, negative_prompt="grey")):
            engine._texts.clear()
            with seen_ids(engine._pipe, self.family) as ours:
                texts = engine.encode([row])
            [latent] = engine.denoise(texts, [row], POLICY)
            with seen_ids(pipe, self.family) as theirs:
                made, expected = self.reference(pipe, row)
            [reference] = self.family.unpack(pipe, made, row.width, row.height)
            assert apart(latent, reference) < 1e-4
            [image] = pixels(engine.decode([latent], POLICY))
            off = np.abs(image.astype(float) - (expected[0].permute(1, 2, 0) * 255).numpy())
            assert off.max() <= 1.0
            assert theirs and ours == {name: ids | self.unused(pipe, row, name) for name, ids in theirs.items()}

    def test_a_size_of_no_whole_tokens_is_refused_before_there_is_a_plan(self, folder, tmp_path):
        multiple = self.family.patch * place_px(json.loads((folder / "vae/config.json").read_text()))
        if multiple == 8:
            pytest.skip("every size that a row may ask for is a multiple")
        config = make_config(tmp_path, [{"prompt": "a", "width": self.size[0] + multiple // 2}])
        config.model.path, config.job.height = str(folder), self.size[1]
        with pytest.raises(ModelError, match=f"width={self.size[0] + multiple // 2} .* a multiple of {multiple}, such"):
            prepare(RunDir(tmp_path / "run"), config)
        assert not (tmp_path / "run").exists()

    def settings(self, folder):
        return [
            f"model.path={folder}", f"job.width={self.size[0]}", f"job.height={self.size[1]}", "job.steps=2",
            f"job.guidance={self.guided[0]}", "job.batch_size=16", "job.scheduler=model", "memory.policy.micro_batch=8",
            "launch.workers=1", "output.batches_per_shard=1",
        ]  # fmt: skip

    def test_what_the_family_does_not_work_with_is_refused(self, folder, tmp_path):
        config = make_config(tmp_path)
        config.model.path, config.job.width, config.job.height = str(folder), *self.size
        config.model.dtype, config.speed.traced = "fp16", True
        if self.family.half == "fp16":
            pytest.skip("it works with both")
        with pytest.raises(ConfigError, match="overflows in fp16; use bf16 or auto"):
            prepare(RunDir(tmp_path / "run"), config)
        config.model.dtype = "auto"
        with pytest.raises(ConfigError, match="cannot be traced"):
            prepare(RunDir(tmp_path / "run"), config)

    def test_a_plan_holds_where_guidance_begins(self, folder, tmp_path, capsys):
        rows = [{"prompt": "a", "guidance": one, "negative_prompt": "grey"} for one in (*self.guided, self.off)]
        config = make_config(tmp_path, rows)
        config.model.path, config.job.width, config.job.height = str(folder), *self.size
        plan = prepare(RunDir(tmp_path / "run"), config)
        prompts = [prompt for prompt in plan.prompts() if isinstance(prompt, Prompt)]
        above = self.above(folder)
        guided = [prompt.is_guided for prompt in sorted(prompts, key=lambda one: one.key)]
        assert guided == [above < NEVER] * 3 + [False]
        told = "negative prompts change nothing" in capsys.readouterr().err
        assert told == (above >= NEVER)
        assert prepare(RunDir(tmp_path / "run"), config).run_id == plan.run_id

    def test_what_it_takes_is_estimated_from_its_files(self, folder):
        found = estimate(ModelFiles(folder), "bf16", *self.size)
        stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2
        assert 0.9 * sum(found.weights.parts_bytes) < stored < 1.2 * sum(found.weights.parts_bytes)
        assert found.pass_bytes[0][1] > 0 and found.encode_bytes > 0

    @pytest.mark.slow
    def test_forty_prompts_by_the_command_killed_and_resumed(self, folder, tmp_path):
        prompts, settings = write_prompts(tmp_path / "p.txt", 41), self.settings(folder)
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        done = front(whole, prompts, *settings, command=commands.REAL)
        assert done.returncode == 0, done.stderr
        code, _ = commands.kill_when(
            0.0, lambda: any(killed.glob("shards/*.tar")), commands.REAL, "job=mars_batch", f"run_dir={killed}",
            f"job.prompts={prompts}", *settings,
        )  # fmt: skip
        assert code != 0
        done = front(killed, prompts, *settings, command=commands.REAL)
        assert done.returncode == 0, done.stderr
        assert commands.verify(killed).returncode == 0
        images = [{name: one for name, one in samples(run).items() if name.endswith(".png")} for run in (whole, killed)]
        assert images[0] == images[1] and len(images[0]) == 41


@contextmanager
def seen_ids(pipe, family):
    """A context with the texts, as ids of their tokens without padding, that reach each encoder."""
    seen: dict[str, set[tuple[int, ...]]] = {}
    hooks = []
    for name in family.encoders:
        if (encoder := getattr(pipe, name)) is not None:
            seen[name] = set()

            def note(_, given, named, name=name):
                ids = named["input_ids"] if "input_ids" in named else given[0]
                kept = named.get("attention_mask")
                kept = torch.ones_like(ids) if kept is None else kept
                seen[name] |= {tuple(row[mask.bool()].tolist()) for row, mask in zip(ids, kept, strict=True)}

            hooks.append(encoder.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


# Helpers --------------------------------------------------------------------------------------------------------


def denoised(engine, rows, policy=POLICY):
    return engine.denoise(engine.encode(rows), rows, policy)


def apart(one, other):
    """How far two latents are apart, relative to their size."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))


def near(one, other):
    return apart(one, other) < ROUNDING


def pixels(images):
    return [np.frombuffer(one.pixels, np.uint8).reshape(one.height, one.width, 3) for one in images]


def pointers(encoders):
    return [weight.data_ptr() for encoder in encoders for weight in encoder.parameters()]
