"""Weight streaming: what a module computes stays the same to the bit, and its weights wait in host memory."""

import pytest

from batchgen.memory.estimate import estimate

pytest.importorskip("torch")

import torch
from torch import nn

from batchgen.memory import streaming_costs
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.streaming import Streamer
from batchgen.policy import STREAM_BUFFERS
from tests.pipeline.small_models import KINDS, save
from tests.pipeline.test_engine import POLICY, make, prompt

CPU = torch.device("cpu")
SMALL = 2048


class Net(nn.Module):
    """Layers that run in another order than they are registered in; `last` shares its weight with `first`."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(16, 16)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(6))
        self.scale = nn.Parameter(torch.rand(1))
        self.norm = nn.BatchNorm2d(8).eval()
        self.unused = nn.Linear(3, 3)
        self.first = nn.Linear(16, 16)
        self.last.weight = self.first.weight

    def forward(self, rows):
        rows = self.first(rows)
        for conv in reversed(self.convs):
            rows = torch.relu(conv(rows))
        return self.last(self.norm(rows)) * self.scale


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


@pytest.fixture
def rows():
    return torch.rand(2, 8, 16, 16)


@pytest.mark.parametrize("group_bytes", [1, SMALL, 3000, 1 << 30], ids=str)
@torch.inference_mode()
def test_every_pass_computes_the_same(net, rows, group_bytes):
    expected = net(rows)
    streamer = Streamer(net, CPU, group_bytes)
    for _ in range(3):
        assert torch.equal(net(rows), expected)
    streamer.leave()
    for _ in range(2):
        assert torch.equal(net(rows), expected), "after the buffers were let go"


@torch.inference_mode()
def test_a_pass_that_was_cut_off_does_not_disturb_the_next(net, rows):
    expected = net(rows)
    Streamer(net, CPU, SMALL)
    net(rows)

    def fail(*_):
        raise MemoryError

    for conv in net.convs:
        handle = conv.register_forward_hook(fail)
        with pytest.raises(MemoryError):
            net(rows)
        handle.remove()
        assert torch.equal(net(rows), expected)


@pytest.mark.parametrize("buffers", [2, *STREAM_BUFFERS])
@torch.inference_mode()
def test_no_more_buffers_are_in_use_than_asked_for_and_all_weights_are_back_in_the_end(net, rows, buffers):
    expected = net(rows)
    streamer = Streamer(net, CPU, SMALL)
    assert torch.equal(net(rows), expected)
    streamer.use_buffers(buffers)
    assert torch.equal(net(rows), expected)
    turns = streamer._turns
    used = {loan.buffer.data_ptr() for loan in turns._coming} | {buffer.data_ptr() for buffer, _ in turns._free}
    assert len(used) == min(buffers, len(streamer._groups)) - 1  # and one is in use
    assert len(streamer._groups) > STREAM_BUFFERS[0]
    streamer.leave()
    assert not turns._coming and not turns._free
    for group in streamer._groups:
        lies = range(group.flat.data_ptr(), group.flat.data_ptr() + len(group.flat))
        for layer in group.layers:
            assert all(tensor.data_ptr() in lies for tensor in layer.module.parameters())


def test_the_memory_format_of_weights_stays(net, rows):
    Streamer(net, CPU, SMALL)
    with torch.inference_mode():
        net(rows)
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in net.convs)


def test_inputs_come_to_the_device_wherever_they_are(rows):
    seen = []
    net = nn.Sequential(nn.Linear(16, 16))
    Streamer(net, torch.device("meta"), SMALL)  # the one other device that is everywhere

    def look(_, args):
        seen.extend(args)
        raise KeyboardInterrupt

    net.register_forward_pre_hook(look)
    with pytest.raises(KeyboardInterrupt):
        net(rows)
    assert [one.device.type for one in seen] == ["meta"]


@pytest.mark.parametrize("kind", KINDS)
def test_planned_groups_are_those_that_are_packed(kind, tmp_path, monkeypatch):
    # Planned by the names in the files' headers, packed in the order in which the layers run
    engine = DiffusersEngine(ModelFiles(save(kind, tmp_path / kind)), "model", "fp32")
    monkeypatch.setattr(streaming_costs, "GROUP_BYTES", 1 << 14)
    planned = [size_bytes for size_bytes, _ in estimate(ModelFiles(tmp_path / kind), "fp32", 64, 64).stream_groups]
    unet, ran = engine._pipe.unet, []
    for name, layer in unet.named_modules():
        if list(layer.parameters(recurse=False)):
            layer.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    streamer = Streamer(unet, CPU, 1 << 14)
    engine.prepare(POLICY)
    make(engine, [prompt(0)], POLICY)
    once = list(dict.fromkeys(ran))
    assert [streaming_costs.turn(name) for name in once] == sorted(streaming_costs.turn(name) for name in once)
    packed = [group.size_bytes for group in streamer._groups]
    assert sum(packed) == pytest.approx(sum(planned), rel=0.1)  # each tensor begins at a multiple of 256 bytes
    assert len(packed) == pytest.approx(len(planned), rel=0.2)
