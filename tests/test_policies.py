"""What a worker does about memory: probe once, choose, freeze; and use again what is known. On a simulated device."""

import os
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import MemoryNeededError
from batchgen.events import EventLog, read_events
from batchgen.memory import probe
from batchgen.memory.figures import Figures
from batchgen.plan import Plan
from batchgen.policies import Policies, foresee, task_of
from tests.builders import make_config, plan_run
from tests.commands import front, write_prompts
from tests.memory.cards import GIB
from tests.memory.test_probe import GUESS, Device, Watch

PROMPTS = [f"a red fox, take {place}" for place in range(40)]


class Engine(Device):
    """The simulated device as an engine."""

    device_kind, dtype, scheduler_name = "Card 6", "fp16", "none"
    encodings = 0

    @property
    def gauge(self) -> Any:
        return self

    def estimate(self, width: int, height: int) -> Figures:
        return GUESS

    def encode(self, prompts: Any) -> str:
        self.encodings += 1
        return super().encode(list(prompts))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Stopwatch", Watch)
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_run(tmp_path, PROMPTS, job__width=512, job__height=512, job__batch_size=32)


def policies(plan: Plan, engine: Any) -> Policies:
    return Policies(plan, engine, EventLog(plan.run.worker_log("test")))


def events(plan: Plan) -> list[dict[str, Any]]:
    return list(read_events(plan.run.worker_log("test")))


def test_the_first_worker_probes_and_says_why_it_chose(plan: Plan) -> None:
    policy = policies(plan, Engine(3 * GIB)).of(512, 512)
    assert (policy.placement, policy.tile_px) == ("resident", 0)
    kinds = [event["event"] for event in events(plan)]
    assert kinds == ["probed", "chosen", "policy"]
    chosen = events(plan)[1]
    assert "micro-batch" in chosen["reason"]
    assert len(chosen["rejected"]) == 4


def test_what_is_known_is_not_measured_again(plan: Plan, tmp_path: Path) -> None:
    first, second = Engine(6 * GIB), Engine(2.6 * GIB)
    policies(plan, first).of(512, 512)
    (tmp_path / "other").mkdir()
    other = plan_run(tmp_path / "other", PROMPTS, job__width=512, job__height=512, job__batch_size=32)
    policies(other, second).of(512, 512)
    assert (first.encodings, second.encodings) == (1, 0)
    assert [event["event"] for event in events(other)] == ["chosen", "policy"]


def test_with_much_more_memory_it_is_measured_again(plan: Plan, tmp_path: Path) -> None:
    policies(plan, Engine(2.4 * GIB)).of(512, 512)
    (tmp_path / "other").mkdir()
    other = plan_run(tmp_path / "other", PROMPTS, job__width=512, job__height=512, job__batch_size=32)
    large = Engine(24 * GIB)
    policies(other, large).of(512, 512)
    assert large.encodings == 1
    (tmp_path / "third").mkdir()
    third = plan_run(tmp_path / "third", PROMPTS, job__width=512, job__height=512, job__batch_size=32)
    larger = Engine(80 * GIB)
    policies(third, larger).of(512, 512)
    assert larger.encodings == 0, "on that card more at once had ceased to gain"


def test_a_frozen_policy_holds_whatever_memory_is_there(plan: Plan) -> None:
    large = policies(plan, Engine(80 * GIB)).of(512, 512)
    assert policies(plan, Engine(2 * GIB)).of(512, 512) == large


def test_the_prediction_is_of_the_measured_figures(plan: Plan) -> None:
    own = policies(plan, Engine(6 * GIB))
    policy = own.of(512, 512)
    predicted = own.predicted_bytes(policy, 512, 512)
    assert predicted is not None
    assert predicted == policies(plan, Engine(6 * GIB)).predicted_bytes(policy, 512, 512)
    assert predicted < 6 * GIB


def test_nothing_is_probed_where_all_is_fixed_by_hand(tmp_path: Path) -> None:
    fixed = {"micro_batch": 2, "decode_chunk": 1, "tile_px": 0, "placement": "model_offload", "guidance_split": False}
    given = {f"memory__policy__{name}": value for name, value in fixed.items()}
    plan, engine = plan_run(tmp_path, PROMPTS, **given), Engine(6 * GIB)
    policy = policies(plan, engine).of(64, 64)
    assert {name: getattr(policy, name) for name in fixed} == fixed
    assert engine.encodings == 0


def test_a_probe_that_does_not_fit_is_tried_with_less_in_place(plan: Plan) -> None:
    engine = Engine(6 * GIB)
    engine.free_bytes = lambda: int(6 * GIB)  # type: ignore[method-assign]
    engine.size_bytes = 1.9 * GIB  # somebody takes the rest just then
    policies(plan, engine).of(512, 512)
    assert [event["event"] for event in events(plan)][:2] == ["probe_failed", "probed"]


def test_a_card_that_is_too_small_is_the_users_to_know(plan: Plan) -> None:
    with pytest.raises(MemoryNeededError, match="not even one image at a time"):
        policies(plan, Engine(0.15 * GIB)).of(512, 512)


def test_an_estimate_foresees_and_does_not_refuse_what_may_fit(tmp_path: Path) -> None:
    from batchgen.paths import models_dir

    config = make_config(tmp_path, PROMPTS)
    folder, task = models_dir() / "tiny", task_of(config, 1024, 1024, 40)
    _, measured = foresee(config, folder, "fingerprint", task, "Card 6", "fp16", 2 * GIB)
    assert not measured
    with pytest.raises(MemoryNeededError, match=r"at least 0\.\d\d GiB .* 0\.02 GiB are there") as refused:
        foresee(config, folder, "fingerprint", task, "Card 6", "fp16", 16 << 20)
    needed_gib = float(str(refused.value).split("at least ")[1].split()[0])
    choice, _ = foresee(config, folder, "fingerprint", task, "Card 6", "fp16", int(needed_gib / 1.4 * GIB))
    assert f"more than the {needed_gib / 1.4:.1f} GiB free, and tried nevertheless" in choice.reason
    with pytest.raises(MemoryNeededError, match=f"{needed_gib / 1.6:.2f} GiB are there"):
        foresee(config, folder, "fingerprint", task, "Card 6", "fp16", int(needed_gib / 1.6 * GIB))


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that gives the machine a GPU with so many MiB free, as far as nvidia-smi goes."""

    def put(free_mib: int) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '0, GPU-6, Card 6, {free_mib}, 8.6'\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


def test_a_dry_run_says_what_the_gpu_would_do_and_why(tmp_path: Path, card: Any) -> None:
    card(24_000)
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    shown = front(tmp_path / "run", prompts, "dry_run=true", "job.width=512", "job.height=512")
    assert shown.returncode == 0, shown.stderr
    assert "model      tiny, fp16 on cuda" in shown.stdout
    assert "policy     512x512: resident, micro-batch" in shown.stdout
    assert "nothing is faster (estimated from the model's files; the first run measures)" in shown.stdout
    assert "weight streaming, 3 buffers, micro-batch" in shown.stdout
    capped = front(
        tmp_path / "run", prompts, "dry_run=true", "memory.max_vram=800MiB", "job.width=512", "job.height=512"
    )
    assert "0.1 GiB free" in capped.stdout


def test_a_job_that_cannot_fit_is_refused_before_a_worker_starts(tmp_path: Path, card: Any) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    for free_mib, there in ((750, "0.05"), (300, "0.00")):
        card(free_mib)
        refused = front(tmp_path / "run", prompts, "job.width=2048", "job.height=2048")
        assert refused.returncode == 2
        assert "GiB of free device memory are needed beside CUDA's context" in refused.stderr
        assert f"{there} GiB are there" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not list((tmp_path / "run").glob("logs/workers/*"))


def test_memory_caps_are_free_to_change_and_sizes_are_checked(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 4)
    assert front(tmp_path / "run", prompts, "memory.max_vram=6GiB").returncode == 0
    assert front(tmp_path / "run", prompts, "memory.max_vram=5.5GB").returncode == 0
    for wrong in ("6", "lots", "-1GiB", "6 GiBs"):
        refused = front(tmp_path / "run", prompts, f"memory.max_vram={wrong}")
        assert refused.returncode == 2
        assert "is not a size: write it as 6GiB, 6GB or 800MiB" in refused.stderr
