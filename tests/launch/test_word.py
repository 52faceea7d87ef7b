"""What rank 0 tells the other ranks by a note in the run's directory, and how they notice that it is gone."""

import json
import threading
from pathlib import Path

import pytest

from batchgen.errors import BatchgenError, StoppedError, UserError
from batchgen.launch import word
from batchgen.launch.ranks import Group
from batchgen.launch.word import Speaker, Word, listen
from batchgen.machine import process
from batchgen.machine.process import StopEvent
from batchgen.paths import RunDir
from batchgen.plan.replan import refuse_used
from tests.builders import gone_process

GROUP = Group("slurm-41.0", True, 0, 4, 0, 4, 1)
SPREAD = Group("torch-none", False, 0, 4, 0, 2, 1)  # another group had that id before
ELSEWHERE = process.identity() | {"host": "node2"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word, "_POLL_S", 0.01)
    monkeypatch.setattr(word, "_PATIENCE_S", 0.3)


def leave(run: RunDir, group: Group, who: dict[str, object], state: str = "planning", beat: int = 0) -> None:
    run.root.mkdir(exist_ok=True)
    content = {"state": state, "code": 0, "beat": beat, "process": who}
    run.word(group.id).write_text(json.dumps(content))


def words(run: RunDir) -> list[Path]:
    return list(run.root.glob("plan.*"))


def heard(run: RunDir, group: Group = GROUP, timeout_s: float = 5.0) -> Word:
    return listen(run, group, timeout_s, StopEvent())


def test_the_others_wait_until_the_run_is_planned(run: RunDir) -> None:
    speaker = Speaker(run, GROUP)
    with speaker.speaking():
        later = threading.Timer(0.2, speaker.say, [Word("ready")])
        later.start()
        assert heard(run) == Word("ready")
        speaker.end(0)
    assert words(run) == []


def test_planning_overlooks_the_note(run: RunDir) -> None:
    with Speaker(run, GROUP).speaking():
        assert len(words(run)) == 1
        refuse_used(run)


def test_a_refusal_ends_all_with_its_code(run: RunDir) -> None:
    with pytest.raises(UserError), Speaker(run, GROUP).speaking():
        raise UserError("no such file")
    assert heard(run) == Word("over", 2)
    with pytest.raises(ZeroDivisionError), Speaker(run, GROUP).speaking():
        print(1 // 0)
    assert heard(run) == Word("over", 1)


def test_a_run_that_is_over_ends_all(run: RunDir) -> None:
    speaker = Speaker(run, GROUP)
    with speaker.speaking():
        speaker.end(3)
    assert heard(run) == Word("over", 3)


def test_the_word_is_renewed_while_rank_0_plans(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word, "_BEAT_S", 0.02)
    speaker = Speaker(run, SPREAD)
    with speaker.speaking():
        beats = {json.loads(run.word(SPREAD.id).read_text())["beat"]}
        while len(beats) < 3:
            beats.add(json.loads(run.word(SPREAD.id).read_text())["beat"])


@pytest.mark.parametrize("who", [gone_process(), ELSEWHERE], ids=["here", "elsewhere"])
def test_a_dead_rank_0_is_noticed(run: RunDir, who: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word, "_PATIENCE_S", 60.0)
    leave(run, GROUP, process.identity() | {"host": who["host"]})
    killed = threading.Timer(0.1, leave, [run, GROUP, who])
    killed.start()
    with pytest.raises(BatchgenError, match="rank 0 ended before .* was prepared"):
        heard(run, timeout_s=0.3)


def test_a_rank_0_that_does_not_begin_is_not_waited_for_for_ever(run: RunDir) -> None:
    with pytest.raises(BatchgenError, match="rank 0 gave no sign in .*run for 0 s"):
        heard(run)


@pytest.mark.parametrize("who", [gone_process(), ELSEWHERE], ids=["here", "elsewhere"])
def test_the_word_of_an_earlier_group_of_that_name_does_not_count(run: RunDir, who: dict[str, object]) -> None:
    leave(run, SPREAD, who, "over")
    with pytest.raises(BatchgenError, match="gave no sign"):
        heard(run, SPREAD)
    later = threading.Timer(0.1, leave, [run, SPREAD, ELSEWHERE, "ready", 1])
    later.start()
    assert heard(run, SPREAD) == Word("ready")


def test_who_is_asked_to_end_does_not_wait(run: RunDir) -> None:
    stop = StopEvent()
    stop.set()
    with pytest.raises(StoppedError):
        listen(run, GROUP, 5.0, stop)


def test_a_command_that_was_started_alone_leaves_no_note(run: RunDir) -> None:
    speaker = Speaker(run, None)
    with speaker.speaking():
        speaker.say(Word("ready"))
        speaker.end(0)
    assert not run.root.exists()


def test_what_dead_groups_left_is_swept_by_the_next(run: RunDir) -> None:
    leave(run, SPREAD, gone_process(), "over")
    with Speaker(run, GROUP).speaking():
        assert words(run) == [run.word(GROUP.id)]
