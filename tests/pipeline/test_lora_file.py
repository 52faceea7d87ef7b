"""LoRA files in each form change the picture as diffusers' own loading of them does."""

import pytest

pytest.importorskip("torch")

import torch
from diffusers import DiffusionPipeline

from batchgen.errors import ModelError
from batchgen.models.families import FAMILIES
from batchgen.models.find import ModelFiles
from batchgen.models.lora import digest
from batchgen.pipeline.check import check_loras
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.lora_file import lora_kind, read_lora
from batchgen.types import Lora
from tests.pipeline import loras
from tests.pipeline.placed import changed
from tests.pipeline.test_engine import prompt

POLICY = changed(micro_batch=1, decode_chunk=1)
CLOSE = 1e-5
FORMS = {
    "diffusers": lambda made, folder, xl: loras.as_diffusers(made, folder / "a.safetensors"),
    "convolutions": lambda made, folder, xl: loras.as_diffusers(made, folder / "a.safetensors"),
    "settings": lambda made, folder, xl: loras.with_settings(made, folder / "a.safetensors", alpha=5),
    "older": lambda made, folder, xl: loras.as_older_diffusers(made, folder / "a.safetensors"),
    "kohya": lambda made, folder, xl: loras.as_kohya(made, folder / "a.safetensors", lambda _: 1.0, xl),
}


@pytest.fixture(scope="module")
def engine(folder):
    made = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    made.prepare(POLICY)
    return made


def loaded(folder):
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe):
    """The latent that diffusers' own pipeline makes."""
    one = prompt(0)
    return pipe(
        one.prompt, generator=torch.Generator("cpu").manual_seed(one.seed), guidance_scale=one.guidance,
        num_inference_steps=one.steps, width=64, height=64, output_type="latent",
    ).images[0]  # fmt: skip


def ours(engine, *files):
    row = prompt(0, lora=tuple(Lora(str(path), weight, digest(path)) for path, weight in files))
    return engine.denoise(engine.encode([row]), [row], POLICY)[0]


def apart(one, other):
    """How far two latents are apart, relative to their size."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("form", FORMS)
def test_the_picture_is_that_of_diffusers_own_loading(engine, folder, tmp_path, form):
    pipe, kind = loaded(folder), engine._model._merger._kind
    made = loras.layers(pipe, kind.parts, convs=form == "convolutions")
    assert {part for part, _ in made} == set(kind.parts)
    path = FORMS[form](made, tmp_path, "text_encoder_2" in kind.parts)
    pipe.load_lora_weights(str(path), adapter_name="a")
    pipe.set_adapters(["a"], [0.7])
    expected, got = drawn(pipe), ours(engine, (path, 0.7))
    assert apart(got, expected) < CLOSE
    assert apart(got, ours(engine)) > 0.05


def test_several_files_are_added_with_their_weights(engine, folder, tmp_path):
    pipe = loaded(folder)
    paths = [
        loras.as_diffusers(loras.layers(pipe, ("unet",), seed), tmp_path / f"{seed}.safetensors") for seed in (1, 2)
    ]
    for path in paths:
        pipe.load_lora_weights(str(path), adapter_name=path.stem)
    pipe.set_adapters(["1", "2"], [0.5, -1.0])
    assert apart(ours(engine, (paths[0], 0.5), (paths[1], -1.0)), drawn(pipe)) < CLOSE


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 3},
        {"lora_alpha": 3, "use_rslora": True},
        {"lora_alpha": 2, "alpha_pattern": {"to_q": 8, "down_blocks.0.attentions.0.proj_in": 1}},
    ],
)
def test_a_folder_that_peft_wrote_is_that_of_peft_with_its_settings(engine, folder, tmp_path, settings):
    from peft import PeftModel

    pipe = loaded(folder)
    path = loras.as_peft(loras.layers(pipe, ("unet",)), tmp_path / "peft", **settings)
    PeftModel.from_pretrained(pipe.unet, path.parent)
    assert apart(ours(engine, (path, 1.0)), drawn(pipe)) < CLOSE


def test_peft_of_a_text_encoder_is_known_by_its_layers(engine, folder, tmp_path):
    from peft import PeftModel

    pipe = loaded(folder)
    path = loras.as_peft(loras.layers(pipe, ("text_encoder",), strength=1.0), tmp_path / "peft", lora_alpha=4)
    PeftModel.from_pretrained(pipe.text_encoder, path.parent)
    assert apart(ours(engine, (path, 1.0)), drawn(pipe)) < CLOSE
    assert apart(ours(engine, (path, 1.0)), ours(engine)) > CLOSE


def test_each_layer_has_its_own_alpha_in_kohyas_form(engine, folder, tmp_path):
    # Diffusers 0.42.1 loses those of attention layers where they differ, so that it is no reference.
    kind, parts = engine._model._merger._kind, engine._model._merger._parts
    made = loras.layers(loaded(folder), kind.parts)
    path = loras.as_kohya(made, tmp_path / "a.safetensors", lambda number: 1.0 + number, "text_encoder_2" in parts)
    changes = read_lora(kind, path, parts).changes
    assert len(changes) == len(made)
    for number, ((part, name), (up, _)) in enumerate(made.items()):
        change = changes[part, f"{name}.weight"]
        assert change.scale == (1.0 + number) / loras.RANK
        assert torch.equal(change.up, up.flatten(1))


def test_a_bias_is_changed_too(engine, folder, tmp_path):
    pipe = loaded(folder)
    made = {place: pair for place, pair in loras.layers(pipe, ("unet",)).items() if place[1].endswith("to_out.0")}
    path = loras.as_diffusers(made, tmp_path / "a.safetensors", bias=True)
    pipe.load_lora_weights(str(path))
    assert apart(ours(engine, (path, 1.0)), drawn(pipe)) < CLOSE


def _changed(names=lambda place: place, pair=lambda up, down: (up, down)):
    return lambda made: {names(place): pair(*two) for place, two in made.items()}


REFUSED = {
    "another shape": (_changed(pair=lambda up, down: (up[:-1], down)), "another shape"),
    "another model": (_changed(lambda place: ("unet", f"x.{place[1]}")), "none of the layers"),
    "another part": (_changed(lambda place: ("transformer", place[1])), "none of the layers"),
    "ranks": (_changed(pair=lambda up, down: (up[:, :1], down)), "different ranks, 1 and 2"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_the_model_is_refused_in_one_line(engine, folder, tmp_path, why):
    change, told = REFUSED[why]
    made = change(loras.layers(loaded(folder), ("unet",)))
    path = loras.as_diffusers(made, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=told) as caught:
        read_lora(engine._model._merger._kind, path, engine._model._merger._parts)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3e38])
@pytest.mark.parametrize("place", ["up", "down", "bias", "alpha"])
def test_values_that_are_none_are_refused_by_the_check(folder, tmp_path, value, place):
    made = loras.layers(loaded(folder), ("unet",))
    path = tmp_path / "a.safetensors"
    if place == "alpha":
        loras.as_kohya(made, path, lambda number: value if number == 1 else 1.0)
    else:
        up, down = list(made.values())[-1]
        (down if place == "down" else up)[0, 0] = value
        loras.as_diffusers(made, path, bias=place == "bias")
    if value == 3e38:
        assert [*check_loras(ModelFiles(folder), "model", {"x": str(path)})["loras"]] == ["x"]
        return
    with pytest.raises(ModelError, match=r"LoRA .*a.safetensors has values that are infinite or not a number, in unet"):
        check_loras(ModelFiles(folder), "model", {"x": str(path)})


def test_layers_that_are_no_part_of_the_model_are_told(engine, folder, tmp_path):
    made = loras.layers(loaded(folder), ("unet",))
    (up, down), *_ = made.values()
    strange = {place: (up.clone(), down.clone()) for place in (("unet", "x.y"), ("vae", "z"))}
    path = loras.as_diffusers(made | strange, tmp_path / "a.safetensors")
    kind = lora_kind(FAMILIES["StableDiffusionPipeline"])
    [told] = read_lora(kind, path, engine._model._merger._parts).told
    assert told.startswith(f"3 of its {len(made) + 3} tensors are not for parts of this model and change nothing: unet")
