"""The words of batchgen's own command, and what is read of its logs."""

import json

from batchgen.bench.own import run_command, steady, words_of, write_prompts
from batchgen.bench.task import Task

TASK = Task(64, 64, 2, 5.0, rows=4, batches=2)


def test_what_was_typed_is_kept_but_for_what_the_bench_decides(tmp_path):
    typed = ["--config-dir", "mine", "job=mars_batch", "job.steps=7", "launch.workers=3", "+job.limit=5", "run_dir=x"]
    words = words_of([*typed, "speed.traced=true", "output.copy_to=s3://x/y"], [("traced", False)], TASK, tmp_path)
    assert words[:4] == typed[:4]
    settings = dict(word.split("=", 1) for word in words[2:])
    assert len(settings) == len(words) - 2  # none twice
    assert settings["launch.workers"] == "1" and settings["job.limit"] == "null" and settings["job.batch_size"] == "4"
    assert settings["speed.traced"] == "false" and settings["output.copy_to"] == "null"
    assert settings["run_dir"] == str(tmp_path / "run")


def test_there_is_a_prompt_for_each_image_and_for_a_first_batch(tmp_path):
    write_prompts(tmp_path, TASK)
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert len({json.loads(line)["prompt"] for line in lines}) == 12


def test_the_rate_is_from_the_first_unit_to_the_last_commit():
    def event(name, second, **facts):
        return {"event": name, "at": f"2026-01-01T00:00:{second:02d}.000+00:00"} | facts

    made = [event("made", 10, images=4), event("made", 12, images=4), event("made", 14, images=4)]
    found = steady([event("start", 1), *made, event("commit", 16), event("end", 17)], 4, 1767225600.0)
    assert found == {"seconds": 3.0, "images": 4, "start_s": 10.0}


def test_a_command_that_fails_says_why(tmp_path):
    found = run_command(["job=mars_batch", "job.steps=0", f"run_dir={tmp_path / 'run'}"], tmp_path, 4, {})
    assert found.keys() == {"failed"} and "job.steps must be between" in found["failed"]
