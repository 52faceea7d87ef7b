"""Schedulers made for a model from its files alone: set right as diffusers does it, or refused in one line."""

import json
import shutil

import pytest

pytest.importorskip("torch")

import diffusers
import numpy as np
from diffusers.schedulers import KarrasDiffusionSchedulers

from batchgen.errors import ModelError
from batchgen.models.find import ModelFiles, Timesteps
from batchgen.pipeline.check import working_steps
from batchgen.pipeline.load import load_pipeline
from batchgen.pipeline.schedulers import SCHEDULERS, scheduler_of
from tests.pipeline.small_models import KINDS, save

OWN = sorted(set(KarrasDiffusionSchedulers.__members__) - {"EDMEulerScheduler"})  # it names none that can replace it


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("models") / kind) for kind in KINDS}


def with_scheduler(model, folder, own, **config):
    """A model's index and its scheduler's configuration, without weights; `config` is all that this one says."""
    (folder / "scheduler").mkdir(parents=True)
    index = json.loads((model / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", own]
    (folder / "model_index.json").write_text(json.dumps(index))
    about = {"_class_name": own, "_diffusers_version": "0.42.1"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(about | config))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", OWN)
def test_no_swapped_scheduler_cuts_latents_off(models, tmp_path, kind, own):
    folder = with_scheduler(models[kind], tmp_path / "model", own, beta_schedule="scaled_linear")
    made = {name: scheduler_of(folder, name) for name in SCHEDULERS}
    assert {name: type(one).__name__ for name, one in made.items()} == {n: kind for n, (kind, _) in SCHEDULERS.items()}
    assert not any(one.config.get("clip_sample") for one in made.values())
    assert {one.config.steps_offset for one in made.values()} == ({1} if kind == "sd15" else {0})


def test_settings_of_the_own_scheduler_go_over_to_the_chosen_one(models, tmp_path):
    folder = with_scheduler(
        models["sd15"], tmp_path / "model", "PNDMScheduler", set_alpha_to_one=False, steps_offset=1, beta_start=0.002
    )
    ddim = scheduler_of(folder, "ddim")
    assert (ddim.config.set_alpha_to_one, ddim.config.steps_offset, ddim.config.beta_start) == (False, 1, 0.002)
    assert ddim.final_alpha_cumprod == ddim.alphas_cumprod[0]


@pytest.mark.parametrize("own", ["LMSDiscreteScheduler", "DPMSolverSDEScheduler"])
def test_an_own_scheduler_that_cannot_be_made_is_not_made_for_another(models, tmp_path, own, monkeypatch):
    class Shell:  # as diffusers has it where scipy or torchsde is not installed
        def __init__(self, *_, **__):
            raise ImportError(f"{own} requires the scipy library but it was not found\nin your environment.")

        from_config = from_pretrained = __init__

    monkeypatch.setattr(diffusers, own, Shell)
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    edit_own(folder, own)
    pipe = load_pipeline(ModelFiles(folder), "dpm++", "fp32")
    assert type(pipe.scheduler).__name__ == "DPMSolverMultistepScheduler"
    with pytest.raises(ModelError, match="requires the scipy library|ignores per-image seeds") as caught:
        scheduler_of(folder, "model")
    assert "\n" not in str(caught.value)


def edit_own(folder, own):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", own]}))


REFUSED = [(own, name) for own in ("LCMScheduler", "EDMEulerScheduler") for name in SCHEDULERS]
REFUSED += [("FlowMatchEulerDiscreteScheduler", name) for name in SCHEDULERS if name != "unipc"]


@pytest.mark.parametrize(("own", "name"), [one for one in REFUSED if one != ("LCMScheduler", "lcm")])
def test_a_scheduler_that_cannot_replace_the_models_own_is_refused(models, tmp_path, own, name):
    folder = with_scheduler(models["sd15"], tmp_path / "model", own)
    with pytest.raises(ModelError, match=f"job.scheduler={name} does not fit this model's {own}".replace("+", r"\+")):
        scheduler_of(folder, name)


def no_config(folder):
    (folder / "scheduler" / "scheduler_config.json").unlink()


def torn_config(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text("{")


def foreign_schedule(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "no such\\n schedule"}')


def foreign_library(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["own_code", "MyScheduler"]}))


def no_scheduler(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": 3}))


@pytest.mark.parametrize("damage", [no_config, torn_config, foreign_schedule, foreign_library, no_scheduler])
@pytest.mark.parametrize("name", ["model", "ddim"])
def test_a_scheduler_that_cannot_be_made_is_refused_in_one_line(models, tmp_path, damage, name):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "DDIMScheduler")
    damage(folder)
    with pytest.raises(ModelError) as caught:
        scheduler_of(folder, name)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def own_settings(**settings):
    def change(folder):
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


FAULTS = {
    "missing": no_config,
    "torn": torn_config,
    "schedule": own_settings(beta_schedule="foo"),
    "no timesteps": own_settings(num_train_timesteps=0),
    "prediction": own_settings(prediction_type="foo"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["model", "ddim", "dpm++"])
def test_where_the_file_is_at_fault_no_other_scheduler_is_advised(models, tmp_path, fault, name):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "DDIMScheduler")
    FAULTS[fault](folder)
    with pytest.raises(ModelError, match="fix .*or copy it again$") as caught:
        working_steps(ModelFiles(folder), name, [4], [])
    assert "job.s" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_scheduler_that_is_advised_works(models, tmp_path):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "PNDMScheduler", skip_prk_steps=False)
    with pytest.raises(ModelError, match=r"job\.steps .* to 4, or job\.scheduler=ddim$"):
        working_steps(ModelFiles(folder), "model", [2], [])
    assert 2 in working_steps(ModelFiles(folder), "ddim", [2], [])


@pytest.mark.parametrize("name", ["model", "ddim"])
def test_a_class_that_diffusers_lacks_is_to_be_corrected_in_the_index(models, tmp_path, name):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "FooScheduler")
    with pytest.raises(ModelError, match="diffusers.FooScheduler, which diffusers .*: correct model_index.json$"):
        scheduler_of(folder, name)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_the_spacing_of_the_timesteps_can_be_chosen(models, spacing):
    for name in ("model", "ddim", "euler", "unipc", "euler_a", "dpm++"):
        scheduler = scheduler_of(models["sdxl"], name, Timesteps(spacing))
        scheduler.set_timesteps(4)
        first = {"trailing": 999, "leading": 751, "linspace": 999}[spacing]
        got = round(float(scheduler.timesteps[0]))
        assert got == first or (spacing == "leading" and got < 999), name


@pytest.mark.parametrize("name", ["model", "unipc"])
def test_the_shift_of_a_flow_model_can_be_chosen_for_all_sizes(models, tmp_path, name):
    own = {"use_dynamic_shifting": True, "shift_terminal": 0.02, "shift": 1.0}
    folder = with_scheduler(models["sd15"], tmp_path / "model", "FlowMatchEulerDiscreteScheduler", **own)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "QwenImagePipeline"}))
    scheduler = scheduler_of(folder, name, Timesteps(shift=3.0))
    plain = np.linspace(1.0, 0.25, 4)
    scheduler.set_timesteps(sigmas=plain)
    # Qwen-Image-Lightning's own scheduler shifts by exp(mu) with mu = log 3, which is the same
    assert scheduler.sigmas[:4].numpy() == pytest.approx(3 * plain / (1 + 2 * plain), abs=1e-5)


def test_a_shift_is_refused_for_other_models(models):
    with pytest.raises(ModelError, match="^model.timestep_shift is for flow models, and DDIMScheduler is of another k"):
        scheduler_of(models["sd15"], "ddim", Timesteps(shift=3.0))


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_a_spacing_that_a_scheduler_does_not_heed_is_refused(models, name):
    with pytest.raises(ModelError, match="^model.timestep_spacing=trailing: .* are not spaced by it; leave"):
        scheduler_of(models["sd15"], name, Timesteps("trailing"))
    with pytest.raises(ModelError, match=r"cannot make 60 steps: .* to 59, or|cannot make 60 steps: .* to 50, or"):
        working_steps(ModelFiles(models["sd15"]), name, [60], [])  # they were distilled for 50


@pytest.mark.parametrize(
    ("pipeline", "runs"), [("FluxPipeline", True), ("StableDiffusion3Pipeline", True), ("ZImagePipeline", False)]
)
def test_unipc_solves_flow_models_with_the_models_own_shift(models, tmp_path, pipeline, runs):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "FlowMatchEulerDiscreteScheduler", shift=3.0)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline}))
    if not runs:
        with pytest.raises(ModelError, match="does not fit"):
            scheduler_of(folder, "unipc")
        return
    scheduler = scheduler_of(folder, "unipc")
    assert (scheduler.config.flow_shift, scheduler.config.use_flow_sigmas) == (3.0, True)
    scheduler.set_timesteps(2)
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, 3 / 4, 0.0], abs=1e-3)
    with pytest.raises(ModelError, match="not spaced by it"):
        scheduler_of(folder, "unipc", Timesteps("trailing"))
