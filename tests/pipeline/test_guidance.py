"""Guidance in two passes, one after the other."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.pipeline.guidance import in_two_passes


def test_two_passes_see_half_of_the_rows_each():
    seen = []

    def forward(sample, time, texts=None, added=None):
        seen.append((len(sample), float(time), len(texts), len(added["ids"])))
        return (sample * 2,)

    sample = torch.arange(8.0).view(4, 2)
    result = in_two_passes(forward)(sample, torch.tensor(5.0), texts=torch.zeros(4, 3), added={"ids": torch.zeros(4)})
    assert torch.equal(result[0], sample * 2)
    assert seen == [(2, 5.0, 2, 2)] * 2


def test_denoisers_that_take_lists_or_only_keywords_are_divided_too():
    def of_lists(rows, time, texts):
        return ([row + len(text) for row, text in zip(rows, texts, strict=True)],)

    rows = [torch.full((2,), float(place)) for place in range(4)]
    [made] = in_two_passes(of_lists)(rows, torch.zeros(4), ["a", "bb", "c", "dd"])
    assert [one[0].item() for one in made] == [1, 3, 3, 5]

    def of_keywords(hidden_states, texts):
        assert len(hidden_states) == len(texts) == 2
        return (hidden_states + texts,)

    doubled = in_two_passes(of_keywords)(hidden_states=torch.arange(4.0), texts=torch.arange(4.0))
    assert doubled[0].tolist() == [0, 2, 4, 6]
