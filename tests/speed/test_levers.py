"""Levers are measured at the job's real shapes, kept, and taken where they pay. On a simulated device."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.events import EventLog
from batchgen.memory.frozen import task_of
from batchgen.places import cache_dir
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.speed import kept
from batchgen.speed import levers as module
from batchgen.speed.levers import Levers
from batchgen.speed.worth import Measured
from tests.memory.cards import GIB
from tests.memory.runs import Engine, another, events, policies
from tests.memory.test_probe import GUESS, Clock, Watch

pytestmark = pytest.mark.usefixtures("surroundings", "clock")

COMPILE_S = 40.0
SHARE = 0.7  # of the eager time
GRAPHED = 0.69


class Compiling(Engine):
    """The simulated device, with a compiler that takes a while unless the code is on the disk."""

    can_compile = can_record = True

    def __init__(self) -> None:
        super().__init__(80 * GIB)
        self.warmed: list[Policy] = []

    def prepare(self, policy: Policy) -> tuple[Policy, Any]:
        super().prepare(policy)
        if policy.compile != "eager" and not self.can_compile:
            return replace(policy, compile="eager"), "no compiler"
        if policy.compile == "graphs" and not self.can_record and policy in self.warmed:
            return replace(policy, compile="whole"), "no recording"
        return policy, None

    def denoise(self, texts: Any, prompts: list[Any], policy: Policy) -> list[int]:
        self.slowness = {"whole": SHARE, "graphs": GRAPHED}[policy.compile] if policy in self.warmed else 1.0
        return super().denoise(texts, prompts, policy)

    def warm_up(self, prompts: Any, policy: Policy) -> None:
        assert len(prompts) == policy.micro_batch
        Clock.now_s += 9.0 if kept.code_dir().is_dir() else COMPILE_S
        kept.code_dir().mkdir(parents=True, exist_ok=True)
        self.warmed.append(policy)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Stopwatch", Watch)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: Clock.now_s))


def levers(plan: Plan, engine: Any, **speed: Any) -> Levers:
    config = replace(plan.config, speed=replace(plan.config.speed, **{"compile": "auto"} | speed))
    return Levers(replace(plan, config=config), engine, EventLog(plan.run.worker_log("test")))


def chosen(plan: Plan, engine: Any, **speed: Any) -> Policy:
    policy = policies(plan, engine).of(512, 512)
    return levers(plan, engine, **speed).of(task_of(plan.config, 512, 512), policy, GUESS)


def test_a_long_job_measures_both_ways_and_takes_the_faster(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    assert chosen(plan, engine).compile == "whole"
    told = events(plan)[-1]
    assert told["compile"] == "whole"
    assert "a batch takes" in told["reason"]


@pytest.fixture
def fast_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.speed.test_levers.GRAPHED", 0.5)


def known() -> Measured:
    """What is kept: one record."""
    [path] = (cache_dir() / "levers").iterdir()
    found = kept.load(path.stem)
    assert found is not None
    return found


FULL = replace(GUESS, workspace_bytes=int(79.9 * GIB))


@pytest.mark.usefixtures("fast_graphs")
def test_graphs_are_taken_where_they_are_clearly_faster(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    assert chosen(plan, engine).compile == "graphs"
    assert events(plan)[-1]["compile"] == "graphs"
    assert known().graphed is not None
    again = Compiling()
    assert chosen(another(tmp_path, "again"), again).compile == "graphs"
    assert again.warmed == [], "they were measured"


@pytest.mark.usefixtures("fast_graphs")
def test_measured_graphs_are_not_taken_without_memory_for_them_or_where_weights_move(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    policy, task = policies(plan, engine).of(512, 512), task_of(plan.config, 512, 512)
    offloaded = replace(policy, placement="model_offload")
    given = levers(plan, engine)
    assert [given.of(task, one, GUESS).compile for one in (policy, offloaded)] == ["graphs", "whole"]
    assert given.of(task, policy, FULL).compile == "whole"
    assert [one.compile for one in engine.warmed] == ["whole", "graphs", "whole"]


@pytest.mark.usefixtures("fast_graphs")
def test_graphs_for_which_there_was_no_memory_are_measured_when_there_is(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    policy, task = policies(plan, engine).of(512, 512), task_of(plan.config, 512, 512)
    assert levers(plan, engine).of(task, policy, FULL).compile == "whole"
    assert known().graphed is None
    short = another(tmp_path, "short", job__images_per_prompt=1)
    assert chosen(short, engine).compile == "whole", "a short job does not measure"
    assert levers(plan, engine).of(task, policy, GUESS).compile == "graphs"
    assert [one.compile for one in engine.warmed] == ["whole", "graphs"], "and only what is missing"
    assert known().graphed is not None


def failing(engine: Compiling, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have graphs fail with this error."""
    warm_up = engine.warm_up

    def fail(prompts: Any, policy: Policy) -> None:
        if policy.compile == "graphs":
            raise error
        warm_up(prompts, policy)

    monkeypatch.setattr(engine, "warm_up", fail)


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), MemoryError("not permitted")])
def test_graphs_that_fail_leave_what_is_compiled_and_the_next_job_tries_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    failing(engine, error, monkeypatch)
    assert chosen(plan, engine).compile == "whole"
    assert "CUDA graphs failed: not permitted" in str(events(plan)[-2]["reason"])
    assert (engine.recovered, known().graphed) == (1, None)
    again = Compiling()
    assert chosen(another(tmp_path, "again"), again).compile == "whole"
    assert [policy.compile for policy in again.warmed] == ["graphs"]


@pytest.mark.usefixtures("fast_graphs")
def test_an_engine_that_could_not_record_is_asked(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    engine.can_record = False
    assert chosen(plan, engine).compile == "whole"
    assert "CUDA graphs failed: no recording" in str(events(plan)[-2]["reason"])
    assert known().graphed == known().compiled, "so no job tries it again"


def test_compiling_again_is_timed_for_graphs_and_whole_and_not_for_blocks(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    policy = policies(plan, engine).of(512, 512)
    assert chosen(plan, engine).compile == "whole"
    levers(plan, engine).warm_up(512, 512, replace(policy, compile="blocks"))
    assert known().again_s is None
    levers(plan, engine).warm_up(512, 512, replace(policy, compile="graphs"))
    assert round(known().again_s or 0) == 9


def test_a_short_job_stays_eager_and_tries_nothing(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "short", job__images_per_prompt=1), Compiling()
    assert chosen(plan, engine).compile == "eager"
    assert engine.warmed == []
    assert "too short" in events(plan)[-1]["reason"]


def test_what_a_long_job_measured_serves_a_shorter_one(tmp_path: Path) -> None:
    chosen(another(tmp_path, "long"), Compiling())
    plan, engine = another(tmp_path, "short", job__images_per_prompt=1), Compiling()
    assert chosen(plan, engine).compile == "whole", "the code is on the disk"
    assert engine.warmed == []
    warm = levers(plan, engine)
    policy = replace(policies(plan, engine).of(512, 512), compile="whole")
    warm.warm_up(512, 512, policy)
    warm.warm_up(512, 512, policy)
    assert engine.warmed == [policy], "once a worker"
    found = known()
    assert (round(found.compile_s), round(found.again_s or 0)) == (COMPILE_S, 9)


def test_what_compiling_does_not_make_faster_stays_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.speed.test_levers.SHARE", 0.99)
    monkeypatch.setattr("tests.speed.test_levers.GRAPHED", 0.99)
    plan, engine = another(tmp_path, "long"), Compiling()
    assert chosen(plan, engine).compile == "eager"
    assert [policy.compile for policy in engine.warmed] == ["whole", "graphs"]


def test_a_compiler_that_fails_leaves_the_job_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()

    def fail(*_: Any) -> None:
        raise RuntimeError("internal error\nof many lines")

    monkeypatch.setattr(engine, "warm_up", fail)
    assert chosen(plan, engine).compile == "eager"
    assert events(plan)[-1]["reason"] == "compiling failed: internal error of many lines"
    assert engine.recovered == 1


def test_where_nothing_can_be_compiled_the_log_says_why(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    engine.can_compile = False
    assert chosen(plan, engine).compile == "eager"
    assert events(plan)[-1]["reason"] == "it cannot be compiled: no compiler"


@pytest.mark.parametrize("by_hand", [{"compile": "eager"}, {"traced": True}, {"attention": "xformers"}])
def test_what_is_set_by_hand_is_left_alone(tmp_path: Path, by_hand: dict[str, Any]) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    assert chosen(plan, engine, **by_hand).compile == "eager"
    assert engine.warmed == []


def test_under_placements_that_move_weights_nothing_is_compiled(tmp_path: Path) -> None:
    plan, engine = another(tmp_path, "long"), Compiling()
    streamed = replace(policies(plan, engine).of(512, 512), placement="weight_streaming")
    assert levers(plan, engine).of(task_of(plan.config, 512, 512), streamed, GUESS) == streamed


def test_an_eager_policy_needs_no_warm_up(plan: Plan) -> None:
    engine = Compiling()
    levers(plan, engine).warm_up(512, 512, policies(plan, engine).of(512, 512))
    assert engine.warmed == []
