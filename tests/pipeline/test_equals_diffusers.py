"""Pictures are those that diffusers' own pipelines make of the texts, with any scheduler that may be chosen.

The reference is a pipeline made with the chosen scheduler: its constructor corrects clip_sample and steps_offset.
"""

import inspect
import itertools
import json
import re
import shutil
from typing import Any

import pytest

pytest.importorskip("torch")

import diffusers.schedulers
import numpy as np
import torch
from diffusers import DiffusionPipeline

from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.schedulers import SCHEDULERS, scheduler_of
from batchgen.types import EMPTY_NEGATIVE
from tests.pipeline.placed import changed
from tests.pipeline.small_models import ALL_KINDS, BETAS, save
from tests.pipeline.test_engine import prompt

NAMES = {name: class_name for name, (class_name, _) in SCHEDULERS.items()}
KARRAS = set(diffusers.schedulers.KarrasDiffusionSchedulers.__members__)
# Every scheduler of diffusers that those on offer may replace. LMS and DPM-SDE say nothing without scipy and torchsde.
LISTED = {*NAMES.values()} - {"LCMScheduler", "TCDScheduler"}
OWN = sorted(
    name
    for name in {*dir(diffusers.schedulers), *KARRAS}
    if {*getattr(getattr(diffusers, name, None), "_compatibles", KARRAS if name in KARRAS else ())} >= LISTED
)
# These make images with seeds of their own, and need no further package.
OF_THEIR_OWN = [name for name in OWN if not re.match("CogVideoX|LMS|DPMSolverSDE", name)]
# What models say of their schedule
SAYS = {
    "sd15": BETAS,
    "sd2": BETAS | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "sdxl": BETAS | {"timestep_spacing": "leading", "interpolation_type": "linear"},
}
POLICY = changed(micro_batch=4, decode_chunk=1)
LONG = "a red horse under an old tree " * 20


class Family:
    """One small model: its folder, the engine, and diffusers' own pipeline."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, save(kind, folder)
        self.engine = DiffusersEngine(ModelFiles(self.folder), "model", "fp32")
        self.engine.prepare(POLICY)
        self.is_xl = kind == "sdxl"
        self.seen = set()
        self.pipe = DiffusionPipeline.from_pretrained(self.folder, dtype=torch.float32)

    def reference(self, name, own_config):
        """Diffusers' own pipeline of this model with the chosen scheduler; 'model' is the own one."""
        settings: dict[str, Any] = {"algorithm_type": "dpmsolver++"} if name == "dpm++" else {}
        if name in ("ddim", "lcm", "tcd") and self.is_xl:
            settings["clip_sample"] = False  # this constructor corrects nothing, and the default ruins latents
        if name == "unipc" and own_config["_class_name"] == "DPMSolverSinglestepScheduler":
            settings["lower_order_final"] = True  # else all is NaN
        class_name = NAMES.get(name, own_config["_class_name"])
        scheduler = getattr(diffusers, class_name).from_config(own_config, **settings)
        pipe = type(self.pipe)(**self.pipe.components | {"scheduler": scheduler}, **self.switches())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def switches(self):
        names = ("requires_safety_checker", "force_zeros_for_empty_prompt")
        return {name: self.pipe.config[name] for name in names if name in self.pipe.config}

    def says(self, own, full, folder):
        """What an own scheduler's file in `folder` says: its schedule, and all defaults of its class if `full`."""
        config = {"_class_name": own} | SAYS[self.kind]
        kind = getattr(diffusers, own)
        (folder / "scheduler").mkdir(exist_ok=True)
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(config))
        if full and hasattr(kind, "_compatibles"):  # else its packages are not installed
            kind.from_config(config).save_config(folder / "scheduler")
        index = json.loads((self.folder / "model_index.json").read_text()) | {"scheduler": ["diffusers", own]}
        (folder / "model_index.json").write_text(json.dumps(index))
        return json.loads(path.read_text())

    def use(self, scheduler):
        self.engine._pipe.register_modules(scheduler=scheduler)


@pytest.fixture(scope="module", params=ALL_KINDS)
def family(request, tmp_path_factory):
    return Family(request.param, tmp_path_factory.mktemp("models") / request.param)


def same_pictures(engine, pipe, rows):
    """Whether the engine's latents and images of the rows, run together, are those of the pipeline, one by one."""
    latents = engine.denoise(engine.encode(rows), rows, POLICY)
    for row, latent in zip(rows, latents, strict=True):
        [image] = engine.decode([latent], POLICY)
        seen: list[torch.Tensor] = []
        expected = pipe(
            row.prompt,
            negative_prompt={"": None, EMPTY_NEGATIVE: ""}.get(row.negative_prompt, row.negative_prompt),
            generator=torch.Generator("cpu").manual_seed(row.seed),
            guidance_scale=row.guidance,
            num_inference_steps=row.steps,
            width=row.width,
            height=row.height,
            output_type="np",
            callback_on_step_end=lambda _, step, time, tensors, seen=seen: seen.append(tensors["latents"]) or {},
        ).images[0]  # fmt: skip
        off = (latent - seen[-1][0]).norm() / seen[-1].norm()
        assert off < 1e-4, f"{row.key}: latents differ by {off:.1e}"
        got = np.frombuffer(image.pixels, np.uint8).reshape(row.height, row.width, 3)
        assert np.abs((expected * 255).round() - got).max() <= 1, row.key


def state(scheduler):
    """All that a scheduler is made of, to be compared and looked up."""
    kept = {name: one for name, one in vars(scheduler).items() if not callable(one)}
    parts = {name: one.tolist() if hasattr(one, "tolist") else one for name, one in kept.items()}
    said = parts.pop("_internal_dict")  # with settings that only other schedulers heed
    config = {name: said[name] for name in inspect.signature(type(scheduler)).parameters if name in said}
    return repr([type(scheduler).__name__, config, sorted(parts.items())])


@pytest.mark.parametrize("own", OWN)
def test_a_chosen_scheduler_makes_the_pictures_of_the_guarded_pipeline(family, tmp_path, own):
    row = prompt(0, negative_prompt="blurry", width=80, steps=4)
    for full, name in itertools.product((False, True), (*NAMES, *(["model"] if own in OF_THEIR_OWN else []))):
        pipe = family.reference(name, family.says(own, full, tmp_path))
        chosen = scheduler_of(tmp_path, name)
        assert state(chosen) == state(pipe.scheduler), name
        if state(chosen) not in family.seen:  # many own schedulers lead to the same one
            family.seen.add(state(chosen))
            family.use(chosen)
            same_pictures(family.engine, pipe, [row])


# What shares a batch: of one size, with guidance or all without
BATCHES: dict[str, list[dict[str, Any]]] = {
    "guided": [
        {"guidance": 1.001}, {"guidance": 5.03, "negative_prompt": "blurry, grey"},
        {"guidance": 30.0, "negative_prompt": EMPTY_NEGATIVE}, {"guidance": 7.5, "prompt": LONG},
    ],
    "over-long": [{"prompt": LONG, "negative_prompt": LONG[::-1], "width": 96}, {"negative_prompt": LONG, "width": 96}],
    "wide": [{"guidance": guidance, "width": 128, "height": 48} for guidance in (2.0, 12.0, 21.7)],
    "tall": [{"guidance": guidance, "width": 64, "height": 120} for guidance in (3.3, 9.0)],
    "unguided": [{"guidance": guidance, "negative_prompt": "blurry"} for guidance in (0.0, 0.5, 1.0)],
}  # fmt: skip


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["model", "ddim", "euler_a"])
def test_rows_of_all_kinds_are_those_of_the_pipeline(family, tmp_path, batch, name):
    own_config = json.loads((family.folder / "scheduler" / "scheduler_config.json").read_text())
    family.use(scheduler_of(family.folder, name))
    rows = [prompt(place, **changes) for place, changes in enumerate(BATCHES[batch])]
    same_pictures(family.engine, family.reference(name, own_config), rows)


def test_the_engine_is_loaded_with_the_scheduler_that_was_chosen(family, tmp_path):
    shutil.copytree(family.folder, tmp_path / "model")
    family.says("PNDMScheduler", False, tmp_path / "model")
    engine = DiffusersEngine(ModelFiles(tmp_path / "model"), "ddim", "fp32")
    engine.prepare(POLICY)
    config = diffusers.PNDMScheduler.load_config(tmp_path / "model" / "scheduler")
    scheduler = diffusers.DDIMScheduler.from_config(config, **({"clip_sample": False} if family.is_xl else {}))
    pipe = DiffusionPipeline.from_pretrained(family.folder, scheduler=scheduler, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    same_pictures(engine, pipe, [prompt(0, guidance=9.0, steps=6)])


def test_a_vaes_mean_and_deviation_are_heeded_where_the_pipeline_heeds_them(family, tmp_path):
    shutil.copytree(family.folder, tmp_path / "model")
    path = tmp_path / "model" / "vae" / "config.json"
    says = json.loads(path.read_text()) | {"latents_mean": [0.5] * 4, "latents_std": [2.0] * 4, "shift_factor": 0.3}
    path.write_text(json.dumps(says))
    engine = DiffusersEngine(ModelFiles(tmp_path / "model"), "model", "fp32")
    engine.prepare(POLICY)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    same_pictures(engine, pipe, [prompt(0)])


def test_in_half_precision_no_number_is_rounded_that_the_pipeline_does_not_round(family, monkeypatch):
    engine = DiffusersEngine(ModelFiles(family.folder), "model", "bf16")
    monkeypatch.setattr(engine._family, "text_rows", 1, raising=False)  # so that texts have the pipeline's very bits
    policy = changed(micro_batch=1, decode_chunk=1, dtype="bf16")
    engine.prepare(policy)
    row = prompt(0, guidance=8.03, negative_prompt="blurry", steps=8)
    [latent] = engine.denoise(engine.encode([row]), [row], policy)
    pipe = DiffusionPipeline.from_pretrained(family.folder, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    [expected] = pipe(
        row.prompt, negative_prompt="blurry", generator=torch.Generator("cpu").manual_seed(row.seed),
        guidance_scale=8.03, num_inference_steps=8, width=64, height=64, output_type="latent",
    ).images  # fmt: skip
    assert (latent.float() - expected.float()).norm() / expected.float().norm() < 2e-3  # 0.012 with a scale of 8.0
