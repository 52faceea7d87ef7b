"""A worker probes once, chooses and freezes the policy of each size. On a simulated device."""

import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BrokenRunError, MemoryNeededError, StoppedError
from batchgen.events import EventLog
from batchgen.machine.host import Room, as_told
from batchgen.memory.frozen import Policies, foresee, freeze, read_policy, task_of
from batchgen.memory.host_bytes import CUDA_PROCESS_BYTES
from batchgen.plan.store import Plan
from batchgen.shards.leases import Lease, Watch
from tests.builders import POLICY, make_config, plan_run
from tests.commands import front, write_prompts
from tests.memory.cards import GIB
from tests.memory.runs import PROMPTS, Engine, another, events, own_files, policies

pytestmark = pytest.mark.usefixtures("surroundings")


def test_the_first_worker_probes_and_says_why_it_chose(plan: Plan) -> None:
    policy = policies(plan, Engine(3 * GIB)).of(512, 512)
    assert (policy.placement, policy.tile_px) == ("resident", 0)
    kinds = [event["event"] for event in events(plan)]
    assert kinds == ["probed", "chosen", "policy"]
    chosen = events(plan)[1]
    assert "micro-batch" in chosen["reason"]
    assert len(chosen["rejected"]) == 4


def test_a_frozen_policy_holds_whatever_memory_is_there(plan: Plan) -> None:
    small = policies(plan, Engine(2.6 * GIB)).of(512, 512)
    assert policies(plan, Engine(80 * GIB)).of(512, 512) == small


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


def test_a_card_without_memory_for_graphs_has_the_rest_of_the_frozen_policy(tmp_path: Path) -> None:
    plan = another(tmp_path, "graphs", speed__compile="graphs")
    roomy = policies(plan, Engine(80 * GIB))
    frozen = roomy.of(512, 512)
    assert frozen.compile == "graphs"
    needed, least = (roomy.predicted_bytes(one, 512, 512) or 0 for one in (frozen, frozen.without_graphs))
    assert policies(plan, Engine(needed, "GPU-2")).of(512, 512) == frozen
    assert policies(plan, Engine((least + needed) / 2, "GPU-3")).of(512, 512) == frozen.without_graphs


def test_where_graphs_fit_in_no_way_the_policy_is_whole(tmp_path: Path) -> None:
    plan = another(tmp_path, "graphs", speed__compile="graphs")
    policy = policies(plan, Engine(2 * GIB)).of(512, 512)
    assert (policy.compile, policy.placement) == ("whole", "model_offload")
    assert [event["reason"] for event in events(plan) if event["event"] == "levers"] == [
        "there is no memory for CUDA graphs"
    ]


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


def on_host(monkeypatch: pytest.MonkeyPatch, held_bytes: int) -> None:
    """Workers are told that their host has so much for each."""
    for name, value in as_told(Room(held_bytes, held_bytes)).items():
        monkeypatch.setenv(name, value)


def test_a_placement_that_is_fixed_with_all_else_is_refused_where_the_host_cannot_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"micro_batch": 2, "decode_chunk": 1, "tile_px": 0, "placement": "model_offload", "guidance_split": False}
    plan = plan_run(tmp_path, PROMPTS, **{f"memory__policy__{name}": value for name, value in fixed.items()})
    on_host(monkeypatch, CUDA_PROCESS_BYTES)
    with pytest.raises(MemoryNeededError, match=r"memory\.policy\.placement=model_offload takes at least 2\.99 GiB"):
        policies(plan, Engine(6 * GIB)).of(64, 64)
    on_host(monkeypatch, 3 * GIB)
    assert policies(plan, Engine(6 * GIB)).of(64, 64).placement == "model_offload"


def test_on_a_small_host_weights_stay_on_the_device_or_the_job_is_refused_without_a_probe(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(monkeypatch, CUDA_PROCESS_BYTES)
    roomy = policies(plan, Engine(6 * GIB))
    assert roomy.of(512, 512).placement == "resident"
    assert set(roomy.placements(512, 512)) == {"resident"}, "for steps down"
    other, full = another(tmp_path, "other"), Engine(1.9 * GIB)
    with pytest.raises(MemoryNeededError, match="of the host's memory") as refused:
        policies(other, full).of(512, 512)
    assert full.encodings == 0 and len(str(refused.value).splitlines()) == 1


def test_a_host_that_cannot_hold_the_frozen_policy_has_its_own(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = policies(plan, Engine(2.2 * GIB)).of(512, 512)
    path = next(plan.run.policies.glob("*512x512.json"))
    path.write_text(json.dumps(asdict(replace(frozen, placement="weight_streaming"))))
    on_host(monkeypatch, CUDA_PROCESS_BYTES)
    assert policies(plan, Engine(24 * GIB)).of(512, 512).placement == "resident"
    assert own_files(plan) == ["card-6-512x512.gpu-1.json"]


def test_a_card_that_is_too_small_is_the_users_to_know(plan: Plan) -> None:
    with pytest.raises(MemoryNeededError, match="not even one image at a time"):
        policies(plan, Engine(0.15 * GIB)).of(512, 512)


def test_an_estimate_foresees_and_does_not_refuse_what_may_fit(tmp_path: Path) -> None:
    from batchgen.models.find import ModelFiles
    from batchgen.places import models_dir

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


def test_the_policy_that_was_frozen_first_holds(tmp_path: Path) -> None:
    path = tmp_path / "cpu-64x64.json"
    later = replace(POLICY, micro_batch=9)
    assert freeze(path, lambda: POLICY) == POLICY
    assert freeze(path, lambda: later) == POLICY


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"micro_batch": 1, "unknown": 2}'])
def test_a_damaged_frozen_policy_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cpu-64x64.json"
    path.write_text(content)
    with pytest.raises(BrokenRunError, match=r"cpu-64x64\.json does not hold a policy"):
        freeze(path, lambda: POLICY)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("field", "value"),
    [("micro_batch", 0), ("micro_batch", "8"), ("decode_chunk", None), ("tile_px", -8), ("threads", True),
     ("placement", "somewhere")],
)  # fmt: skip
def test_a_frozen_policy_that_no_row_could_be_made_by_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "cpu-64x64.json"
    path.write_text(json.dumps(asdict(POLICY) | {field: value}))
    with pytest.raises(BrokenRunError, match=f"does not hold a policy.*{field} is"):
        read_policy(path)
