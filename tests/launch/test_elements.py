"""What the elements of job arrays do: by the run's files, and by a squeue that answers, fails or hangs."""

import os
import time
from pathlib import Path

import pytest

from batchgen.launch import elements as module
from batchgen.launch.elements import Queue, element_lines, element_states
from batchgen.launch.notes import Submission
from batchgen.machine import slurm
from batchgen.shards.crew import Member

ARRAY = Submission("17", 4, "18", 0.0)
MEMBERS = [
    Member("n1-0-a", "n1", "working", "working on shard 7", element="17_0"),
    Member("n1-0-b", "n1", "crashed", "crashed: bad", element="17_1"),
    Member("n1-0-c", "n1", "working", "working on shard 8"),
]
QUEUE = [
    slurm.Element("17_0", "RUNNING", "", "n1"),
    slurm.Element("17_2", "PENDING", "Resources", "", "2026-11-28T03:10:00"),
]


def does(listed: list[slurm.Element] | None) -> list[str]:
    return [one.does for one in element_states([ARRAY], MEMBERS, listed)]


def test_what_each_element_does() -> None:
    expected = "waiting (Resources), expected at 2026-11-28 03:10:00"
    assert does(QUEUE) == ["running", "crashed", expected, "over"]
    assert does(None) == ["running", "crashed", "not heard of", "not heard of"]
    assert does([slurm.Element("17_3", "RUNNING", "", "n4")])[3] == "starting"
    first = element_states([ARRAY], MEMBERS, QUEUE)[0]
    assert (first.node, first.workers) == ("n1", ("n1-0-a",))


def test_the_lines_count_what_elements_do() -> None:
    queue = Queue()
    states = element_states([ARRAY], MEMBERS, QUEUE)
    [line] = element_lines([ARRAY], states, queue)
    assert line == "array 17, 4 elements: 1 running, 1 crashed, 1 waiting (Resources), 1 over"
    queue.problem = "squeue did not answer"
    assert element_lines([ARRAY], states, queue)[1].endswith("files alone: squeue did not answer")
    assert element_lines([ARRAY], element_states([ARRAY], [], []), queue) == [], "all of it is over"


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_squeue_is_asked_seldom(squeue: Path, tmp_path: Path) -> None:
    write(squeue, f"echo asked >> {tmp_path}/asked; echo '17_0|RUNNING|None|n1|N/A|gpu'")
    queue = Queue()
    for _ in range(3):
        queue.ask(["17"])
        queue.wait()
    assert queue.listed is not None and [one.id for one in queue.listed] == ["17_0"]
    assert (tmp_path / "asked").read_text().count("asked") == 1


def test_nobody_waits_for_a_squeue_that_hangs(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(squeue, "exec sleep 30")
    monkeypatch.setattr(module, "_WAIT_S", 0.2)
    queue, began_s = Queue(), time.monotonic()
    queue.ask(["17"])
    queue.wait()
    assert time.monotonic() - began_s < 10
    assert queue.listed is None and "did not answer" in str(queue.problem)


def test_a_squeue_that_fails_or_is_missing_is_told(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(squeue, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    queue = Queue()
    queue.ask(["17"])
    queue.wait()
    assert queue.listed is None and "Unable to contact" in str(queue.problem)
    monkeypatch.setenv("PATH", str(squeue.parent / "nothing"))
    missing = Queue()
    missing.ask(["17"])
    missing.wait()
    assert missing.listed is None and "squeue" in str(missing.problem)
