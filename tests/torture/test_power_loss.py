"""The power fails at any moment: from whatever is left the same command ends the run, and nothing that was durable is
made again. And each fsync that this needs is shown to be needed, by taking it out."""

import pytest

from tests.commands import answer

# Who asks for an fsync, and of what. Without one of these some state after a power cut is wrong.
NECESSARY = {
    "free.save_free run/temporary",
    "plan._write_shards plan.*/*.jsonl",
    "plan.save_plan plan.*/*.json",
    "plan.save_plan plan.*/*.yaml",
    "plan.save_plan run/plan.*",
    "policies.of policies/temporary",
    "prepare.prepare outputs/run",
    "run._make_durable /",  # in the test, the directory above outputs/
    "run._make_durable /outputs",
    "run._make_durable outputs/run",
    "run._make_durable run/logs",
    "shards.__init__ run/work",
    "shards._commit work/*.json",
    "shards._commit work/*.tar",
    "shards._take_over work/*.jsonl",
    "shards._take_over work/*.tar",
    "shards.append work/*.jsonl",
    "shards.append work/*.tar",
    "shards.publish logs/memory",
    "shards.publish run/shards",
}
# Belt and braces: no state is wrong without one of these alone, for the reason given.
SPARE = {
    "drafts.new_draft plan.*/*.json",  # of a draft that does not say whose it is nobody makes a plan
    "free.save_free outputs/run",  # each command states it again before it starts a worker
    "index.write_index outputs/run",  # the index restates manifests: one that is gone or torn is written anew
    "index.write_index run/temporary",
    "leases.take_named leases/temporary",  # a lease saves work and proves nothing
    "leases.take_named run/leases",
    "plan.save_plan outputs/run",  # prepare.prepare does it again before anything else is made
    "policies.of run/policies",  # a policy that is gone is chosen again, the same
    "run.run work/temporary",  # tries whether there are hard links
    "shards._commit run/shards",  # shards.publish does it again before anything is removed
    "shards._commit run/work",  # shards.__init__ made the names of tar and journal durable
    "shards._take_over run/work",
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
