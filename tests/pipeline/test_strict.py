"""determinism=strict: torch's kernels are pinned."""

from collections.abc import Iterator

import pytest
import torch

from batchgen.pipeline.strict import pin_kernels


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("as_before")
def test_kernels_are_never_chosen_by_timing_and_are_deterministic() -> None:
    torch.backends.cudnn.benchmark = True
    pin_kernels()
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()
    with pytest.warns(UserWarning, match="does not have a deterministic implementation"):
        torch.empty(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
