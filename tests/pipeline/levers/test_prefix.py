"""What both halves of a guided batch share is computed once, and only that."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.levers.compiled import CompiledCalls
from batchgen.pipeline.levers.prefix import before_text, once_for_both, swapped

SD15 = pytest.mark.parametrize("folder", ["sd15"], indirect=True)


@pytest.fixture
def unet(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    return engine._denoiser


@pytest.fixture
def given(unet):
    """What a UNet is called with: two images, for each its negative prompt and its prompt; and four different ones."""
    random = torch.Generator().manual_seed(1)
    two = torch.randn(2, unet.config.in_channels, 16, 16, generator=random)
    four = torch.randn(4, unet.config.in_channels, 16, 16, generator=random)
    texts = torch.randn(4, 77, unet.config.cross_attention_dim, generator=random)
    return torch.cat([two, two]), four, torch.tensor(500), texts


def rows_seen(modules):
    seen = []
    for module in modules:
        module.register_forward_pre_hook(
            lambda _, given, named: seen.append(len((*given, *named.values())[0])), with_kwargs=True
        )
    return seen


@SD15
@torch.inference_mode()
def test_all_before_the_text_is_computed_for_one_half_and_gives_the_same(unet, given):
    doubled, _, time, texts = given
    plain = unet(doubled, time, texts)[0]
    alike = before_text(unet)
    inner = [alike[1].conv1, unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q]
    seen = rows_seen([*inner, unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_q])
    with swapped({one: once_for_both(one.forward) for one in alike}):
        once = unet(doubled, time, texts)[0]
    assert seen == [2, 2, 4]
    torch.testing.assert_close(once, plain, rtol=1e-5, atol=1e-5)
    assert not any("forward" in vars(one) for one in alike)


@pytest.mark.parametrize("folder", ["sdxl"], indirect=True)
def test_where_the_text_enters_with_the_time_nothing_is_shared(unet):
    assert before_text(unet) == []


def test_of_other_denoisers_nothing_is_shared():
    assert before_text(torch.nn.Linear(1, 1)) == []


def test_a_forward_that_a_hook_gave_a_module_comes_back():
    plain, hooked = torch.nn.Identity(), torch.nn.Identity()
    own = vars(hooked)["forward"] = lambda rows: rows + 1
    with swapped(dict.fromkeys([plain, hooked], lambda rows: rows + 2)):
        assert (plain(1), hooked(1)) == (3, 3)
    assert (plain(1), hooked(1)) == (1, 2)
    assert hooked.forward is own and "forward" not in vars(plain)


@pytest.mark.slow
@SD15
@torch.inference_mode()
def test_compiled_rows_that_are_not_doubled_stay_different(unet, given):
    doubled, four, time, texts = given
    plain = unet(doubled, time, texts)[0], unet(four, time, texts)[0]
    calls: list[bool] = []
    made = CompiledCalls(unet, None, set())
    forward = made.forward("whole", unet.forward, lambda: calls[-1])
    for _ in range(2):  # compiled, and again from what is compiled
        for guided, rows, known in ((True, doubled, plain[0]), (False, four, plain[1])):
            calls.append(guided)
            with made.warming():
                torch.testing.assert_close(forward(rows, time, texts)[0], known, rtol=1e-4, atol=1e-4)
    assert len(made._known) == 2
