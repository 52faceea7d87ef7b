"""LoRA is merged into the weights wherever they wait, and taken out of them without a trace."""

import pytest

pytest.importorskip("torch")

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from batchgen.errors import ModelError
from batchgen.models.families import FAMILIES
from batchgen.models.find import ModelFiles
from batchgen.models.lora import digest
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.lora import Merger
from batchgen.placements import PLACEMENTS
from batchgen.types import Lora
from tests.pipeline import loras
from tests.pipeline.placed import changed, furthest, same
from tests.pipeline.test_engine import make, prompt


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """Two LoRA that change different layers: {"a": ..., "b": ..., "": none}."""
    home = tmp_path_factory.mktemp("loras")
    pipe = DiffusionPipeline.from_pretrained(folder)
    encoders = [name for name in ("text_encoder", "text_encoder_2") if getattr(pipe, name, None) is not None]
    paths = {
        "a": loras.as_diffusers(loras.layers(pipe, ["unet", *encoders], 1), home / "a.safetensors"),
        "b": loras.as_diffusers(loras.layers(pipe, ["unet"], 2, convs=True), home / "b.safetensors"),
    }
    return {"": ()} | {name: (Lora(str(path), 0.8, digest(path)),) for name, path in paths.items()}


def images(engine, lora, **changes):
    policy, why = engine.prepare(changed(**changes))
    assert why is None
    return make(engine, [prompt(0, steps=2, lora=lora), prompt(1, steps=2, lora=lora)], policy)


@pytest.fixture(scope="module")
def expected(folder, files):
    """Images with each LoRA, each by an engine that never had another."""
    return {name: images(DiffusersEngine(ModelFiles(folder), "model", "fp32"), lora) for name, lora in files.items()}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_weights_are_restored_to_the_bit_wherever_they_wait(folder, files, expected, placement):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    for name in ("a", "b", "a", "", "a", "a", ""):
        assert same(images(engine, files[name], placement=placement), expected[name]), name
    assert furthest(expected["a"], expected[""]) > 10 and furthest(expected["a"], expected["b"]) > 10


def test_the_merged_weights_are_those_after_the_pipeline_was_loaded_anew(folder, files, expected):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    images(engine, files["b"])
    engine._model.reload()  # as after memory was refused under hooks
    assert same(images(engine, files[""]), expected[""]), "texts of before are not used again"
    assert same(images(engine, files["a"], placement="weight_streaming"), expected["a"])
    engine.recover()
    assert same(images(engine, files["a"], placement="weight_streaming"), expected["a"])
    assert same(images(engine, files["a"], placement="model_offload"), expected["a"])


def test_traces_and_other_ways_of_calling_the_denoiser_follow(folder, files, expected):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    ways = {"traced": True, "guidance_split": True, "channels_last": True}
    for name in ("a", "b", "", "a"):
        assert furthest(images(engine, files[name], **ways), expected[name]) <= 2, name


@pytest.mark.parametrize("placement", ["resident", "weight_streaming"])
def test_a_merge_that_stops_half_way_is_made_again(folder, files, expected, monkeypatch, placement):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    images(engine, files["a"], placement=placement)
    real, calls = Merger._changed, []

    def stop(self, *given):
        calls.append(given)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *given)

    monkeypatch.setattr(Merger, "_changed", stop)
    with pytest.raises(torch.OutOfMemoryError):
        images(engine, files["b"], placement=placement)
    assert same(images(engine, files["a"], placement=placement), expected["a"])
    assert same(images(engine, files["b"], placement=placement), expected["b"])


def test_only_what_is_merged_now_is_kept_in_host_memory(folder, files):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    model: Any = engine._model
    images(engine, files["a"])
    kept = model._merger._originals
    assert {place[0] for place in kept} > {"unet"} and all(one.device.type == "cpu" for one in kept.values())
    images(engine, files["b"])
    assert {place[0] for place in model._merger._originals} == {"unet"}
    images(engine, files[""])
    assert not model._merger._originals


def test_the_sum_is_rounded_once(folder, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(folder)
    paths = [
        loras.as_diffusers(loras.layers(pipe, ["unet"], seed), tmp_path / f"{seed}.safetensors") for seed in (1, 2)
    ]
    place = next(iter(loras.layers(pipe, ["unet"])))[1]
    weight = pipe.unet.get_submodule(place).weight
    parts = [loras.layers(pipe, ["unet"], seed)["unet", place] for seed in (1, 2)]
    expected = weight.detach().bfloat16().float().flatten(1)
    for up, down in parts:
        expected = expected.addmm(up.flatten(1), down.flatten(1), alpha=0.3)
    pipe.to(torch.bfloat16)
    merger = Merger(pipe, FAMILIES[type(pipe).__name__], torch.device("cpu"), {})
    merger.use(
        tuple(Lora(str(path), 0.3, digest(path)) for path in paths),
        lambda part: {name: one.data for name, one in part.named_parameters()},
    )
    assert torch.equal(pipe.unet.get_submodule(place).weight.flatten(1), expected.bfloat16())


def test_a_file_that_is_not_the_planned_one_any_more_stops_the_work(folder, files, expected, tmp_path):
    path = tmp_path / "a.safetensors"
    [planned], [other] = files["a"], files["b"]
    path.write_bytes(Path(planned.path).read_bytes())
    moved = (planned._replace(path=str(path)),)
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert same(images(engine, moved), expected["a"])
    images(engine, ())
    path.write_bytes(Path(other.path).read_bytes())
    with pytest.raises(ModelError, match="is not the file that this run was planned with"):
        images(engine, moved)
    path.unlink()
    with pytest.raises(ModelError, match="is not the file that this run was planned with"):
        images(engine, moved)
    assert same(images(engine, ()), expected[""])


def test_a_file_that_was_moved_is_known_by_its_content(folder, files, expected):
    [lora] = files["a"]
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32", loras={lora.sha256: Path(lora.path)})
    assert same(images(engine, (lora._replace(path="/gone/a.safetensors"),)), expected["a"])
