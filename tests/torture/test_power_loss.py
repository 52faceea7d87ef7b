"""The power fails at any moment: from whatever is left the same command ends the run, and nothing that was durable is
made again. And each fsync that this needs is shown to be needed, by taking it out."""

import pytest

from tests.commands import answer

pytestmark = pytest.mark.slow

# Who asks for an fsync, and of what. Without one of these some state after a power cut is wrong.
NECESSARY = {
    "plan.free.save_free run/temporary",
    "plan.store._write_shards plan.*/*.jsonl",
    "plan.store.save_plan plan.*/*.json",
    "plan.store.save_plan plan.*/*.yaml",
    "plan.store.save_plan run/plan.*",
    "memory.frozen.freeze policies/temporary",
    "prepare.prepare outputs/run",
    "run._make_durable /",  # in the test, the directory above outputs/
    "run._make_durable /outputs",
    "run._make_durable outputs/run",
    "run._make_durable run/logs",
    "shards.attempt.__init__ run/work",
    "shards.attempt._commit work/*.json",
    "shards.attempt._commit work/*.tar",
    "shards.attempt._take_over work/*.jsonl",
    "shards.attempt._take_over work/*.tar",
    "shards.attempt.append work/*.jsonl",
    "shards.attempt.append work/*.tar",
    "shards.attempt.publish logs/memory",
    "shards.attempt.publish run/shards",
}
# Belt and braces: no state is wrong without one of these alone, for the reason given.
SPARE = {
    "plan.drafts.new_draft plan.*/*.json",  # of a draft that does not say whose it is nobody makes a plan
    "plan.free.save_free outputs/run",  # each command states it again before it starts a worker
    "shards.index.write_index outputs/run",  # the index restates manifests: one that is gone or torn is written anew
    "shards.index.write_index run/temporary",
    "shards.leases._taken leases/temporary",  # a lease saves work and proves nothing
    "shards.leases._taken run/leases",
    "plan.store.save_plan outputs/run",  # prepare.prepare does it again before anything else is made
    "memory.frozen.freeze run/policies",  # a policy that is gone is chosen again, the same
    "run.run work/temporary",  # tries whether there are hard links
    "shards.attempt._commit run/shards",  # publish does it again before anything is removed
    "shards.attempt._commit run/work",  # __init__ made the names of tar and journal durable
    "shards.attempt._take_over run/work",
}


def power(folder, what):
    return answer("tests.torture.power", folder, what)


def test_a_run_goes_on_from_some_states_after_a_power_cut(tmp_path):
    assert power(tmp_path, 150)["problems"] == []


@pytest.mark.torture
def test_a_run_goes_on_from_any_state_after_a_power_cut(tmp_path):
    assert power(tmp_path, 2000)["problems"] == []


@pytest.mark.torture
def test_each_necessary_fsync_is_missed_when_it_does_nothing(tmp_path):
    sites = power(tmp_path, "mutations")["sites"]
    assert sorted(sites) == sorted(NECESSARY | SPARE)
    assert {site for site, (_, wrong) in sites.items() if wrong} == NECESSARY
