"""Out-of-memory errors injected into a real pipeline: no image lost, none changed, nothing left behind."""

import gc
import threading
import weakref
from unittest import mock

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from diffusers import DiffusionPipeline

from batchgen.events import EventLog
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.worker.out_of_memory import Fitting
from tests.builders import OnePolicy
from tests.pipeline.placed import changed
from tests.pipeline.small_models import KINDS, save
from tests.pipeline.test_engine import prompt

PROMPTS = [prompt(place) for place in range(6)]
SIZE = (64, 64)
POLICY = changed(micro_batch=2, decode_chunk=1)
# Calls of each part that a run of PROMPTS makes: where memory may be refused.
PLACES = (
    [("text_encoder", 0)]
    + [("unet", call) for call in range(9)]  # 3 micro-batches of 3 steps
    + [("decoder", call) for call in range(6)]
    + [("host", call) for call in range(6)]
)


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def engine(folder):
    return DiffusersEngine(ModelFiles(folder), "model", "fp32")


@pytest.fixture(scope="module")
def undisturbed(engine, tmp_path_factory):
    return run(engine, tmp_path_factory.mktemp("undisturbed"))[0]


def run(engine, tmp_path, policy=POLICY, prompts=PROMPTS):
    """[(pixels, policy)] of the prompts, and the fitting that made them."""
    engine._texts.clear()
    fitting = Fitting(engine, OnePolicy(policy), EventLog(tmp_path / "events.jsonl"))
    fitting.begin(SIZE)
    texts = fitting.encode(SIZE, prompts)
    latents = fitting.denoise(SIZE, texts, prompts)
    return [(image.pixels, used) for image, used in fitting.decode(SIZE, latents)], fitting


def module_of(engine, part):
    return engine._pipe.vae.decoder if part == "decoder" else getattr(engine._pipe, part)


class Refusal:
    """Refuses memory at calls of a part; keeps weak references to what the calls held."""

    def __init__(self, engine, part, calls, monkeypatch):
        self.seen = -1
        self.held = []
        self._calls = calls
        if part == "host":
            real = torch.Tensor.cpu
            monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: self._check(tensor) or real(tensor))
        else:
            module_of(engine, part).register_forward_pre_hook(self._hook, with_kwargs=True)

    def _hook(self, module, arguments, keywords):
        tensors = [one for one in (*arguments, *keywords.values()) if isinstance(one, torch.Tensor)]
        self._check(tensors[0])

    def _check(self, tensor):
        self.seen += 1
        if self.seen in self._calls:
            waste = torch.zeros(1000)  # what the failed call had taken, alive in its frame
            self.held = [weakref.ref(tensor), weakref.ref(waste)]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.fixture
def refuse(engine, monkeypatch):
    """refuse(part, *calls): memory is refused there; all is undone after the test."""
    engine.prepare(POLICY)
    parts = [*engine._pipe.components.values(), engine._pipe.vae.decoder]
    modules = [one for one in parts if isinstance(one, torch.nn.Module)]
    yield lambda part, *calls: Refusal(engine, part, calls, monkeypatch)
    for module in modules:
        module._forward_pre_hooks.clear()
        module._forward_pre_hooks_with_kwargs.clear()


@pytest.mark.parametrize(("part", "call"), PLACES)
def test_one_refusal_changes_nothing(engine, undisturbed, refuse, tmp_path, part, call):
    refusal = refuse(part, call)
    before = weights(engine)
    made, fitting = run(engine, tmp_path)
    assert refusal.seen > call, "it was never reached"
    assert made == undisturbed
    assert fitting.ooms == 1
    gc.collect()
    assert [one() for one in refusal.held] == [None, None]
    assert weights(engine) == before


def weights(engine):
    """Where each weight is and what it is of: the same before and after."""
    parts = [engine._pipe.unet, engine._pipe.vae, engine._pipe.text_encoder]
    return [(weight.data_ptr(), weight.dtype, weight.device) for part in parts for weight in part.parameters()]


@pytest.mark.parametrize(("part", "field"), [("unet", "micro_batch"), ("decoder", "decode_chunk")])
def test_two_refusals_make_the_policy_smaller(engine, undisturbed, refuse, tmp_path, part, field):
    refusal = refuse(part, 1, 2)
    made, fitting = run(engine, tmp_path, changed(micro_batch=2, decode_chunk=2))
    assert refusal.seen > 2
    assert fitting.ooms == 2
    assert getattr(made[0][1], field) in (1, 2)
    assert getattr(made[-1][1], field) == 1
    assert furthest(made, undisturbed) <= 2


def furthest(made, expected):
    pairs = [[np.frombuffer(pixels, np.uint8).astype(int) for pixels, _ in one] for one in (made, expected)]
    return max(int(np.abs(one - other).max()) for one, other in zip(*pairs, strict=True))


@pytest.mark.parametrize(
    "placement", ["model_offload", "group_offload_block", "group_offload_leaf", "sequential_offload"]
)
@pytest.mark.parametrize("part", ["unet", "decoder"])
def test_offloaded_weights_survive_a_refusal(folder, undisturbed, tmp_path, monkeypatch, placement, part):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    policy = changed(micro_batch=2, decode_chunk=1, placement=placement)
    engine.prepare(policy)
    inner = engine._pipe.unet.mid_block if part == "unet" else engine._pipe.vae.decoder  # half way through
    calls = iter([False, True] + [False] * 100)

    def hook(*_):
        if next(calls):
            raise torch.OutOfMemoryError("CUDA out of memory")

    inner.register_forward_pre_hook(hook)
    made, fitting = run(engine, tmp_path, policy)
    assert fitting.ooms == 1
    assert [pixels for pixels, _ in made] == [pixels for pixels, _ in undisturbed]


def test_a_refusal_in_the_fp32_retry_leaves_the_vae_as_it_was(folder, tmp_path, monkeypatch):
    engine = DiffusersEngine(ModelFiles(folder), "model", "bf16")
    policy = changed(micro_batch=2, decode_chunk=2, dtype="bf16")
    expected, _ = run(engine, tmp_path, policy)
    vae = engine._pipe.vae
    real, retries = vae.decode, []

    def decode(latents, return_dict):
        if latents.dtype == torch.float32:
            retries.append(len(latents))
            if len(retries) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        image = real(latents, return_dict=return_dict)[0]
        if latents.dtype == torch.bfloat16:
            image[0] = float("nan")  # the first of each chunk overflows
        return (image,)

    monkeypatch.setattr(vae, "decode", decode)
    made, fitting = run(engine, tmp_path, policy)
    assert fitting.ooms == 1
    assert len(retries) == 4
    assert {weight.dtype for weight in vae.parameters()} == {torch.bfloat16}
    assert all(pixels is not None for pixels, _ in made)
    assert [pixels for pixels, _ in made][1::2] == [pixels for pixels, _ in expected][1::2]


@pytest.fixture
def fp32_vae(tmp_path, monkeypatch, folder):
    """(engine, policy) in bf16 whose first image of each chunk of two overflows and is decoded again in fp32."""
    engine = DiffusersEngine(ModelFiles(folder), "model", "bf16")
    real = engine._pipe.vae.decode

    def decode(latents, return_dict):
        image = real(latents, return_dict=return_dict)[0]
        if latents.dtype == torch.bfloat16:
            image[0] = float("nan")
        return (image,)

    monkeypatch.setattr(engine._pipe.vae, "decode", decode)
    return engine, changed(micro_batch=2, decode_chunk=2, dtype="bf16")


@pytest.mark.parametrize("whole", [0, 1])  # it went there wholly, and memory is refused on its way back
@pytest.mark.parametrize("times", [1, 2, 3])  # then also at once in the way back, and in what mends it
def test_memory_refused_half_way_to_another_dtype_leaves_a_vae_of_one(fp32_vae, tmp_path, monkeypatch, whole, times):
    engine, policy = fp32_vae
    expected, fitting = run(engine, tmp_path, policy)
    assert fitting.ooms == 0
    vae, calls = engine._pipe.vae, []
    first = whole * len(list(vae.parameters())) + 5
    refused = range(first, first + times)
    convert = torch.Tensor.to

    def to(tensor, *arguments, **keywords):
        if isinstance(tensor, torch.nn.Parameter) and any(tensor is one for one in vae.parameters()):
            calls.append(tensor.dtype)
            if len(calls) in refused:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return convert(tensor, *arguments, **keywords)

    monkeypatch.setattr(torch.Tensor, "to", to)
    made, fitting = run(engine, tmp_path, policy)
    assert fitting.ooms == 1 and len(calls) >= first
    assert {weight.dtype for weight in engine._pipe.vae.parameters()} == {torch.bfloat16}
    assert all(pixels is not None for pixels, _ in made)
    if engine._pipe.vae is vae:  # else it was loaded anew, and overflows no more
        assert [pixels for pixels, _ in made] == [pixels for pixels, _ in expected]


def test_one_row_without_guidance_is_not_divided(engine, tmp_path):
    rows = [prompt(place, guidance=1.0) for place in range(3)]
    whole, _ = run(engine, tmp_path, changed(micro_batch=1, decode_chunk=1), rows)
    split, _ = run(engine, tmp_path, changed(micro_batch=1, decode_chunk=1, guidance_split=True), rows)
    assert [pixels for pixels, _ in split] == [pixels for pixels, _ in whole]


def test_a_job_without_guidance_that_runs_out_of_memory_moves_its_weights(folder, tmp_path):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    rows = [prompt(place, guidance=0.0) for place in range(2)]
    policy = changed(micro_batch=2, decode_chunk=1)
    expected, _ = run(engine, tmp_path, policy, rows)

    def hook(*_):
        if engine._model._layout == ("resident", False):
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine._pipe.unet.register_forward_pre_hook(hook)
    made, fitting = run(engine, tmp_path, policy, rows)
    assert {used.guidance_split for _, used in made} == {False}
    assert {used.placement for _, used in made} == {"text_offload"}
    assert furthest(made, expected) <= 2


def test_the_engine_knows_when_memory_was_refused(engine):
    assert engine.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert engine.is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not engine.is_out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def test_memory_that_the_host_refuses_while_loading_is_no_fault_of_the_model(folder, monkeypatch):
    refused = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", mock.Mock(side_effect=refused))
    with pytest.raises(RuntimeError) as caught:
        DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert caught.value is refused


def test_the_engine_works_in_a_thread_that_a_refusal_interrupted(engine, undisturbed, refuse, tmp_path):
    refuse("unet", 0)
    found = []
    thread = threading.Thread(target=lambda: found.append(run(engine, tmp_path)[0]))
    thread.start()
    thread.join()
    assert found == [undisturbed]
