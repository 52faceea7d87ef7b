"""launch.wait=true: the command stays until the run is whole, or nothing of it is left in the queue."""

import pytest

from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE
from batchgen.launch import notes
from batchgen.launch.display import Display
from batchgen.launch.wait import wait
from batchgen.machine import slurm
from batchgen.machine.process import StopEvent
from tests.builders import finish_run, plan_run


class Listener(Display):
    """In place of a display."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.is_closed = False

    def tick(self):
        pass

    def say(self, line):
        self.said.append(line)

    def close(self):
        self.is_closed = True


@pytest.fixture
def plan(tmp_path):
    plan = plan_run(tmp_path, ["a", "b", "c"])
    plan.run.slurm.mkdir()
    notes.note(plan.run, [], "7", 1, "8")
    return plan


def test_it_ends_when_the_run_is_whole(plan):
    finish_run(plan)
    display = Listener()
    assert wait(plan, display, StopEvent()) == EXIT_WHOLE
    assert display.is_closed


def test_it_leaves_the_jobs_alone_when_it_is_asked_to_end(plan):
    stop, display = StopEvent(), Listener()
    stop.set()
    assert wait(plan, display, stop) == EXIT_INTERRUPTED
    assert "goes on without this command" in display.said[0]


def test_it_ends_when_nothing_lives_any_more(plan, monkeypatch):
    answers = [[slurm.Element("7_0", "RUNNING")], [], [slurm.Element("7_0", "PENDING")], [], []]
    monkeypatch.setattr(slurm, "live", lambda jobs: answers.pop(0))
    display = Listener()
    assert wait(plan, display, StopEvent(), ask_s=0.0) == EXIT_INTERRUPTED
    assert not answers
    assert "the same command submits more" in display.said[-1]


def test_a_controller_that_does_not_answer_ends_nothing(plan, monkeypatch):
    asked = []

    def live(jobs):
        asked.append(jobs)
        if len(asked) == 4:
            finish_run(plan)
        raise slurm.SlurmError("no answer")

    monkeypatch.setattr(slurm, "live", live)
    assert wait(plan, Listener(), StopEvent(), ask_s=0.0) == EXIT_WHOLE
