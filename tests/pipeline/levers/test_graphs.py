"""What is recorded is repeated with new inputs. The recorder is the CPU's; of CUDA's, tests/bench/passes.py tells."""

import torch

from batchgen.pipeline.levers.graphs import GraphedCall


class Recorder:
    """Records as a graph does: the same memory for what goes in and what comes out."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, work):
        self.recorded += 1
        made = work()

        def repeat():
            for kept, new in zip(made, work(), strict=True):
                kept.copy_(new)

        return repeat, made


def scaled(sample, time, texts=None, return_dict=True):
    assert return_dict is False
    return (sample * time + texts["pooled"],)


def call(graphed, sample, time, pooled):
    return graphed(sample, torch.tensor(time), texts={"pooled": torch.tensor(pooled)}, return_dict=False)[0]


def test_a_shape_is_recorded_once_and_repeated_with_what_is_given():
    recorder = Recorder()
    graphed = GraphedCall(scaled, recorder)
    made = [call(graphed, torch.full((2, 3), value), 2.0, 1.0) for value in (1.0, 5.0)]
    assert [one[0, 0].item() for one in made] == [3.0, 11.0], "what came out first is not overwritten"
    assert call(graphed, torch.ones(2, 3), 3.0, 0.5)[1, 2].item() == 3.5
    assert recorder.recorded == 1
    assert call(graphed, torch.ones(4, 3), 3.0, 0.5).shape == (4, 3)
    assert recorder.recorded == 2


def test_what_is_given_is_never_written_to():
    graphed, sample = GraphedCall(scaled, Recorder()), torch.ones(2, 3)
    call(graphed, sample, 2.0, 1.0)
    call(graphed, torch.zeros(2, 3), 2.0, 1.0)
    assert (sample == 1).all()


def test_what_is_forgotten_is_recorded_again():
    recorder = Recorder()
    graphed = GraphedCall(scaled, recorder)
    call(graphed, torch.ones(2, 3), 2.0, 1.0)
    graphed.forget()
    assert call(graphed, torch.ones(2, 3), 2.0, 1.0)[0, 0].item() == 3.0
    assert recorder.recorded == 2
