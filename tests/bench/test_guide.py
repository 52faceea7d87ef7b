"""What the guide's savings do to a pipeline, on a small model."""

import pytest

pytest.importorskip("torch")

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

from batchgen.bench import guide
from batchgen.bench.task import Task
from batchgen.pipeline.levers.traced import TracedForward

TASK = Task(64, 64, 2, 5.0, rows=2, batches=1)


@pytest.fixture
def loaded(small):
    """A loader, and the pipelines that it gave with the dtype that was asked for."""
    given = []

    def load(dtype):
        pipe = StableDiffusionPipeline.from_pretrained(small)
        pipe.set_progress_bar_config(disable=True)
        given.append((dtype, pipe))
        return pipe

    return load, given


@pytest.mark.parametrize("upto", guide.SAVINGS)
def test_each_row_has_the_savings_before_it(loaded, upto):
    load, given = loaded
    taken = guide.one_image(load, TASK, upto, rounds=1)
    assert taken.seconds > 0
    [(dtype, pipe)] = given
    place = guide.SAVINGS.index(upto)
    assert dtype == ("half" if place >= 1 else "fp32")
    assert pipe.unet.conv_out.weight.is_contiguous(memory_format=torch.channels_last) == (place >= 2)
    assert isinstance(pipe.unet.forward, TracedForward) == (place >= 3)
    plain = {type(one) for one in pipe.unet.attn_processors.values()} == {AttnProcessor}
    assert plain == (place < 4)


def test_a_batch_is_decoded_in_slices(loaded):
    load, given = loaded
    assert guide.batch(load, TASK).seconds > 0
    assert given[0][1].vae.use_slicing
