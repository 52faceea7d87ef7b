"""Worker processes on this machine: one for each GPU, or one on the CPU."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_RENEW, EXIT_USER, EXIT_WHOLE
from batchgen.events import read_events
from batchgen.memory.host import WORKERS_HERE
from batchgen.plan import Plan
from batchgen.process import worker_name

# What starts a worker; RUN_DIR, RANK and WORLD follow.
WORKER_COMMAND = [sys.executable, "-m", "batchgen.worker"]
_POLL_S = 0.25


@dataclass
class _Child:
    rank: int
    process: subprocess.Popen[bytes]
    log: Path
    restarts: int = 0


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; empty without any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    return _nvidia_smi("index")


def capability() -> tuple[int, int] | None:
    """The compute capability of the machine's first GPU, asked without torch; None without a GPU.

    A driver too old to say (before 510) gets (7, 0), on which everything but bf16 works.
    """
    if not gpus():
        return None
    major, _, minor = next(iter(_nvidia_smi("compute_cap")), "7.0").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (7, 0)


def first_gpu() -> tuple[str, int] | None:
    """The name of the first GPU and how many bytes of its memory are free, asked without torch; None without one."""
    devices = gpus()
    if not devices:
        return None
    name, free = (_nvidia_smi(what, devices[0].strip()) for what in ("name", "memory.free"))
    return (" ".join(name), int(free[0]) << 20) if name and free and free[0].isdigit() else None


def _nvidia_smi(what: str, device: str | None = None) -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    query += [] if device is None else [f"--id={device}"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []


def launch(plan: Plan, stop: threading.Event, tick: Callable[[], None], say: Callable[[str], None]) -> int:
    """Start the workers and wait for them; return the exit code.

    `tick` is called a few times a second, `say` with each line that a worker has for the user. When `stop` is
    set the workers are asked to end after what they are at; what is finished by then stays.
    """
    devices = gpus()
    world = min(plan.config.launch.workers or len(devices) or 1, len(plan.sizes))
    children = [_start(plan, rank, world, devices, say) for rank in range(world)]
    told = False
    codes: dict[int, int] = {}
    try:
        while len(codes) < world:
            tick()
            if stop.is_set() and not told:
                told = True
                say("finishing what is under way; Ctrl-C again ends it at once")
                for child in children:
                    if child.process.poll() is None:
                        child.process.send_signal(signal.SIGTERM)
            for place, child in enumerate(children):
                code = child.process.poll()
                if code is None or child.rank in codes:
                    continue
                if code == EXIT_RENEW and not stop.is_set():
                    say(f"worker {child.rank} had grown in memory; a new one goes on (growth in its log)")
                    children[place] = _start(plan, child.rank, world, devices, say)
                elif code in (EXIT_WHOLE, EXIT_INTERRUPTED, EXIT_USER) or stop.is_set():
                    codes[child.rank] = code
                    if code == EXIT_USER:  # every worker would say the same
                        stop.set()
                else:
                    again = _restart(plan, child, world, devices, say)
                    if again is None:
                        codes[child.rank] = EXIT_BROKEN
                    else:
                        children[place] = again
            time.sleep(_POLL_S)
    finally:
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
    return _exit_code(plan, list(codes.values()), told)


def _exit_code(plan: Plan, codes: list[int], told: bool) -> int:
    if EXIT_USER in codes:
        return EXIT_USER
    if plan.run.committed() >= set(range(len(plan.sizes))):
        return EXIT_WHOLE  # the others did the work of one that died
    # All well and not whole: they left the last shards to workers that another command started.
    stopped = told or EXIT_INTERRUPTED in codes or all(code == EXIT_WHOLE for code in codes)
    return EXIT_INTERRUPTED if stopped else EXIT_BROKEN


def _start(plan: Plan, rank: int, world: int, devices: list[str], say: Callable[[str], None]) -> _Child:
    environment = dict(os.environ) | {WORKERS_HERE: str(world)}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[rank % len(devices)].strip()
    name = worker_name(rank)
    process = subprocess.Popen(
        [*WORKER_COMMAND, str(plan.run.root), str(rank), str(world), "--tied", "--name", name],
        env=environment,
        stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C reaches this process alone, which then tells the workers
    )
    threading.Thread(target=_relay, args=(process, say), daemon=True, name=f"worker-{rank}").start()
    return _Child(rank, process, plan.run.worker_log(name))


def _relay(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        say(line.decode(errors="replace").rstrip("\n"))


def _committed(child: _Child) -> bool:
    """Whether this worker finished a shard. That others did says nothing of the device that it has."""
    try:
        return any(event.get("event") == "commit" for event in read_events(child.log))
    except OSError:
        return False


def _restart(plan: Plan, child: _Child, world: int, devices: list[str], say: Callable[[str], None]) -> _Child | None:
    """A new worker in place of one that died, or None when that has been of no use `restarts` times."""
    code = child.process.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    restarts = 1 if _committed(child) else child.restarts + 1
    if restarts > plan.config.launch.restarts:
        say(f"worker {child.rank} {how}; given up after {child.restarts} restarts")
        return None
    say(f"worker {child.rank} {how}; started again ({restarts} of {plan.config.launch.restarts})")
    again = _start(plan, child.rank, world, devices, say)
    again.restarts = restarts
    return again
