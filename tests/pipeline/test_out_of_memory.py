"""Out-of-memory errors injected into a real pipeline: no image lost, none changed, nothing left behind."""

import gc
import threading
import weakref

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from batchgen.events import EventLog
from batchgen.fitting import Fitting
from batchgen.pipeline.engine import DiffusersEngine
from tests.builders import OnePolicy
from tests.pipeline.small_models import KINDS, save
from tests.pipeline.test_engine import prompt
from tests.pipeline.test_placement import changed

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
    return DiffusersEngine(folder, "model", "fp32")


@pytest.fixture(scope="module")
def undisturbed(engine, tmp_path_factory):
    return run(engine, tmp_path_factory.mktemp("undisturbed"))[0]


def run(engine, tmp_path, policy=POLICY):
    """[(pixels, policy)] of PROMPTS, and the fitting that made them."""
    engine._texts.clear()
    fitting = Fitting(engine, OnePolicy(policy), EventLog(tmp_path / "events.jsonl"))
    fitting.begin(SIZE)
    texts = fitting.encode(SIZE, PROMPTS)
    latents = fitting.denoise(SIZE, texts, PROMPTS)
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
    engine = DiffusersEngine(folder, "model", "fp32")
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
    engine = DiffusersEngine(folder, "model", "bf16")
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


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_say_that_memory_was_refused(engine, error, counts):
    assert engine.is_out_of_memory(error) == counts


def test_the_engine_works_in_a_thread_that_a_refusal_interrupted(engine, undisturbed, refuse, tmp_path):
    refuse("unet", 0)
    found = []
    thread = threading.Thread(target=lambda: found.append(run(engine, tmp_path)[0]))
    thread.start()
    thread.join()
    assert found == [undisturbed]
