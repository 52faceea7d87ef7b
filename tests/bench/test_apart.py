"""A process of its own answers, fails or is ended."""

import sys
import threading
import time

import psutil
import pytest

from batchgen.bench import apart
from batchgen.errors import ModelError, StoppedError
from batchgen.machine.process import StopEvent
from tests.bench.jobs import CPU


def asked(monkeypatch, code, stop=None):
    """What a process answers that runs this code."""
    monkeypatch.setattr(apart, "_COMMAND", (sys.executable, "-c", f"import sys, json, os, time\n{code}"))
    return apart.ask({"rows": 2}, CPU, stop or StopEvent())


def test_the_answer_comes_back(monkeypatch):
    code = "time.sleep(1)\nprint(json.dumps({'seen': json.loads(sys.stdin.read())}))"
    assert asked(monkeypatch, code) == {"seen": {"rows": 2}}


def test_a_process_that_ends_without_an_answer_failed(monkeypatch):
    assert asked(monkeypatch, "sys.exit('nothing works')") == {"failed": "nothing works"}
    assert "memory may have run out" in asked(monkeypatch, "os.kill(os.getpid(), 9)")["failed"]


def test_a_problem_ends_the_bench(monkeypatch):
    with pytest.raises(ModelError, match="no GPU"):
        asked(monkeypatch, "print(json.dumps({'problem': 'no GPU'}))")


def test_told_to_stop_it_ends_the_process_and_its_children(monkeypatch):
    stop = StopEvent()
    threading.Timer(1.0, stop.set).start()
    began_s = time.monotonic()
    with pytest.raises(StoppedError, match="the same command goes on"):
        asked(monkeypatch, "import subprocess\nsubprocess.run(['sleep', '61.25'])", stop)
    assert time.monotonic() - began_s < 30
    left = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "61.25"]]
    assert left == []
