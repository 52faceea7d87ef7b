"""When a size is measured, and when what is known serves. On a simulated device."""

from pathlib import Path

import pytest

from batchgen.plan.store import Plan
from batchgen.prepare import prepare
from tests.builders import make_config, plan_run, write_rows
from tests.memory.cards import GIB, sd15_512
from tests.memory.runs import JOB, PROMPTS, Engine, another, events, policies

pytestmark = pytest.mark.usefixtures("surroundings")


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


def test_a_probe_that_does_not_fit_is_tried_with_less_in_place(plan: Plan) -> None:
    engine = Engine(6 * GIB)
    engine.free_bytes = lambda: int(6 * GIB)  # type: ignore[method-assign]
    engine.size_bytes = 1.9 * GIB  # somebody takes the rest just then
    engine.whole_bytes = lambda: int(6 * GIB)  # type: ignore[method-assign]
    policies(plan, engine).of(512, 512)
    assert [event["event"] for event in events(plan)][:2] == ["probe_failed", "probed"]
