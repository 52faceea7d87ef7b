"""The dry run says what the run would do, and refuses what it would refuse."""

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.dry_run import dry_run, summary
from batchgen.errors import EXIT_BROKEN, ResumeError
from batchgen.prepare import look_up
from tests.builders import finish_run, make_config, plan_run, write_rows


def test_a_dry_run_refuses_new_files_and_lost_tars_as_the_run_does(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1)
    finish_run(plan := plan_run(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1))
    assert summary(plan.run, config, look_up(config)).harm is None
    more = write_rows(tmp_path / "more.jsonl", ["d"])
    added = replace(config, job=replace(config.job, prompts=[config.job.prompts, str(more)]))
    with pytest.raises(ResumeError, match="extend=true"):
        summary(plan.run, added, look_up(added))
    assert summary(plan.run, replace(added, extend=True), look_up(added)).done_shards == 3
    plan.run.tar(1).unlink()
    assert dry_run(plan.run, config, []) == EXIT_BROKEN
    counts = summary(plan.run, config, look_up(config))
    assert (counts.done_shards, counts.open_shards) == (2, 0)
    assert counts.harm is not None and "shard 000001's tar is missing" in counts.harm
