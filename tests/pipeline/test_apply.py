"""A pipeline set up by one policy after another."""

import gc
import weakref

import pytest

pytest.importorskip("torch")


from batchgen.models.find import ModelFiles
from batchgen.pipeline import apply as module
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.load import load_pipeline
from tests.pipeline.placed import furthest, images, same


def test_a_pipeline_that_is_replaced_is_gone(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    images(engine, placement="sequential_offload")
    gone = weakref.ref(engine._pipe.unet)
    images(engine, placement="resident")
    gc.collect()
    assert gone() is None


def test_a_pipeline_is_gone_before_the_next_is_loaded(folder, monkeypatch):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    images(engine, placement="resident")
    gone, alive = weakref.ref(engine._pipe.unet), []

    def load(*given):
        alive.append(gone())
        return load_pipeline(*given)

    monkeypatch.setattr(module, "load_pipeline", load)
    images(engine, channels_last=True)
    assert alive == [None]


@pytest.mark.parametrize("change", [{"guidance_split": True}, {"channels_last": True}, {"traced": True}])
def test_how_the_denoiser_is_called_changes_low_bits_at_most(folder, resident, change):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert furthest(images(engine, **change), resident) <= 2
    assert same(images(engine), resident), "and can be undone"


def test_all_ways_of_calling_the_denoiser_work_together(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    made = images(engine, placement="model_offload", guidance_split=True, channels_last=True, traced=True)
    assert furthest(made, resident) <= 2


def test_guidance_is_split_under_offload_too(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert furthest(images(engine, placement="sequential_offload", guidance_split=True), resident) <= 2
    assert furthest(images(engine, placement="group_offload_block", guidance_split=True), resident) <= 2
