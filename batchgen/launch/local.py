"""Worker processes on this machine: one for each GPU, or one on the CPU.

A worker that cannot work leaves and says why, and the others go on; the run ends when none is left. A worker that died
is started again, unless that has failed several times in a row or its crashes point to its device.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_RENEW, EXIT_USER, EXIT_WHOLE
from batchgen.events import read_events
from batchgen.machine import oom
from batchgen.machine.host import Room, as_told, room_for
from batchgen.machine.process import StopEvent, worker_name
from batchgen.plan.store import Plan
from batchgen.shards.failures import Crash, is_device_at_fault, read_crashes, record, strike, trials

# What starts a worker; RUN_DIR, RANK and WORLD follow.
WORKER_COMMAND = [sys.executable, "-m", "batchgen.worker"]
_POLL_S = 0.25
_LAST_WORDS_S = 5.0  # for the lines of workers that ended; a process of theirs may still hold the pipe


@dataclass
class Child:
    """A worker's process. `crashes`: of its rank, since it last got on."""

    rank: int
    device: str  # as CUDA_VISIBLE_DEVICES names it, or cpu
    name: str
    process: subprocess.Popen[bytes]
    restarts: int = 0
    crashes: list[Crash] = field(default_factory=list)


class Begun(NamedTuple):
    """The processes that were begun ahead, by rank, and the room of each worker on this machine."""

    children: dict[int, Child]
    room: Room


@dataclass(frozen=True, slots=True)
class Share:
    """What the workers of one process are of all workers: their numbers, and how many there are with those of others.

    `devices`: the GPUs to use, as CUDA_VISIBLE_DEVICES names them; none for the CPU. `here`: how many workers this
    machine has.
    """

    devices: Sequence[str]
    ranks: range
    world: int
    here: int

    @classmethod
    def whole(cls, plan: Plan, devices: Sequence[str]) -> "Share":
        """All workers of the plan, on this machine: one for each GPU or one, unless launch.workers says how many."""
        return cls.of(devices, min(plan.config.launch.workers or len(devices) or 1, plan.shard_count))

    @classmethod
    def of(cls, devices: Sequence[str], workers: int) -> "Share":
        """So many workers, all of them on this machine."""
        return cls(devices, range(workers), workers, workers)

    def device(self, rank: int) -> str:
        """The device of a worker: a GPU, as CUDA_VISIBLE_DEVICES names it, or cpu."""
        return self.devices[(rank - self.ranks.start) % len(self.devices)] if self.devices else "cpu"


def begin(root: Path, share: Share, rank: int, *more: str, told: Mapping[str, str]) -> Child:
    """Start the process of a worker of the run in this directory.

    `more`: arguments beside those of every worker; `told`: variables beside those of this process.
    """
    environment = {**os.environ, **told}
    device, name = share.device(rank), worker_name(rank)
    if share.devices:
        environment["CUDA_VISIBLE_DEVICES"] = device
    process = subprocess.Popen(
        [*WORKER_COMMAND, str(root), str(rank), str(share.world), "--tied", "--name", name, *more],
        env=environment,
        stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C reaches only this process, which then tells the workers
    )
    return Child(rank, device, name, process)


def _none_begun(share: Share) -> Begun:
    return Begun({}, room_for(share.here))


def launch(crew: "Crew", stop: StopEvent, tick: Callable[[], None], say: Callable[[str], None]) -> int:
    """Start the workers and wait for them; return the exit code.

    `tick` is called a few times a second, `say` with a line about how the work ends. When `stop` is set, the workers
    are asked to end after the units under way; what is finished by then stays.
    """
    told = False
    try:
        crew.start()
        while not crew.is_over():
            tick()
            if stop.is_set() and not told:
                told = True
                say(_ending(stop))
                crew.ask_to_end()
            crew.look(told)
            time.sleep(_POLL_S)
    finally:
        crew.kill()
    code = _exit_code(list(crew.codes.values()), crew.is_whole(), told)
    if code == EXIT_INTERRUPTED and set(crew.codes.values()) == {EXIT_WHOLE}:
        say("no shard is left for the workers here; if no other worker makes the last ones, run the same command again")
    return code


def _ending(stop: StopEvent) -> str:
    if stop.why is not None or not stop.again_ends:
        return f"{stop.why or f'{stop.by} came'}: finishing the units under way"
    again = "press Ctrl-C again" if stop.by in (None, "SIGINT") else f"kill -INT {os.getpid()}"
    return f"finishing the units under way; {again} to stop at once"


def _exit_code(codes: list[int], is_whole: bool, told: bool) -> int:
    """The run's exit code, from those of the workers that left."""
    if is_whole:
        return EXIT_WHOLE  # the others did the work of those that could not
    if told or EXIT_INTERRUPTED in codes:
        return EXIT_INTERRUPTED
    if EXIT_BROKEN in codes:
        return EXIT_BROKEN
    # Otherwise all went well, and workers that another command started make the last shards.
    return EXIT_USER if EXIT_USER in codes else EXIT_INTERRUPTED


class Crew:
    """The workers of one process. `say`: a line for the user. `codes`: how those that left ended, by rank.

    `names`: of all its workers so far. `ahead` hands over the processes that were begun before the plan was there.
    """

    def __init__(
        self,
        plan: Plan,
        share: Share,
        say: Callable[[str], None],
        ahead: Callable[[Share], Begun] = _none_begun,
    ) -> None:
        self.plan, self._share, self.say, self._ahead = plan, share, say, ahead
        self.names: list[str] = []
        self._children: dict[int, Child] = {}
        self._relays: list[threading.Thread] = []
        self._ended_s = time.monotonic()
        self._oom_kills = oom.kills()
        self.codes: dict[int, int] = {}

    def start(self) -> None:
        """Start all workers."""
        begun, self._room = self._ahead(self._share)
        self._children |= begun  # they are ended with the others, whatever comes between
        for rank in self._share.ranks:
            self._start(rank, begun.get(rank))

    def is_over(self) -> bool:
        """Whether all workers left, or every shard is committed and the rest do not end because their device hangs."""
        if len(self.codes) == len(self._share.ranks):
            return True
        has_waited = time.monotonic() - self._ended_s > self.plan.config.launch.lease_timeout_s
        return has_waited and EXIT_WHOLE in self.codes.values() and self.is_whole()

    def is_whole(self) -> bool:
        """Whether every shard is committed."""
        return self.plan.run.committed() >= set(range(self.plan.shard_count))

    def ask_to_end(self) -> None:
        """Ask the workers to end after the units under way."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)

    def look(self, stopping: bool) -> None:
        """Look which workers ended, and start those again that have more to do."""
        for rank, child in self._children.items():
            code = child.process.poll()
            if code is None or rank in self.codes:
                continue
            self._ended_s = time.monotonic()
            crash = self._crash(child, code)
            if code == EXIT_RENEW and not stopping:
                self.say(f"worker {rank}'s memory kept growing; a new worker takes over (see growth in its log)")
                self._start(rank)
            elif stopping and code == -signal.SIGTERM:  # it had not begun
                self._leave(child, EXIT_INTERRUPTED)
            elif code in (EXIT_WHOLE, EXIT_INTERRUPTED, EXIT_USER, EXIT_REFUSED) or stopping:
                self._leave(child, EXIT_BROKEN if code == EXIT_REFUSED else code)
            else:
                self._died(child, crash)

    def kill(self) -> None:
        """End what still runs, at once, and hear what the workers said last."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
        until_s = time.monotonic() + _LAST_WORDS_S
        for relay in self._relays:
            relay.join(max(0.0, until_s - time.monotonic()))

    def _start(self, rank: int, begun: Child | None = None) -> Child:
        child = begun or begin(self.plan.run.root, self._share, rank, told=as_told(self._room))
        self.names.append(child.name)
        relay = threading.Thread(target=_relay, args=(child.process, self.say), daemon=True, name=f"worker-{rank}")
        relay.start()
        self._relays.append(relay)
        self._children[rank] = child
        return child

    def _leave(self, child: Child, code: int) -> None:
        self.codes[child.rank] = code
        left = len(self._share.ranks) - len(self.codes)
        if code not in (EXIT_WHOLE, EXIT_INTERRUPTED) and left:
            self.say(f"worker {child.rank} has left; {left} of {len(self._share.ranks)} go on")

    def _crash(self, child: Child, code: int) -> Crash | None:
        """Record a worker's end in failures/ if it was a crash."""
        at_work = {one.device for one in self._children.values() if one.rank not in self.codes}
        gpu = f"{socket.gethostname()} {child.device}"
        return record(self.plan.run, self.plan.run_id, child.name, code, gpu, len(at_work))

    def _died(self, child: Child, crash: Crash | None) -> None:
        """Start a new worker in place of one that died, unless that has failed `restarts` times in a row."""
        rank, most = child.rank, self.plan.config.launch.restarts
        how = self._how(child.process.returncode)
        got_on = self._got_on(child.name)
        crashes = ([] if got_on else child.crashes) + ([crash] if crash else [])
        if is_device_at_fault(crashes):
            strike(crashes)
            self.say(f"worker {rank} {how}; its crashes point to its device ({child.device}), not to the images")
            self._leave(child, EXIT_BROKEN)
            return
        restarts = 1 if got_on or (crash and self._narrows(crash)) else child.restarts + 1
        if restarts > most:
            self.say(f"worker {rank} {how}; given up after {child.restarts} restarts")
            self._leave(child, EXIT_BROKEN)
            return
        where = f" in shard {crash.shard}, rows {crash.rows[0]} to {crash.rows[1] - 1}" if crash else ""
        self.say(f"worker {rank} {how}{where}; started again ({restarts} of {most})")
        again = self._start(rank)
        again.restarts, again.crashes = restarts, crashes

    def _how(self, code: int) -> str:
        """How a worker died, and whether the kernel ended it for lack of the host's memory, as far as that is told."""
        if code >= 0:
            return f"ended with exit code {code}"
        before, self._oom_kills = self._oom_kills, oom.kills()
        if code != -signal.SIGKILL or self._oom_kills == before:
            return f"was killed by {signal.Signals(-code).name}"
        return "was killed by the kernel, because the host's memory was used up (give it more, or start fewer workers)"

    def made_anything(self) -> bool:
        """Whether any of its workers made images; those that ended as they should have put them on the disk."""
        return any({"made", "commit"} & set(self._events(name)) for name in self.names)

    def _got_on(self, name: str) -> bool:
        """Whether this worker put images on the disk. What others did says nothing about its device."""
        events = self._events(name)
        # A unit is begun only when the one before it is on the disk.
        return "commit" in events or events.count("made") > 1

    def _events(self, name: str) -> list[str]:
        try:
            return [str(event.get("event")) for event in read_events(self.plan.run.worker_log(name))]
        except OSError:
            return []

    def _narrows(self, crash: Crash) -> bool:
        """Whether the next worker will try the shard in other pieces than this one did."""
        shard, _ = self.plan.shard(crash.shard)
        known = read_crashes(self.plan.run, self.plan.run_id).get(crash.shard, [])
        before = [one for one in known if one.path != crash.path]
        return trials(shard, known) != trials(shard, before)


def _relay(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        say(line.decode(errors="replace").rstrip("\n"))
