"""What a worker does about memory: probe once, choose, freeze; and use again what is known. On a simulated device."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import MemoryNeededError, StoppedError
from batchgen.events import EventLog, read_events
from batchgen.memory import measure, probe
from batchgen.memory import policies as policies_module
from batchgen.memory.policies import Policies, foresee, task_of
from batchgen.plan.store import Plan
from batchgen.prepare import prepare
from batchgen.shards.leases import Lease, Watch
from tests.builders import make_config, plan_run, write_rows
from tests.commands import front, write_prompts
from tests.memory.cards import GIB, sd15_512
from tests.memory.test_probe import GUESS, Device
from tests.memory.test_probe import Watch as SimulatedWatch

# Ten images of each, of many steps: a job that is worth a probe.
PROMPTS = [f"a red fox, take {place}" for place in range(40)]
JOB: dict[str, Any] = {
    "job__width": 512, "job__height": 512, "job__batch_size": 32, "job__steps": 50, "job__images_per_prompt": 10,
}  # fmt: skip


class Engine(Device):
    """The simulated device as an engine."""

    device_kind, dtype, scheduler_name = "Card 6", "fp16", "none"
    encodings = 0
    card = "GPU-1"
    # What the estimate takes the card for
    multiplied_per_s: float | None = None

    def __init__(self, size_bytes: float, card: str = "GPU-1", whole_bytes: float = 0.0) -> None:
        super().__init__(size_bytes)
        self.card, self._whole_bytes = card, whole_bytes
        self.beat = lambda: None

    def whole_bytes(self) -> int:
        return int(self._whole_bytes or self.size_bytes)

    def flop_per_s(self, dtype: str) -> float | None:
        return self.multiplied_per_s

    @property
    def gauge(self) -> Any:
        return self

    def encode(self, prompts: Any) -> str:
        self.encodings += 1
        return super().encode(list(prompts))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Stopwatch", SimulatedWatch)
    for module in (measure, policies_module):
        monkeypatch.setattr(module, "guess", lambda *_: GUESS)
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_run(tmp_path, PROMPTS, **JOB)


def another(tmp_path: Path, name: str, prompts: Any = PROMPTS, **job: Any) -> Plan:
    """Another run, of the same model."""
    (tmp_path / name).mkdir()
    return plan_run(tmp_path / name, prompts, **JOB | job)


def policies(plan: Plan, engine: Any, worker: str = "test", stop: threading.Event | None = None) -> Policies:
    return Policies(plan, engine, EventLog(plan.run.worker_log(worker)), worker, Watch(60), stop or threading.Event())


def events(plan: Plan, worker: str = "test") -> list[dict[str, Any]]:
    return list(read_events(plan.run.worker_log(worker)))


def own_files(plan: Plan) -> list[str]:
    """The files in policies/ of single cards."""
    return sorted(path.name for path in plan.run.policies.glob("*gpu*"))


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
    other = another(tmp_path, "other")
    policies(other, second).of(512, 512)
    assert (first.encodings, second.encodings) == (1, 0)
    assert [event["event"] for event in events(other)] == ["chosen", "policy"]


def test_with_much_more_memory_it_is_measured_again(plan: Plan, tmp_path: Path) -> None:
    policies(plan, Engine(2.4 * GIB)).of(512, 512)
    other = another(tmp_path, "other")
    large = Engine(24 * GIB)
    policies(other, large).of(512, 512)
    assert large.encodings == 1
    third = another(tmp_path, "third")
    larger = Engine(80 * GIB)
    policies(third, larger).of(512, 512)
    assert larger.encodings == 0, "on that card more at once had ceased to gain"


def test_a_frozen_policy_holds_whatever_memory_is_there(plan: Plan) -> None:
    small = policies(plan, Engine(2.6 * GIB)).of(512, 512)
    assert policies(plan, Engine(80 * GIB)).of(512, 512) == small


def fast(size_bytes: float) -> Engine:
    """A card that has hardly anything to do with few rows."""
    engine = Engine(size_bytes)
    engine.pass_s = dict(sd15_512(teraflops=390).pass_s)
    return engine


def test_a_trial_never_limits_the_job_after_it(plan: Plan, tmp_path: Path) -> None:
    trial = another(tmp_path, "trial", PROMPTS[:1], job__images_per_prompt=1)
    small = fast(6 * GIB)
    policies(trial, small).of(512, 512)
    assert small.encodings == 0, "a probe takes longer than this job"
    after = policies(plan, fast(6 * GIB)).of(512, 512)
    (tmp_path / "cache").rename(tmp_path / "cache of before")
    without = policies(another(tmp_path, "without"), fast(6 * GIB)).of(512, 512)
    assert after == without
    assert after.micro_batch >= 4


def test_a_probe_for_small_batches_is_not_taken_for_one_for_large_ones(plan: Plan, tmp_path: Path) -> None:
    policies(another(tmp_path, "by one", job__batch_size=1), fast(6 * GIB)).of(512, 512)
    second = fast(6 * GIB)
    after = policies(plan, second).of(512, 512)
    assert second.encodings == 1
    assert after.micro_batch > 1
    third = fast(6 * GIB)
    policies(another(tmp_path, "third", job__batch_size=4), third).of(512, 512)
    assert third.encodings == 0, "what was measured for more serves less"


def test_a_run_that_grew_from_a_trial_is_measured(tmp_path: Path) -> None:
    trial = plan_run(tmp_path, PROMPTS[:1], **JOB)
    policies(trial, Engine(6 * GIB)).of(512, 512)
    same = Engine(6 * GIB)
    policies(trial, same).of(512, 512)
    assert same.encodings == 0
    more = write_rows(tmp_path / "more.jsonl", PROMPTS[1:])
    config = make_config(tmp_path, PROMPTS[:1], **JOB, extend=True)
    config.job.prompts = [config.job.prompts, str(more)]
    grown = prepare(trial.run, config)
    large = Engine(6 * GIB)
    policy = policies(grown, large).of(512, 512)
    assert large.encodings == 1
    assert policy == policies(another(tmp_path, "other"), Engine(6 * GIB)).of(512, 512)
    again = Engine(6 * GIB)
    assert policies(grown, again).of(512, 512) == policy
    assert again.encodings == 0


def test_many_sizes_of_few_images_take_few_probes(tmp_path: Path) -> None:
    sizes = [(512 + 8 * place, 512) for place in range(12)]
    rows = [
        {"prompt": f"a red fox, take {copy}", "width": width, "height": height}
        for width, height in sizes
        for copy in range(60)
    ]
    plan = another(tmp_path, "sizes", rows, job__images_per_prompt=1)
    engine = Engine(6 * GIB)
    own = policies(plan, engine)
    chosen = [own.of(*size) for size in sizes]
    assert engine.encodings == 1
    assert {policy.placement for policy in chosen} == {"resident"}
    kinds = [event["event"] for event in events(plan)]
    assert (kinds.count("probed"), kinds.count("not_probed")) == (1, len(sizes) - 1)


def test_one_large_image_among_small_ones_is_not_worth_a_probe(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "width": width, "height": width} for prompt in PROMPTS for width in [64] * 5]
    rows.insert(0, {"prompt": "a red fox", "width": 2048, "height": 2048})
    plan, engine = another(tmp_path, "sizes", rows, job__images_per_prompt=1), Engine(40 * GIB)
    policies(plan, engine).of(2048, 2048)
    assert engine.encodings == 0


def test_a_size_with_images_enough_is_measured_beside_others(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "width": width, "height": 512} for prompt in PROMPTS for width in (512, 640)]
    plan, engine = another(tmp_path, "sizes", rows), Engine(6 * GIB)
    own = policies(plan, engine)
    own.of(512, 512)
    own.of(640, 512)
    assert engine.encodings == 2


def test_what_a_size_was_stepped_down_to_is_there_after_a_restart_and_on_that_card_alone(plan: Plan) -> None:
    first = policies(plan, Engine(6 * GIB))
    frozen = first.of(512, 512)
    smaller = replace(frozen, micro_batch=1)
    first.step_down(512, 512, smaller)
    assert policies(plan, Engine(6 * GIB)).of(512, 512) == smaller
    assert policies(plan, Engine(6 * GIB, "GPU-2")).of(512, 512) == frozen
    assert own_files(plan) == ["card-6-512x512.gpu-1.json"]


def test_a_card_that_cannot_hold_the_frozen_policy_has_its_own_by_the_same_figures(plan: Plan) -> None:
    frozen = policies(plan, Engine(80 * GIB)).of(512, 512)
    full = Engine(1.9 * GIB, "GPU-2")
    own = policies(plan, full, "full").of(512, 512)
    assert own != frozen
    assert full.encodings == 0
    assert own_files(plan) == ["card-6-512x512.gpu-2.json"]
    assert policies(plan, Engine(1.9 * GIB, "GPU-2")).of(512, 512) == own
    assert policies(plan, Engine(80 * GIB, "GPU-3")).of(512, 512) == frozen


def test_the_fullest_card_does_not_choose_for_all(plan: Plan, tmp_path: Path) -> None:
    full = policies(plan, Engine(1.9 * GIB, "GPU-2", whole_bytes=24 * GIB)).of(512, 512)
    roomy = policies(plan, Engine(24 * GIB, "GPU-1")).of(512, 512)
    assert (full.placement, roomy.placement) == ("weight_streaming", "resident")
    assert own_files(plan) == ["card-6-512x512.gpu-2.json"]


def test_one_worker_measures_while_the_others_wait_for_what_it_finds(plan: Plan) -> None:
    engines = [Engine(6 * GIB, f"GPU-{place}") for place in range(4)]
    probing = threading.Semaphore(1)
    together = []

    def slowly(engine: Engine) -> None:
        encode = engine.encode

        def alone(prompts: Any) -> str:
            together.append(probing.acquire(blocking=False))
            assert plan.run.probe_lease("Card 6").exists()
            time.sleep(0.2)
            probing.release()
            return encode(prompts)

        engine.encode = alone  # type: ignore[method-assign]

    found: list[Any] = []

    def work(place: int) -> None:
        found.append(policies(plan, engines[place], f"worker {place}").of(512, 512))

    for engine in engines:
        slowly(engine)
    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [True], "one probe in all"
    assert len(found) == 4
    assert len(set(found)) == 1
    assert not list(plan.run.leases.iterdir())


def test_who_waits_may_be_stopped_and_takes_over_from_one_that_is_gone(plan: Plan) -> None:
    path = plan.run.probe_lease("Card 6")
    lease = Lease.take_named(path, "other", Watch(60))
    assert lease is not None
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError, match="while another worker was measuring"):
        policies(plan, Engine(6 * GIB), stop=stop).of(512, 512)
    waiting: Any = Engine(6 * GIB)
    hung = Policies(plan, waiting, EventLog(plan.run.worker_log("late")), "late", Watch(0.2), threading.Event())
    assert hung.of(512, 512).placement == "resident"
    lease.release()


def test_the_lease_lives_by_the_engines_beat_while_it_is_probed(plan: Plan) -> None:
    engine = Engine(6 * GIB)
    before, seen = engine.beat, []
    encode = engine.encode

    def look(prompts: Any) -> str:
        seen.append(engine.beat)
        return encode(prompts)

    engine.encode = look  # type: ignore[method-assign]
    policies(plan, engine).of(512, 512)
    assert isinstance(getattr(seen[0], "__self__", None), Lease)
    assert engine.beat == before


def test_a_run_without_figures_keeps_its_policy(plan: Plan) -> None:
    # As the versions before left it
    frozen = policies(plan, Engine(80 * GIB)).of(512, 512)
    plan.run.figures("Card 6", 512, 512).unlink()
    small = Engine(1.9 * GIB)
    assert policies(plan, small).of(512, 512) == frozen
    assert small.encodings == 0


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
    engine.whole_bytes = lambda: int(6 * GIB)  # type: ignore[method-assign]
    policies(plan, engine).of(512, 512)
    assert [event["event"] for event in events(plan)][:2] == ["probe_failed", "probed"]


def test_a_card_that_is_too_small_is_the_users_to_know(plan: Plan) -> None:
    with pytest.raises(MemoryNeededError, match="not even one image at a time"):
        policies(plan, Engine(0.15 * GIB)).of(512, 512)


def test_an_estimate_foresees_and_does_not_refuse_what_may_fit(tmp_path: Path) -> None:
    from batchgen.models.find import ModelFiles
    from batchgen.paths import models_dir

    config = make_config(tmp_path, PROMPTS)
    model, task = ModelFiles(models_dir() / "tiny"), task_of(config, 1024, 1024)
    _, measured = foresee(config, model, "fingerprint", task, "Card 6", "fp16", 2 * GIB)
    assert not measured
    with pytest.raises(MemoryNeededError, match=r"at least 0\.\d\d GiB .* 0\.02 GiB are free") as refused:
        foresee(config, model, "fingerprint", task, "Card 6", "fp16", 16 << 20)
    needed_gib = float(str(refused.value).split("at least ")[1].split()[0])
    choice, _ = foresee(config, model, "fingerprint", task, "Card 6", "fp16", int(needed_gib / 1.4 * GIB))
    assert f"more than the {needed_gib / 1.4:.1f} GiB free, but tried anyway" in choice.reason
    with pytest.raises(MemoryNeededError, match=f"{needed_gib / 1.6:.2f} GiB are free"):
        foresee(config, model, "fingerprint", task, "Card 6", "fp16", int(needed_gib / 1.6 * GIB))


def test_memory_caps_are_free_to_change_and_sizes_are_checked(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 4)
    assert front(tmp_path / "run", prompts, "memory.max_vram=6GiB").returncode == 0
    assert front(tmp_path / "run", prompts, "memory.max_vram=5.5GB").returncode == 0
    for wrong in ("6", "lots", "-1GiB", "6 GiBs"):
        refused = front(tmp_path / "run", prompts, f"memory.max_vram={wrong}")
        assert refused.returncode == 2
        assert "is not a size: write it as 6GiB, 6GB or 800MiB" in refused.stderr


def test_a_worker_that_is_started_again_does_not_find_out_again_what_fits(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 12)

    def ooms() -> int:
        logs = (tmp_path / "run" / "logs" / "workers").glob("*.jsonl")
        return sum('"event":"out_of_memory"' in line for path in logs for line in path.read_text().splitlines())

    assert front(tmp_path / "run", prompts, FAKE_ROWS="1").returncode == 0
    found = ooms()
    assert found == 4, "twice at each of 4 and 2 rows"
    more = write_prompts(tmp_path / "more.txt", 20)
    both = f"[{prompts},{more}]"
    assert front(tmp_path / "run", both, "extend=true", FAKE_ROWS="1").returncode == 0
    assert ooms() == found
