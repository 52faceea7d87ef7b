"""What is known beforehand of a run: by its own paces, by the memory's figures, or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.evening import kept
from batchgen.evening.outlook import Model, Outlook
from batchgen.evening.pace import Pace, Paces
from batchgen.evening.work import Job
from batchgen.machine.gpus import Gpu
from batchgen.memory.costs import Task, batch_s
from batchgen.memory.frozen import task_of
from batchgen.memory.measure import Known
from batchgen.models.find import ModelFiles
from batchgen.places import models_dir
from tests.builders import make_config
from tests.memory.cards import sd15_512

MODEL = Model(ModelFiles(models_dir() / "tiny"), "fingerprint")
JOB = Job(512, 512, 20, True, 32)
CARD = Gpu("0", "Card 6", 60 << 30, (8, 6))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))


def outlook(tmp_path: Path, gpus: list[Gpu], workers: int = 1) -> Outlook:
    sizes: dict[str, Any] = {"job__width": 512, "job__height": 512, "job__batch_size": 32, "job__steps": 20}
    return Outlook(make_config(tmp_path, launch__workers=workers, **sizes), MODEL, gpus)


def test_nothing_is_known_before_the_first_run(tmp_path: Path) -> None:
    assert outlook(tmp_path, []).takes([[JOB]]) is None
    nothing = outlook(tmp_path, []).takes([])
    assert nothing is not None and nothing.seconds == 0


def test_what_runs_showed_foretells_time_on_the_cpu(tmp_path: Path) -> None:
    here = outlook(tmp_path, [])
    kept.keep(here.key, Paces({"512x512 resident": Pace(((16.0, 0.5),), 0.1)}, 5.0, 0.0, 1.0))
    found = outlook(tmp_path, []).takes([[JOB], [JOB]])
    assert found is not None
    assert found.work_s == pytest.approx(2 * (4 * 20 * 0.5 + 32 * 0.1))
    assert found.seconds == pytest.approx(5.0 + found.work_s + 1.0)
    unknown = replace(JOB, width=64, height=64)
    assert outlook(tmp_path, []).takes([[JOB], [unknown]]) is None, "one size is not known and none is near"


def test_the_figures_of_the_policy_choice_foretell_time_on_a_gpu(tmp_path: Path) -> None:
    here = outlook(tmp_path, [CARD])
    config = make_config(tmp_path, job__width=512, job__height=512, job__batch_size=32, job__steps=20)
    figures = sd15_512()
    Known(config, "fingerprint", "Card 6", "fp16").save(task_of(config, 512, 512), "resident", figures)
    assert here.takes([[JOB]]) is None, "how long it takes to start is not known"
    kept.keep(here.key, Paces({}, 20.0, 0.0, 1.0))
    found = outlook(tmp_path, [CARD]).takes([[JOB]] * 10)
    policy = here.policy(512, 512)
    assert found is not None and policy is not None
    assert found.work_s == pytest.approx(10 * batch_s(figures, policy, Task(512, 512, 32, 20, True)), rel=0.03)
    kept.keep(here.key, Paces({f"512x512 {policy.placement}": Pace(((64.0, 0.2),), 0.1)}))
    shown = outlook(tmp_path, [CARD]).takes([[JOB]] * 10)
    assert shown is not None and shown.work_s > found.work_s, "what runs showed comes first"


def test_a_card_that_is_not_known_or_too_full_is_not_foretold(tmp_path: Path) -> None:
    assert outlook(tmp_path, [Gpu("0")]).policy(512, 512) is None
    assert outlook(tmp_path, [replace(CARD, free_bytes=1 << 20)]).policy(512, 512) is None
