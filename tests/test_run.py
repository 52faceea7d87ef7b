"""Whole runs through the command line, with the torch-free engine."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.commands import (
    FAKE,
    beside_progress,
    front,
    kill_when,
    memory_log,
    run,
    samples,
    shard_files,
    start,
    verify,
    wait_for,
    workers_that_began,
    write_prompts,
)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 50)


def test_a_run_is_whole_and_the_same_command_says_that_it_is_done(tmp_path, prompts):
    first = front(tmp_path / "run", prompts)
    assert first.returncode == 0
    assert "is done: 50 images in 7 shards" in first.stderr
    checked = verify(tmp_path / "run")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "0 batches were made twice\nwhole" in checked.stdout
    assert not list((tmp_path / "run" / "work").iterdir())
    before = shard_files(tmp_path / "run")
    again = front(tmp_path / "run", prompts)
    assert again.returncode == 0
    assert "is already done" in again.stderr
    assert shard_files(tmp_path / "run") == before


def test_rows_that_differ_in_size_never_share_a_batch_and_guidance_does(tmp_path):
    rows = [{"prompt": f"row {n}", "width": 64 + 64 * (n % 2), "guidance": 2.0 + n, "note": n} for n in range(8)]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert front(tmp_path / "run", path).returncode == 0
    assert verify(tmp_path / "run").returncode == 0
    plan = [json.loads(line) for line in (tmp_path / "run" / "plan" / "000000.jsonl").read_text().splitlines()]
    assert [(one["batch"], one["width"]) for one in plan] == [(0, 64)] * 4 + [(1, 128)] * 4
    about = json.loads(samples(tmp_path / "run")["000000000003-00.json"])
    assert (about["guidance"], about["row_json"], about["width"]) == (5.0, '{"note":3}', 128)


@pytest.mark.parametrize("overrides", [("launch.workers=3",), ("job.batch_size=7", "output.batches_per_shard=3")])
def test_samples_do_not_depend_on_workers_batches_or_shards(tmp_path, prompts, overrides):
    front(tmp_path / "one", prompts)
    assert front(tmp_path / "other", prompts, *overrides).returncode == 0
    assert verify(tmp_path / "other").returncode == 0
    assert samples(tmp_path / "other") == samples(tmp_path / "one")


def test_a_changed_recipe_is_refused_with_a_diff_and_nothing_is_lost(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    before = shard_files(tmp_path / "run")
    refused = front(tmp_path / "run", prompts, "job.seed=5", "job.steps=7")
    assert refused.returncode == 2
    assert "job.seed: 0 -> 5" in refused.stderr and "job.steps: 20 -> 7" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2
    assert "Nothing was changed: set job.seed=0 job.steps=20, or start a new run" in refused.stderr
    refused = front(tmp_path / "run", prompts, "job.scheduler=euler", 'job.negative_prompt="blurry, low: res"')
    advised = shlex.split(refused.stderr.partition("Nothing was changed: set ")[2].partition(", or start")[0])
    assert advised == ['job.negative_prompt=""', "job.scheduler=ddim"]
    again = front(tmp_path / "run", prompts, "job.scheduler=euler", *advised)
    assert again.returncode == 0, again.stderr
    first = prompts.read_text().splitlines()[0]
    prompts.write_text(prompts.read_text().replace(first, "another", 1))
    edited = front(tmp_path / "run", prompts)
    assert edited.returncode == 2 and f"edited: line 1 was '{first}' and is 'another' now" in edited.stderr
    assert shard_files(tmp_path / "run") == before


def test_24_then_all_then_more_go_on_in_one_run(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 50)
    rows = prompts.read_text().splitlines(keepends=True)
    prompts.write_text("".join(rows[:40]))
    first = front(tmp_path / "run", prompts, "job.limit=24")
    assert first.returncode == 0 and "24 images in 3 shards" in first.stderr
    before = shard_files(tmp_path / "run")
    shown = front(tmp_path / "run", prompts, "dry_run=true")
    assert shown.returncode == 0, shown.stderr
    for line in ("prompts    40", "extension  16 prompts in 4 batches and 2 shards are added to 24 in 3 shards"):
        assert line in shown.stdout
    assert "1 of 1 can be busy at once: 2 shards are left" in shown.stdout
    assert not list((tmp_path / "run").glob("plan-*"))
    everything = front(tmp_path / "run", prompts)
    assert everything.returncode == 0 and "40 images in 5 shards" in everything.stderr

    prompts.write_text("".join(rows))
    for dry in ((), ("dry_run=true",)):
        refused = front(tmp_path / "run", prompts, *dry)
        assert refused.returncode == 2
        assert "prompts.txt: rows were appended.\nNothing was changed: extend=true adds the new rows" in refused.stderr
    shown = front(tmp_path / "run", prompts, "extend=true", "dry_run=true")
    assert "10 prompts in 3 batches and 2 shards are added to 40 in 5 shards" in shown.stdout
    more = front(tmp_path / "run", prompts, "extend=true")
    assert more.returncode == 0 and "50 images in 7 shards" in more.stderr
    assert "is already done" in front(tmp_path / "run", prompts, "extend=true").stderr
    assert before.items() <= shard_files(tmp_path / "run").items()
    assert verify(tmp_path / "run").returncode == 0
    front(tmp_path / "at once", prompts)
    assert samples(tmp_path / "at once") == samples(tmp_path / "run")

    fewer = front(tmp_path / "run", prompts, "job.limit=24")
    assert fewer.returncode == 2 and "set job.limit=50 or more, or leave it out" in fewer.stderr
    assert front(tmp_path / "run", prompts, "job.limit=24", "dry_run=true").stderr == fewer.stderr


def test_a_limit_is_raised_while_another_command_is_at_work(tmp_path, prompts):
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    first = subprocess.Popen(
        [*FAKE, *arguments, "job.limit=24"], stderr=subprocess.PIPE, text=True, env=os.environ | {"FAKE_STEP_S": "0.1"}
    )
    wait_for(lambda: list((tmp_path / "run" / "shards").glob("*.tar")))
    second = front(tmp_path / "run", prompts)
    _, errors = first.communicate(timeout=60)
    assert (second.returncode, first.returncode) == (0, 0), (second.stderr, errors)
    assert "50 images in 7 shards" in second.stderr
    done = verify(tmp_path / "run")
    assert done.returncode == 0 and "0 batches were made twice" in done.stdout
    front(tmp_path / "at once", prompts)
    assert samples(tmp_path / "at once") == samples(tmp_path / "run")


def test_an_extension_that_is_killed_is_gone_on_with(tmp_path, prompts):
    front(tmp_path / "run", prompts, "job.limit=9")
    before = shard_files(tmp_path / "run")
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    code, errors = kill_when(
        0.1, lambda: (tmp_path / "run" / "shards" / "000003.tar").exists(), FAKE, *arguments, FAKE_STEP_S="0.1"
    )
    assert code == -9, errors
    assert verify(tmp_path / "run").returncode == 75
    assert front(tmp_path / "run", prompts, "launch.lease_timeout_s=0.5").returncode == 0
    assert verify(tmp_path / "run").returncode == 0
    assert before.items() <= shard_files(tmp_path / "run").items()
    front(tmp_path / "at once", prompts)
    assert samples(tmp_path / "at once") == samples(tmp_path / "run")


@pytest.mark.parametrize("name", ["work", "shards", "leases"])
def test_a_directory_that_is_removed_while_a_worker_uses_it_is_made_again(tmp_path, prompts, name):
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    process = subprocess.Popen(
        [*FAKE, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | {"FAKE_STEP_S": "0.1"}
    )
    wait_for(lambda: list((tmp_path / "run" / "shards").glob("*.tar")))
    shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors and "FileNotFoundError" not in errors
    assert "or its directory was removed while it was in use; what is finished is kept" in errors
    assert verify(tmp_path / "run").returncode == 0


def test_what_was_removed_before_a_resume_is_made_again(tmp_path, prompts):
    run_dir = tmp_path / "run"
    arguments = ["job=mars_batch", f"run_dir={run_dir}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    kill_when(0.1, lambda: (run_dir / "shards" / "000001.tar").exists(), FAKE, *arguments, FAKE_STEP_S="0.1")
    for name in ("work", "leases", "logs", "policies", "free.yaml"):
        path = run_dir / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    before = shard_files(run_dir)
    assert before and front(run_dir, prompts).returncode == 0
    assert before.items() <= shard_files(run_dir).items()
    assert verify(run_dir).returncode == 0
    shutil.rmtree(run_dir / "shards")
    again = front(run_dir, prompts)
    assert again.returncode == 0 and "50 images in 7 shards" in again.stderr
    assert before.items() <= shard_files(run_dir).items()

    shutil.move(run_dir / "plan", tmp_path / "plan")
    lost = front(run_dir, prompts)
    assert lost.returncode == 2
    assert lost.stderr.endswith(f"was a run, but {run_dir / 'plan'} is gone: put it back, or name another directory\n")


def test_where_no_row_can_be_used_the_dry_run_and_the_run_end_alike(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt":""}\n{"prompt":null}\n')
    said = [front(tmp_path / "run", tmp_path / "bad.jsonl", *more) for more in ((), ("dry_run=true",))]
    assert [one.returncode for one in said] == [2, 2]
    assert said[0].stderr == said[1].stderr and said[1].stdout == ""
    assert "none of the 2 rows can be used; the first: " in said[0].stderr
    assert "bad.jsonl:1: empty prompt; correct the rows, or name other files in job.prompts" in said[0].stderr
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_extended_by_new_files_alone(tmp_path, prompts):
    more = tmp_path / "zmore.txt"
    both = f"[{prompts},{more}]"
    front(tmp_path / "run", prompts)
    before = shard_files(tmp_path / "run")
    more.write_text("a new prompt\n" + prompts.read_text().splitlines()[0] + "\n")
    refused = front(tmp_path / "run", both)
    assert refused.returncode == 2 and "extend=true" in refused.stderr
    extended = front(tmp_path / "run", both, "extend=true")
    assert extended.returncode == 0 and "52 images in 8 shards" in extended.stderr
    assert verify(tmp_path / "run").returncode == 0
    after = shard_files(tmp_path / "run")
    assert {name: after[name] for name in before} == before
    # The same images as if both files had been there from the first.
    front(tmp_path / "at once", both)
    assert samples(tmp_path / "at once") == samples(tmp_path / "run")
    assert "is already done" in front(tmp_path / "run", both).stderr


def test_failed_images_are_listed_and_tried_again_on_request(tmp_path, prompts):
    failed = front(tmp_path / "run", prompts, FAKE_NAN="00003")
    assert failed.returncode == 3
    assert "11 images failed" in failed.stderr
    assert verify(tmp_path / "run").returncode == 3
    assert "not finite" in run([sys.executable, "-m", "batchgen.status"], tmp_path / "run").stdout
    again = front(tmp_path / "run", prompts)
    assert again.returncode == 3 and "is already done" in again.stderr
    retried = front(tmp_path / "run", prompts, "retry_failed=true")
    assert retried.returncode == 0, retried.stderr
    assert verify(tmp_path / "run").returncode == 0
    front(tmp_path / "good", prompts)
    assert samples(tmp_path / "run") == samples(tmp_path / "good")


def test_what_goes_wrong_is_told_once_while_it_happens_and_figures_are_kept(tmp_path, prompts):
    figures = tmp_path / "figures" / "run.prom"
    done = front(tmp_path / "run", prompts, f"launch.metrics={figures}", FAKE_NAN="00003")
    told = [line for line in done.stderr.splitlines() if "is left out (failed)" in line]
    assert len(told) == 1 and "not finite" in told[0] and "(said once; " in told[0], done.stderr
    kept = dict(line.rsplit(" ", 1) for line in figures.read_text().splitlines() if not line.startswith("#"))
    values = {name.partition("{")[0]: float(value) for name, value in kept.items()}
    assert values["batchgen_images_made"] == values["batchgen_images_planned"] == 50
    assert (values["batchgen_images_failed"], values["batchgen_workers_working"]) == (11, 0)


def test_an_image_that_was_tried_again_is_not_made_twice_by_a_repair(tmp_path, prompts):
    front(tmp_path / "run", prompts, FAKE_NAN="00003")
    assert front(tmp_path / "run", prompts, "retry_failed=true").returncode == 0
    whole = samples(tmp_path / "run")
    for shard in (4, 5):  # those that the images failed in
        tar = tmp_path / "run" / "shards" / f"{shard:06d}.tar"
        tar.write_bytes(tar.read_bytes()[:-700])
    assert run([sys.executable, "-m", "batchgen.repair"], tmp_path / "run").returncode in (0, 75)
    assert front(tmp_path / "run", prompts).returncode == 0  # and now they would not fail
    assert verify(tmp_path / "run").returncode == 0
    assert samples(tmp_path / "run") == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_it_with_75_and_the_same_command_goes_on(tmp_path, prompts, number):
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    code, errors = kill_when(
        0.3, lambda: [*(tmp_path / "run" / "leases").glob("0*")], FAKE, *arguments, number=number, FAKE_STEP_S="0.2"
    )
    assert code == 75, errors
    first, *between, last = errors.splitlines()
    assert first.startswith("batchgen: 1 worker loads the model; 0 of ")
    assert between[0].startswith("batchgen: finishing the units under way; ")
    assert ("press Ctrl-C again" in between[0]) == (number is signal.SIGINT)
    assert ("kill -INT" in between[0]) == (number is not signal.SIGINT)
    assert last == "batchgen: interrupted; what is finished is kept, and the same command goes on"
    assert verify(tmp_path / "run").returncode == 75
    assert front(tmp_path / "run", prompts).returncode == 0
    done = verify(tmp_path / "run")
    assert done.returncode == 0 and "0 batches were made twice" in done.stdout


def test_a_second_ctrl_c_ends_it_at_once(tmp_path, prompts):
    process = subprocess.Popen(
        [*FAKE, "job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"FAKE_STEP_S": "60"},
    )  # fmt: skip
    assert process.stderr is not None
    wait_for(lambda: list((tmp_path / "run" / "leases").glob("0*")))
    process.send_signal(signal.SIGINT)
    assert "loads the model" in process.stderr.readline()
    while not process.stderr.readline().startswith("batchgen: finishing"):  # before it, progress
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 75
    assert beside_progress(errors) == ["batchgen: stopped; the same command goes on"]


def test_a_full_or_forbidden_place_is_one_line(tmp_path, prompts):
    done = front("/proc/no/such/place", prompts)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "/proc/no" in done.stderr


def test_a_killed_worker_is_replaced_and_the_run_is_whole(tmp_path, prompts):
    import psutil

    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    process = subprocess.Popen(
        [*FAKE, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | {"FAKE_STEP_S": "0.1"}
    )
    wait_for(lambda: list((tmp_path / "run" / "shards").glob("*.tar")))
    psutil.Process(process.pid).children()[0].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "was killed by SIGKILL; started again (1 of 3)" in errors
    assert verify(tmp_path / "run").returncode == 0


def test_two_commands_on_one_run_share_the_work(tmp_path, prompts):
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.width=64",
                 "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]  # fmt: skip
    both = [subprocess.Popen([*FAKE, *arguments], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    done = verify(tmp_path / "run")
    assert done.returncode == 0 and "0 batches were made twice" in done.stdout


def test_a_sweep_makes_a_run_for_each_value_and_resumes_them(tmp_path, prompts):
    def sweep():
        return run(
            FAKE, "-m", "job=mars_batch", f"run_dir={tmp_path / 'runs' / 'mars'}", f"job.prompts={prompts}",
            "job.width=64", "job.height=64", "job.seed=1,2,3", cwd=tmp_path,
        )  # fmt: skip

    assert sweep().returncode == 0
    runs = sorted(path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert len(runs) == 3
    assert [verify(one).returncode for one in runs] == [0, 0, 0]
    seeds = {json.loads(samples(one)["000000000000-00.json"])["seed"] for one in runs}
    assert len(seeds) == 3
    assert sweep().stderr.count("is already done") == 3
    assert sorted(path for path in (tmp_path / "runs").iterdir() if path.is_dir()) == runs
    assert len(list((tmp_path / "runs").glob("mars-*+mars-*.html"))) == 1  # the same report again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt", "runs"]


def of_a_night(folder):
    """A sweep of three jobs of a user's own, the second of which has no prompts."""
    (folder / "mine" / "job").mkdir(parents=True)
    write_prompts(folder / "p.txt", 20)
    for name, prompts in (("a", "p.txt"), ("b", "missing.txt"), ("c", "p.txt")):
        text = f"# @package _global_\njob:\n  name: {name}\n  prompts: {prompts}\n  width: 64\n  height: 64\n"
        (folder / "mine" / "job" / f"{name}.yaml").write_text(text)
    return [*FAKE, "--config-dir", "mine", "-m", "job=a,b,c"]


def test_a_night_of_several_jobs_goes_on_when_one_fails_and_one_report_covers_them(tmp_path):
    done = run(of_a_night(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "mine/job/b.yaml:4: job.prompts: no prompt file missing.txt" in done.stderr
    assert "2 of 3 runs are whole; outputs/b ended with exit code 2" in done.stderr
    assert [verify(tmp_path / "outputs" / name).returncode for name in "ac"] == [0, 0]
    report = json.loads((tmp_path / "outputs" / "a+c.json").read_text())
    assert report["totals"]["ok"] == 40 and [one["name"] for one in report["run"]["jobs"]] == ["a", "c"]
    assert "look at all of them: outputs/a+c.html" in done.stderr


def test_ctrl_c_in_a_night_ends_the_night(tmp_path):
    night = start(of_a_night(tmp_path), cwd=tmp_path, FAKE_ROW_S="0.5")
    wait_for(lambda: workers_that_began(tmp_path / "outputs" / "a"))
    night.send_signal(signal.SIGINT)
    said = night.communicate(timeout=60)[1]
    assert night.returncode == 75, said
    assert not (tmp_path / "outputs" / "c").exists()
    assert "the same command goes on" in said


def test_a_users_own_job_directory_works_from_anywhere(tmp_path):
    (tmp_path / "mine" / "job").mkdir(parents=True)
    (tmp_path / "mine" / "job" / "venus.yaml").write_text(
        "# @package _global_\njob:\n  name: venus\n  prompts: p.txt\n  width: 64\n  height: 64\n"
    )
    write_prompts(tmp_path / "p.txt", 5)
    done = run(FAKE, "--config-dir", "mine", "job=venus", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "outputs" / "venus").returncode == 0


def test_a_device_without_room_for_the_policy_makes_every_image_under_a_smaller_one(tmp_path, prompts):
    short = front(tmp_path / "run", prompts, FAKE_ROWS="1")
    assert (short.returncode, verify(tmp_path / "run").returncode) == (0, 0)
    front(tmp_path / "roomy", prompts)
    made, expected = samples(tmp_path / "run"), samples(tmp_path / "roomy")
    assert made.keys() == expected.keys()
    pictures = {name for name in made if name.endswith(".png")}
    assert len(pictures) == 50 and all(made[name] == expected[name] for name in pictures)
    policies = [json.loads(data)["policy"] for name, data in made.items() if name.endswith(".json")]
    assert {policy["micro_batch"] for policy in policies} == {1}
    lines = [
        line for path in (tmp_path / "run" / "logs" / "memory").glob("*") for line in path.read_text().splitlines()
    ]
    # The first units met the errors: twice at each of 4 and 2 rows.
    assert sum(json.loads(line).get("ooms", 0) for line in lines) == 4


def test_a_device_without_room_for_one_image_says_so_and_what_to_do(tmp_path, prompts):
    failed = front(tmp_path / "run", prompts, FAKE_ROWS="0")
    assert failed.returncode == 1
    assert "64x64 px do not fit into this device's memory under any policy" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_worker_whose_memory_grows_is_renewed_between_shards(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 400)
    done = front(tmp_path / "run", prompts, "output.batches_per_shard=25", FAKE_LEAK_MIB="4")
    assert done.returncode == 0, done.stderr
    assert "'s memory kept growing; a new worker takes over" in done.stderr
    assert (verify(tmp_path / "run").returncode, len(samples(tmp_path / "run"))) == (0, 1200)
    logs = [path.read_text() for path in (tmp_path / "run" / "logs" / "workers").glob("*.jsonl")]
    assert 1 < len(logs) <= 4
    assert sum('"event":"renew"' in log for log in logs) >= 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("", "not finite"), ("black", "black"), ("blank", "blank: every pixel"), ("small", "not 64x64 pixels")],
)
def test_bad_images_are_never_written_and_the_manifest_says_why(tmp_path, prompts, kind, reason):
    done = front(tmp_path / "run", prompts, FAKE_NAN="000000003-", FAKE_BAD=kind)
    assert done.returncode == 3, done.stderr
    assert "1 image failed" in done.stderr
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "run" / "shards").glob("*.json")]
    (failed,) = [one for manifest in manifests for one in manifest["samples"] if one["status"] != "ok"]
    assert failed["reason"].startswith(reason)
    assert not any(name.startswith(failed["key"]) for name in samples(tmp_path / "run"))
    logs = [path.read_text() for path in (tmp_path / "run" / "logs" / "memory").glob("*.jsonl")]
    assert sum('"retries":1' in log for log in logs) == 1
    assert verify(tmp_path / "run").returncode == 3


def test_a_model_that_gives_too_few_images_stops_the_run_with_the_cause(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, "launch.restarts=1", FAKE_NAN="000000003-", FAKE_BAD="missing")
    assert done.returncode == 1
    assert "the model gave 3 images for 4 prompts; none of them was written" in done.stderr
    assert verify(tmp_path / "run").returncode == 75


def test_a_worker_with_a_broken_gpu_is_given_up_however_much_the_others_get_done(tmp_path, prompts):
    slow = {"FAKE_BROKEN": "1", "FAKE_STEP_S": "0.3"}  # the others commit while it is started again and again
    done = front(tmp_path / "run", prompts, "launch.workers=2", "launch.restarts=3", **slow)
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stderr.splitlines() if "worker 1 ended" in line]
    assert [line.rpartition("; ")[2] for line in ends] == [
        *(f"started again ({number} of 3)" for number in (1, 2)),
        "its crashes point to its device (cpu), not to the images",
    ]
    assert verify(tmp_path / "run").returncode == 0


def test_a_gpu_that_is_lost_ends_its_worker_blames_no_row_and_the_same_command_goes_on(tmp_path, prompts):
    bad = {"FAKE_NAN": "000000020-", "FAKE_BAD": "lost"}
    done = front(tmp_path / "run", prompts, "launch.workers=2", "launch.restarts=2", **bad)
    assert done.returncode == 1
    assert "CUDA error: uncorrectable ECC error encountered" in done.stderr
    assert "given up after 2 restarts" in done.stderr
    assert len(done.stderr.splitlines()) < 30
    assert not (tmp_path / "run" / "failures").exists()
    checked = verify(tmp_path / "run")
    assert (checked.returncode, checked.stderr) == (75, "")
    assert "not finished, but what is there is sound" in checked.stdout
    healed = front(tmp_path / "run", prompts)
    assert healed.returncode == 0
    assert verify(tmp_path / "run").returncode == 0


WORKERS = ("launch.workers=8", "job.batch_size=32", "output.batches_per_shard=null")


def test_a_plan_for_many_workers_is_kept_by_few_who_may_extend_it_and_try_again(tmp_path):
    first, second = write_prompts(tmp_path / "a.txt", 40), write_prompts(tmp_path / "b.txt", 72)
    cut = front(tmp_path / "run", first, *WORKERS, FAKE_NAN="00003")
    assert cut.returncode == 3, cut.stderr
    assert "in 8 shards" in cut.stderr  # of 5 rows
    fewer = front(tmp_path / "run", first, *WORKERS, "launch.workers=2", "retry_failed=true")
    assert (fewer.returncode, "in 10 shards" in fewer.stderr) == (0, True), fewer.stderr
    more = front(tmp_path / "run", f"[{first},{second}]", *WORKERS, "extend=true")
    assert (more.returncode, "in 26 shards" in more.stderr) == (0, True), more.stderr
    assert verify(tmp_path / "run").returncode == 0


def test_a_plan_made_with_a_size_by_hand_goes_on_without_it(tmp_path, prompts):
    assert front(tmp_path / "run", prompts).returncode == 0
    before = shard_files(tmp_path / "run")
    again = front(tmp_path / "run", prompts, "output.batches_per_shard=null", "launch.workers=8")
    assert (again.returncode, "is already done" in again.stderr) == (0, True), again.stderr
    assert shard_files(tmp_path / "run") == before


def test_strict_ends_with_one_line_where_best_steps_down(tmp_path, prompts):
    best = front(tmp_path / "best", prompts, FAKE_ROWS="2")
    strict = front(tmp_path / "strict", prompts, "determinism=strict", FAKE_ROWS="2")
    assert best.returncode == 0
    assert strict.returncode != 0
    assert "ran out of memory twice" in strict.stderr and "determinism=strict" in strict.stderr
    assert "Traceback" not in strict.stderr


@pytest.mark.slow
def test_eight_workers_share_72_prompts(tmp_path):
    prompts = write_prompts(tmp_path / "p.txt", 72)
    done = front(tmp_path / "run", prompts, *WORKERS, "memory.policy.micro_batch=32", FAKE_ROW_S="1")
    assert done.returncode == 0, done.stderr
    assert len({record["worker"] for record in memory_log(tmp_path / "run")}) == 8
    assert verify(tmp_path / "run").returncode == 0
