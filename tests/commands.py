"""Running batchgen as a user does: as commands, in processes of their own."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from batchgen.events import read_events
from batchgen.paths import RunDir

ROOT = Path(__file__).resolve().parents[1]
FAKE = [sys.executable, str(ROOT / "tests" / "fake_engine.py"), "front"]
REAL = [sys.executable, "-m", "batchgen"]
JOIN = [sys.executable, str(ROOT / "tests" / "fake_engine.py"), "join"]
WORKER = [sys.executable, str(ROOT / "tests" / "fake_engine.py"), "worker"]
SMALL = ("job=mars_batch", "job.width=64", "job.height=64", "job.batch_size=4", "output.batches_per_shard=2")


def run(command, *arguments, cwd=ROOT, timeout_s=300, **environment):
    """The finished process, with text output."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def front(run_dir, prompts, *overrides, command=FAKE, **more):
    """`python -m batchgen` on a prompt file, with small images."""
    return run(command, *SMALL, f"run_dir={run_dir}", f"job.prompts={prompts}", *overrides, **more)


def planned(run_dir, prompts, *overrides):
    """Plan a run as `front` does, and begin nothing: its time is over at once."""
    done = front(run_dir, prompts, *overrides, "launch.time_limit=1s", "launch.warn_s=0.9")
    assert done.returncode == 75 and not list((Path(run_dir) / "shards").iterdir()), done.stderr
    free = Path(run_dir) / "free.yaml"
    free.write_text(free.read_text().replace("launch.time_limit: 1s", "launch.time_limit: null"))


def verify(run_dir):
    """`python -m batchgen.verify RUN_DIR`."""
    return run([sys.executable, "-m", "batchgen.verify"], run_dir)


def kill_after(seconds, command, *arguments, number=signal.SIGKILL, cwd=ROOT, **environment):
    """Start a command and after `seconds` send it a signal (SIGKILL: to all its processes); its code and stderr."""
    process = _start(command, arguments, cwd, environment)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return _kill(process, number)
    return process.returncode, errors


def kill_when(delay_s, condition, command, *arguments, number=signal.SIGKILL, cwd=ROOT, **environment):
    """As `kill_after`, `delay_s` after `condition()` holds."""
    process = _start(command, arguments, cwd, environment)
    wait_for(lambda: process.poll() is not None or condition(), timeout_s=120)
    time.sleep(delay_s)
    return _kill(process, number)


def start(command, *arguments, cwd=ROOT, **environment):
    """A command that goes on while the test does; its stderr is text."""
    return _start(command, arguments, cwd, environment)


def left_of(run_dir):
    """The processes that still work on a run: their command lines name its directory."""
    import psutil

    found = []
    for one in psutil.process_iter(["cmdline"]):
        if any(str(run_dir) in word for word in one.info["cmdline"] or ()) and one.pid != os.getpid():
            found.append(one)
    return found


def _start(command, arguments, cwd, environment):
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _kill(process, number):
    for pid in _tree(process.pid) if number == signal.SIGKILL else [process.pid]:
        _send(pid, number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def beside_progress(errors):
    """What a run said on stderr besides how far it is."""
    progress = re.compile(r"batchgen: (\d+ workers? loads? the model; .* progress follows|\d+/\d+ images, .*)")
    return [line for line in errors.splitlines() if not progress.fullmatch(line)]


def workers_that_began(run_dir):
    """How many workers of a run have loaded their model and begun."""
    logs = (Path(run_dir) / "logs" / "workers").glob("*.jsonl")
    return sum('"event":"policy"' in path.read_text() for path in logs)


def _tree(pid):
    import psutil

    try:
        parent = psutil.Process(pid)
        return [pid, *(child.pid for child in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


def _send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def write_prompts(path: Path, count: int) -> Path:
    """A prompt file with different, repeated and long prompts."""
    chosen = random.Random(7)
    nouns = ["rover", "horse", "astronaut", "dome", "crater", "cat"]
    path.write_text("".join(f"a {chosen.choice(nouns)} on mars, take {place % 11}\n" for place in range(count)))
    return path


def shard_files(run_dir):
    """{name: bytes} of the committed tars."""
    return {path.name: path.read_bytes() for path in sorted((Path(run_dir) / "shards").glob("*.tar"))}


def memory_log(run_dir):
    """The records of all units of a run, from its committed shards' memory logs."""
    logs = sorted((Path(run_dir) / "logs" / "memory").glob("*.jsonl"))
    records = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    return [record for record in records if "stage_seconds" in record]


def worker_events(run_dir):
    """The events of all workers of a run, each worker's in order."""
    logs = sorted(RunDir(Path(run_dir)).worker_logs.glob("*.jsonl"))
    return [event for path in logs for event in read_events(path)]


def answer(module, *arguments):
    """The JSON that `python -m MODULE ARGUMENTS` prints when all goes well."""
    done = run([sys.executable, "-m", module], *arguments, timeout_s=1800, OMP_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


def samples(run_dir):
    """{member name: bytes} over all tars of a run."""
    import tarfile

    found = {}
    for path in sorted((Path(run_dir) / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    return found


def wait_for(condition, timeout_s=30.0):
    """Wait until `condition()` holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "timed out"
        time.sleep(0.02)
