"""The same values in less memory."""

import weakref

import pytest

pytest.importorskip("torch")

import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from batchgen.pipeline.levers.activations import shrink_activations


class Peak(TorchDispatchMode):
    """Within it, the most bytes that tensors made in it take at once."""

    def __init__(self):
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage._cdata in given | self._known:
                continue
            self._known.add(storage._cdata)
            self._bytes += storage.nbytes()
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        return made

    def _gone(self, key, size_bytes):
        self._known.discard(key)
        self._bytes -= size_bytes


def unet(dtype, attention_first):
    torch.manual_seed(0)
    kinds = ["CrossAttnDownBlock2D", "DownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"]
    down, up = kinds if attention_first else (kinds[0][::-1], kinds[1][::-1])
    return (
        UNet2DConditionModel(
            layers_per_block=1, block_out_channels=(32, 64), norm_num_groups=8, cross_attention_dim=32,
            down_block_types=down, up_block_types=up, attention_head_dim=4,
        )
        .eval()
        .to(dtype)
    )  # fmt: skip


@pytest.mark.parametrize("attention_first", [True, False], ids=["as in SD", "as in SDXL"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_values_in_less_memory(dtype, attention_first):
    model = unet(dtype, attention_first)
    rows, texts = torch.randn(2, 4, 32, 32).to(dtype), torch.randn(2, 77, 32).to(dtype)
    made, peak_bytes = [], []
    for _ in range(2):
        with torch.no_grad(), Peak() as peak:
            made.append(model(rows, 7, texts).sample)
        peak_bytes.append(peak.peak_bytes)
        shrink_activations(model)
    # A layer of half the width may add up in another order.
    torch.testing.assert_close(*made, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.02)
    assert peak_bytes[1] < 0.85 * peak_bytes[0]
