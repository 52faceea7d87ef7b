"""The policies that workers would choose, as lines of a dry run; test_forecast.py shows them for real commands."""

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.errors import MemoryNeededError
from batchgen.evening.lines import as_text
from batchgen.evening.outlook import Model
from batchgen.evening.policies import able_of, assumed, model_line, policy_lines
from batchgen.machine.gpus import ASSUMED, Gpu
from batchgen.models.find import ModelFiles
from batchgen.places import models_dir
from tests.builders import make_config

TINY = Model(ModelFiles(models_dir() / "tiny"), "fingerprint")
CARD = Gpu("0", "Card 6", 60 << 30, (8, 6))
SIZES = [(512, 512), (768, 512)]


def test_each_size_has_its_policy_in_text_and_json(tmp_path: Path) -> None:
    lines = list(policy_lines(make_config(tmp_path), TINY, [CARD], SIZES))
    assert [one["width"] for line in lines for one in line.values.get("policies", ())] == [512, 768]
    assert "policy     512x512: resident, micro-batch" in as_text(lines)
    on_cpu = list(policy_lines(make_config(tmp_path), TINY, [], SIZES))
    assert [line.values["policies"][0]["device"] for line in on_cpu] == ["cpu", "cpu"]
    not_here = as_text(policy_lines(make_config(tmp_path), None, [CARD], SIZES))
    assert "chosen once the model is there" in not_here


def test_a_gpu_that_cannot_do_it_is_named_and_one_that_is_not_known_will_be_measured(tmp_path: Path) -> None:
    full, unknown = replace(CARD, device="1", free_bytes=0), Gpu("2")
    lines = list(policy_lines(make_config(tmp_path), TINY, [CARD, full, unknown], SIZES[:1]))
    assert [line for line in lines if line.label == "cannot"][0].values["refused"].keys() == {"1"}
    assert "nvidia-smi does not say what GPU 2 is" in as_text(lines)
    with pytest.raises(MemoryNeededError):
        list(policy_lines(make_config(tmp_path), TINY, [full], SIZES[:1]))


def test_the_freest_of_the_gpus_that_can_do_it_comes_first(tmp_path: Path) -> None:
    full, old = replace(CARD, device="1", free_bytes=0), replace(CARD, device="2", capability=(7, 5))
    freest = replace(CARD, device="3", free_bytes=70 << 30)
    gpus = [full, CARD, old, freest]
    found = able_of(make_config(tmp_path, model__dtype="bf16"), TINY, gpus, SIZES)
    assert [gpu.device for gpu in found] == ["3", "0"]
    assert len(able_of(make_config(tmp_path), None, gpus, SIZES)) == 4, "not known before the model is there"
    with pytest.raises(MemoryNeededError):
        able_of(make_config(tmp_path), TINY, [full], SIZES)


def test_memory_that_is_assumed_is_that_of_the_gpus_or_of_one_that_is_made_up(tmp_path: Path) -> None:
    config = make_config(tmp_path, memory__assume_vram="8GiB")
    assert [gpu.free_bytes for gpu in assumed(config, [CARD])] == [8 << 30]
    [made_up] = assumed(config, [])
    assert (made_up.device, made_up.free_bytes) == (ASSUMED, 8 << 30)
    assert assumed(make_config(tmp_path), []) == []
    assert model_line(config, None, [made_up]).text == "tiny, fp16 on cuda, scheduler model"
