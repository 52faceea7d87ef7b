"""A pipeline set up by one policy after another."""

import gc
import weakref

import pytest

pytest.importorskip("torch")


from batchgen.config.schema import SCHEDULERS
from batchgen.errors import ModelError
from batchgen.models.find import ModelFiles
from batchgen.pipeline import apply as module
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.load import load_pipeline
from tests.pipeline.levers.test_compiled import counted  # noqa: F401
from tests.pipeline.levers.test_graphs import Fake
from tests.pipeline.placed import changed, furthest, images, same
from tests.pipeline.test_engine import make, prompt


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


@pytest.fixture
def graphing(folder, counted, monkeypatch):  # noqa: F811
    """An engine whose denoiser is recorded by a recorder that needs no GPU, and that recorder. Nothing is compiled."""
    recorder = Fake()
    monkeypatch.setattr(module, "Recorder", lambda: recorder)
    monkeypatch.setattr(module, "why_not", lambda *_: None)
    return DiffusersEngine(ModelFiles(folder), "model", "fp32"), recorder


GRAPHS = changed(compile="graphs")
FULL = [prompt(place) for place in range(GRAPHS.micro_batch)]


def test_what_is_recorded_computes_the_same(graphing):
    engine, recorder = graphing
    engine.prepare(GRAPHS)
    engine.warm_up([prompt(place, steps=1) for place in range(GRAPHS.micro_batch)], GRAPHS)
    recorded = make(engine, FULL, GRAPHS)
    assert recorder.recorded == 1, "all steps and calls are one recording"
    whole = changed(compile="whole")
    assert engine.prepare(whole) == (whole, None)
    assert same(make(engine, FULL, whole), recorded)
    assert recorder.recorded == 1


def test_graphs_are_forgotten_where_memory_was_refused_or_attention_is_another(graphing):
    engine, recorder = graphing
    engine.prepare(GRAPHS)
    engine.warm_up(FULL, GRAPHS)
    for count, change in enumerate((engine.recover, engine._model.reload), 2):
        forgotten = recorder.forgotten
        change()
        assert recorder.forgotten > forgotten
        engine.prepare(GRAPHS)
        make(engine, FULL, GRAPHS)
        assert recorder.recorded == count
    plain = changed(compile="graphs", attention="plain")
    for policy in (plain, GRAPHS):
        engine.prepare(policy)
        make(engine, FULL, policy)
    assert recorder.recorded == 5


def test_a_recording_that_fails_leaves_the_rest_compiled_and_says_why(graphing):
    engine, recorder = graphing
    recorder.error = RuntimeError("not permitted when stream is capturing")
    assert engine.prepare(GRAPHS) == (GRAPHS, None)
    engine.warm_up(FULL, GRAPHS)
    used, why = engine.prepare(GRAPHS)
    assert used == changed(compile="whole")
    assert str(why) == "the denoiser cannot be recorded as a CUDA graph: not permitted when stream is capturing"
    assert len(make(engine, FULL, used)) == len(FULL)


def test_where_there_is_no_gpu_graphs_are_whole(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    engine._model._why_not["whole"] = None
    assert engine.prepare(GRAPHS) == (changed(compile="whole"), "CUDA graphs need a GPU")
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    engine._model._why_not["whole"] = "no compiler"
    assert engine.prepare(GRAPHS)[0] == changed()


@pytest.mark.parametrize("scheduler", sorted({*SCHEDULERS} - {"model"}))
def test_no_scheduler_gives_the_denoiser_a_number_that_changes(folder, counted, monkeypatch, scheduler):  # noqa: F811
    recorder = Fake()
    monkeypatch.setattr(module, "Recorder", lambda: recorder)
    monkeypatch.setattr(module, "why_not", lambda *_: None)
    try:
        engine = DiffusersEngine(ModelFiles(folder), scheduler, "fp32")
    except ModelError:
        pytest.skip("it is not for this family")
    engine.prepare(GRAPHS)
    engine.warm_up(FULL, GRAPHS)
    assert recorder.recorded == 1
