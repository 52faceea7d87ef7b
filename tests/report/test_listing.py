"""The list of all planned images: what became of each, and where its bytes are."""

from batchgen.files import sha256_bytes
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.report.listing import listed, members
from tests.builders import finish_run, flip, full_attempt, plan_run, truncate
from tests.commands import front, planned

PROMPTS = [f"fox {number}" for number in range(6)]  # in two shards


def read(one):
    assert one.tar is not None
    return one.tar.read_bytes()[one.offset : one.offset + one.size]


def test_each_image_is_where_the_list_says(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    found = list(listed(plan))
    assert [one.prompt for one in found] == list(plan.prompts())
    assert {one.status for one in found} == {"ok"}
    for one in found:
        assert read(one).startswith(b"\x89PNG")
        assert one.sha256 == sha256_bytes(read(one))


def test_failed_and_open_images_are_listed_with_what_is_known(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    key = plan.shard(0)[0].keys[1]
    full_attempt(plan, 0, failed={key}).commit()
    found = {one.prompt.key: one for one in listed(plan)}
    assert [one.status for one in found.values()] == ["ok", "failed", "ok", "ok", "open", "open"]
    assert "not finite" in str(found[key].reason)
    assert (found[key].tar, found[key].offset, found[key].sha256) == (None, None, None)


def test_an_image_that_was_tried_again_is_listed_once_where_it_was_tried_last(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{one}\n" for one in PROMPTS))
    run_dir = tmp_path / "run"
    assert front(run_dir, prompts, FAKE_NAN="000000000001-00").returncode == 3
    assert front(run_dir, prompts, "retry_failed=true").returncode == 0
    plan = load_plan(RunDir(run_dir))
    found = list(listed(plan))
    assert sorted(one.prompt.key for one in found) == sorted(prompt.key for prompt in plan.prompts())
    assert [(one.prompt.key, one.status) for one in found if one.shard == plan.shard_count - 1] == [
        ("000000000001-00", "ok")
    ]


def test_a_retry_that_did_not_begin_leaves_the_failure_in_the_list(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{one}\n" for one in PROMPTS))
    run_dir = tmp_path / "run"
    assert front(run_dir, prompts, FAKE_NAN="000000000001-00").returncode == 3
    before = {path.name for path in (run_dir / "shards").iterdir()}
    assert front(run_dir, prompts, "retry_failed=true", "launch.time_limit=1s", "launch.warn_s=0.9").returncode == 75
    assert {path.name for path in (run_dir / "shards").iterdir()} == before
    found = list(listed(load_plan(RunDir(run_dir))))
    assert [one.status for one in found].count("failed") == 1
    assert len(found) == len(PROMPTS)


def test_damage_is_told_and_the_rest_is_listed(tmp_path):
    plan = plan_run(tmp_path, [*PROMPTS, "fox 6", "fox 7", "fox 8"])
    finish_run(plan)
    flip(plan.run.manifest(0), 40)
    plan.run.tar(1).unlink()
    truncate(plan.run.tar(2), 1024)
    problems: list[str] = []
    found = list(listed(plan, problems))
    assert [one.status for one in found if one.shard == 0] == ["open"] * 4
    assert all(one.status == "ok" and one.tar is None and one.offset is None for one in found if one.shard == 1)
    assert [read(one)[:4] for one in found if one.shard == 2] == [b"\x89PNG"]
    assert len(problems) == 3
    assert "manifest" not in problems[1] and "tar is missing" in problems[1]
    assert not any("python -m" in one for one in problems)


def test_a_damaged_plan_is_told(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    flip(plan.run.plan.shard(0), 40)
    problems: list[str] = []
    assert [one.shard for one in listed(plan, problems)] == [1, 1]
    assert "sha256 differs" in problems[0]


def test_a_run_that_has_made_nothing_is_all_open(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{one}\n" for one in PROMPTS))
    planned(tmp_path / "run", prompts)
    assert {one.status for one in listed(load_plan(RunDir(tmp_path / "run")))} == {"open"}


def test_a_torn_tar_gives_the_files_before_the_tear(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    whole = members(plan.run.tar(0))
    torn = tmp_path / "torn.tar"
    end = whole["000000000001-00.png"]
    torn.write_bytes(plan.run.tar(0).read_bytes()[: end.offset + end.size - 1])
    assert list(members(torn)) == ["000000000000-00.json", "000000000000-00.png", "000000000000-00.txt"] + [
        "000000000001-00.json"
    ]
    torn.write_bytes(b"")
    assert members(torn) == {}
    torn.write_bytes(b"no tar " * 1000)
    assert members(torn) == {}
    assert members(tmp_path / "absent.tar") == {}
