"""Compiled calls: which calls are compiled, that they compute the same, and the same bits in another process."""

import hashlib
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.levers import compiled as module
from batchgen.pipeline.levers.compiled import CompiledCalls, why_not
from tests.commands import ROOT
from tests.pipeline.levers.test_graphs import Fake
from tests.pipeline.placed import changed, furthest, images
from tests.pipeline.test_engine import prompt

# Two processes print what they made, each with an empty cache of compiled code.
_TWICE = """
import sys
from pathlib import Path
from tests.pipeline.levers.test_compiled import digest_of
print(digest_of(Path(sys.argv[1])))
"""


class Block(torch.nn.Module):
    def forward(self, sample, scale=1.0):
        return sample * scale


class Denoiser(torch.nn.Module):
    _repeated_blocks = ["Block"]

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])

    def forward(self, sample):
        for block in self.blocks:
            sample = block(sample, scale=2.0)
        return (sample,)


class Vae:
    def decode(self, latents, return_dict=False):
        return (latents + 1,)


@pytest.fixture
def counted(monkeypatch):
    """The shapes of what compiled code was called with. Nothing is compiled."""
    called = []

    def compiled(call):
        def count(*given, **named):
            called.append(tuple(given[0].shape))
            return call(*given, **named)

        return count

    monkeypatch.setattr(module, "compiled", compiled)
    return called


@pytest.mark.parametrize(("how", "calls"), [("whole", 1), ("blocks", 2)])
def test_only_shapes_that_were_warmed_up_are_compiled(counted, how, calls):
    denoiser, known = Denoiser(), set[object]()
    made = CompiledCalls(denoiser, Vae(), known)
    forward = made.forward(how, denoiser.forward, bool)
    whole, rest = torch.ones(4, 2), torch.ones(3, 2)
    assert (forward(whole)[0] == 4).all()
    assert counted == [], "nothing was warmed up yet"
    with made.warming():
        forward(whole)
    assert counted == [(4, 2)] * calls
    assert (forward(rest)[0] == 4).all()
    assert counted == [(4, 2)] * calls, "fewer rows are computed eagerly"
    forward(whole)
    assert counted == [(4, 2)] * 2 * calls
    assert "forward" not in vars(denoiser.blocks[0])
    again = CompiledCalls(denoiser, Vae(), known).forward(how, denoiser.forward, bool)  # the model was loaded again
    again(whole)
    assert counted == [(4, 2)] * 3 * calls


@pytest.mark.parametrize("how", ["whole", "graphs"])
def test_what_is_compiled_is_given_expanded_tensors_written_out(monkeypatch, how):
    strides = []

    def compiled(call):
        def noted(sample):
            strides.append(sample.stride())
            return call(sample)

        return noted

    monkeypatch.setattr(module, "compiled", compiled)
    denoiser = Denoiser()
    made = CompiledCalls(denoiser, Vae(), set(), Fake())
    with made.warming():
        assert (made.forward(how, denoiser.forward, bool)(torch.tensor(3.0).expand(4))[0] == 12).all()
    assert set(strides) == {(1,)}, "as SD3's time steps"


def test_graphs_are_recorded_where_whole_is_compiled_and_again_where_weights_have_moved(counted):
    denoiser, recorder = Denoiser(), Fake()
    denoiser.weight = torch.nn.Parameter(torch.ones(1))
    made = CompiledCalls(denoiser, Vae(), set(), recorder)
    forward = made.forward("graphs", denoiser.forward, bool)
    made.settle((64, 64))
    with made.warming():
        forward(torch.ones(4, 2))
    assert set(counted) == {(4, 2)}
    made.settle((64, 64))
    assert (forward(torch.full((4, 2), 3.0))[0] == 12).all()
    assert (forward(torch.full((3, 2), 3.0))[0] == 12).all()
    assert recorder.recorded == 1, "fewer rows are computed eagerly"
    denoiser.weight.data = torch.ones(1)
    made.settle((64, 64))
    forward(torch.ones(4, 2))
    assert recorder.recorded == 2
    made.settle((64, 128))
    forward(torch.ones(4, 2))
    assert recorder.recorded == 3, "graphs of one size only are kept"


def test_what_was_compiled_for_graphs_stays_compiled_without_them(counted):
    denoiser, recorder = Denoiser(), Fake()
    made = CompiledCalls(denoiser, Vae(), set(), recorder)
    with made.warming():
        made.forward("graphs", denoiser.forward, bool)(torch.ones(4, 2))
    counted.clear()
    made.forget_graphs()
    made.forward("whole", denoiser.forward, bool)(torch.ones(4, 2))
    assert (counted, recorder.recorded) == ([(4, 2)], 1)
    made.forward("graphs", denoiser.forward, bool)(torch.ones(4, 2))
    assert recorder.recorded == 2, "nothing is left of what was forgotten"


def test_graphs_need_a_gpu():
    assert why_not("graphs", torch.nn.Linear(1, 1), torch.device("cpu")) == "CUDA graphs need a GPU"


def test_eager_is_the_plain_call(counted):
    denoiser = Denoiser()
    made = CompiledCalls(denoiser, Vae(), set())
    assert made.forward("eager", denoiser.forward, bool) == denoiser.forward


def test_a_denoiser_whose_blocks_have_no_names_is_not_compiled_in_blocks():
    assert "no repeated blocks of Linear" in str(why_not("blocks", torch.nn.Linear(1, 1), torch.device("cpu")))
    assert why_not("eager", torch.nn.Linear(1, 1), torch.device("cpu")) is None


def test_without_a_working_compiler_the_policy_that_is_used_is_eager(folder, resident, monkeypatch):
    def broken(call):
        raise RuntimeError("no C++ compiler was found\nmore lines")

    monkeypatch.setattr(module, "compiled", broken)
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    used, why = engine.prepare(changed(compile="whole"))
    assert used == changed()
    assert str(why) == "no C++ compiler was found more lines"


def test_what_is_compiled_goes_through_the_engine(folder, resident, counted, monkeypatch):
    monkeypatch.setattr(module, "norms_by_channels", lambda model: {})
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    policy = changed(compile="whole")
    assert engine.prepare(policy) == (policy, None)
    counted.clear()
    engine.warm_up([prompt(place, steps=1) for place in range(policy.micro_batch)], policy)
    assert len(counted) == 2, "one step and a decode chunk"
    assert furthest(images(engine, compile="whole"), resident) <= 1, "upsampling by phases rounds otherwise"
    assert len(counted) > 2
    counted.clear()
    images(engine)
    assert counted == [], "an eager policy is computed eagerly"


def test_group_norms_by_their_channels_change_low_bits_at_most(folder, resident, counted):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    policy = changed(compile="whole")
    engine.prepare(policy)
    engine.warm_up([prompt(place, steps=1) for place in range(policy.micro_batch)], policy)
    assert furthest(images(engine, compile="whole"), resident) <= 1


def digest_of(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    policy = changed(compile="blocks")
    assert engine.prepare(policy) == (policy, None)
    rows = [prompt(place) for place in range(policy.micro_batch)]
    engine.warm_up(rows, policy)
    latents = engine.denoise(engine.encode(rows), rows, policy)
    decoded = engine.decode(latents[: policy.decode_chunk], policy)
    return hashlib.sha256(b"".join(one.pixels or b"" for one in decoded)).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["sd15"], indirect=True)
def test_two_processes_with_empty_caches_make_the_same_bits(folder, tmp_path):
    found = set()
    for name in ("one", "two"):
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", _TWICE, str(folder)], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.split()[-1])
    assert len(found) == 1
