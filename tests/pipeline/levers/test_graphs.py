"""What is recorded is repeated with new inputs, and what cannot be recorded is called. The recorder is not CUDA's."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.pipeline.levers.graphs import MOST_RECORDINGS, GraphedCall, Places, Recorder


class Fake(Recorder):
    """Records as a graph does: the same memory for what goes in and what comes out."""

    def __init__(self, error=None):
        super().__init__()
        self.recorded = self.forgotten = 0
        self.error = error

    def __call__(self, work):
        made = work()
        if self.error is not None:
            raise self.error
        self.recorded += 1

        def repeat():
            for kept, new in zip(made, work(), strict=True):
                kept.copy_(new)

        return repeat, made

    def forget(self):
        self.forgotten += 1


def scaled(sample, time, texts=None, return_dict=True, factor=1):
    assert return_dict is False
    return (sample * time * factor + texts["pooled"],)


def graphed(recorder, told=None):
    return GraphedCall(scaled, recorder, [].append if told is None else told.append)


def call(graphed, sample, time, pooled, **named):
    return graphed(sample, torch.tensor(time), texts={"pooled": torch.tensor(pooled)}, return_dict=False, **named)[0]


def test_a_shape_is_recorded_once_and_repeated_with_what_is_given():
    recorder = Fake()
    one = graphed(recorder)
    made = [call(one, torch.full((2, 3), value), 2.0, 1.0) for value in (1.0, 5.0)]
    assert [each[0, 0].item() for each in made] == [3.0, 11.0], "what came out first is not overwritten"
    assert call(one, torch.ones(2, 3), 3.0, 0.5)[1, 2].item() == 3.5
    assert recorder.recorded == 1
    assert call(one, torch.ones(4, 3), 3.0, 0.5).shape == (4, 3)
    assert recorder.recorded == 2


def test_what_is_given_is_never_written_to():
    one, sample = graphed(Fake()), torch.ones(2, 3)
    call(one, sample, 2.0, 1.0)
    call(one, torch.zeros(2, 3), 2.0, 1.0)
    assert (sample == 1).all()


def test_what_is_forgotten_is_recorded_again():
    recorder = Fake()
    one = graphed(recorder)
    call(one, torch.ones(2, 3), 2.0, 1.0)
    one.forget()
    assert call(one, torch.ones(2, 3), 2.0, 1.0)[0, 0].item() == 3.0
    assert recorder.recorded == 2


@pytest.mark.parametrize(
    ("first", "second"), [(1, 1.0), (1, True), (0.0, -0.0), (1.0, 2.0)], ids=["int", "bool", "zeros", "values"]
)
def test_other_numbers_are_other_recordings(first, second):
    recorder = Fake()
    one = graphed(recorder)
    for factor in (first, second, first, second):
        call(one, torch.ones(2, 3), 2.0, 1.0, factor=factor)
    assert recorder.recorded == 2


def test_another_memory_format_is_another_recording_and_the_stride_of_a_single_row_is_none():
    recorder, maps = Fake(), torch.ones(2, 3, 4, 4)
    one = graphed(recorder)
    call(one, maps, 2.0, 1.0)
    call(one, maps.to(memory_format=torch.channels_last), 2.0, 1.0)
    call(one, maps.double(), 2.0, 1.0)
    assert recorder.recorded == 3
    call(one, torch.ones(1, 3), 2.0, 1.0)
    call(one, torch.ones(4, 3)[::2][:1], 2.0, 1.0)
    assert recorder.recorded == 4


def test_a_number_that_is_another_at_each_step_ends_the_recording_and_not_the_run():
    recorder = Fake()
    one = graphed(recorder)
    made = [call(one, torch.ones(2, 3), 1.0, 0.0, factor=step)[0, 0].item() for step in range(2 * MOST_RECORDINGS)]
    assert made == list(range(2 * MOST_RECORDINGS))
    assert recorder.recorded == MOST_RECORDINGS


def test_what_holds_other_things_than_tensors_and_numbers_is_called_as_it_is():
    class Factor:
        def __init__(self):
            self.value = 1.0

        def __rmul__(self, maps):
            return maps * self.value

    recorder, factor = Fake(), Factor()
    one = graphed(recorder)
    assert call(one, torch.ones(2, 3), 1.0, 0.0, factor=factor)[0, 0].item() == 1.0
    factor.value = 5.0
    assert call(one, torch.ones(2, 3), 1.0, 0.0, factor=factor)[0, 0].item() == 5.0
    assert recorder.recorded == 0


def test_a_recording_that_fails_leaves_the_call_and_is_told_once():
    told: list[str] = []
    one = graphed(Fake(RuntimeError("operation not permitted when stream is capturing\nmore lines")), told)
    for rows in (2, 4, 2):
        assert call(one, torch.ones(rows, 3), 2.0, 1.0)[0, 0].item() == 3.0
    assert told == ["operation not permitted when stream is capturing more lines"]
    assert one._recorded == {}


def test_an_error_of_memory_passes_also_where_ending_the_recording_failed_after_it():
    def refuse(work):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    told: list[str] = []
    one = graphed(refuse, told)
    with pytest.raises(torch.OutOfMemoryError):
        call(one, torch.ones(2, 3), 2.0, 1.0)
    assert (told, one._recorded) == ([], {})


def test_weights_and_buffers_that_move_are_noticed():
    linear, norm = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
    model = torch.nn.Sequential(linear, norm)
    places = Places(model)
    before = places.now()
    assert len(before) == 7
    with torch.no_grad():
        linear.weight.add_(1)
    assert places.now() == before, "as when a LoRA is merged"
    linear.weight.data = linear.weight.data.clone()
    assert places.now() != before
    before = places.now()
    norm.register_buffer("running_mean", torch.ones(2))
    assert places.now() != before


class Cuda:
    """What the recorder uses of torch.cuda. `broken`: recordings cannot be ended."""

    def __init__(self, broken=False):
        self.current, self.broken = "main", broken
        self.pools, self.streams, self.captured, self.left = 0, 0, [], []

    def Stream(self):  # noqa: N802
        self.streams += 1
        return Stream(f"side {self.streams}")

    def current_stream(self):
        return Stream(self.current)

    def set_stream(self, stream):
        self.current = stream.name

    def stream(self, stream):
        return Entered(self, stream)

    def graph_pool_handle(self):
        self.pools += 1
        return (0, self.pools)

    def current_device(self):
        return 0

    def CUDAGraph(self):  # noqa: N802
        return Graph()

    def graph(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.captured.append((pool, stream.name))
        return Entered(self, stream, self.broken)


class Stream:
    def __init__(self, name):
        self.name = name

    def wait_stream(self, other):
        pass


class Entered:
    def __init__(self, cuda, stream, broken=False):
        self.cuda, self.stream, self.broken = cuda, stream, broken

    def __enter__(self):
        self.before, self.cuda.current = self.cuda.current, self.stream.name

    def __exit__(self, *_):
        if self.broken:
            raise RuntimeError("capture was invalidated")
        self.cuda.current = self.before


class Graph:
    def replay(self):
        pass


@pytest.fixture
def cuda(monkeypatch):
    fake = Cuda()
    monkeypatch.setattr(torch, "cuda", fake)
    for name in ("end", "release"):
        method = {"end": "_cuda_endAllocateToPool", "release": "_cuda_releasePool"}[name]
        monkeypatch.setattr(torch._C, method, lambda _, pool, name=name: fake.left.append((name, pool)), raising=False)
    return fake


def test_all_recordings_are_made_on_one_stream_and_work_in_one_pool(cuda):
    record, ran = Recorder(), []
    for _ in range(3):
        record(lambda: ran.append(cuda.current))
    assert ran == ["side 1"] * 6, "each once before it is recorded"
    assert cuda.captured == [((0, 1), "side 1")] * 3
    record.forget()
    record(lambda: None)
    assert cuda.captured[-1] == ((0, 2), "side 1"), "a pool without recordings is not used again"
    assert (cuda.current, cuda.left) == ("main", [])


def test_a_recording_that_cannot_be_ended_leaves_nothing_behind(cuda):
    record = Recorder()
    cuda.broken = True
    with pytest.raises(RuntimeError, match="invalidated"):
        record(lambda: None)
    assert cuda.current == "main"
    assert cuda.left == [("end", (0, 1)), ("release", (0, 1))]
    cuda.broken = False
    record(lambda: None)
    assert cuda.captured[-1] == ((0, 2), "side 1")
