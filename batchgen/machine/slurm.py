"""What SLURM says, and what it is told: sbatch, squeue, scontrol and scancel. Each call has a time limit.

Nothing here needs accounting. The readers of what the commands print are pure functions.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import IO

from batchgen.errors import BatchgenError, UserError

ANSWER_S = 20.0  # a controller that hangs must not hang us
# States of a job that works, or will without anybody's doing.
_LIVE = ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_FED", "RESIZING", "SIGNALING")
_WORKING = {"alloc", "comp", "idle", "mix", "plnd"}  # states of a node that can run jobs, now or later
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_POLL_S = 0.2
_SETTLE_S = 10.0  # for what is ending: an element that was put back into the queue shows as COMPLETING for a moment
_ASK_AGAIN_S = 1.0  # all users of a cluster ask the one controller
_MOST_BYTES = 1 << 24  # of what a command prints
_WAITS = "sleeping and retrying"  # what sbatch says while the queue is full
_FORMAT = "%i|%T|%r|%N|%S|%P"


class SlurmError(BatchgenError):
    """SLURM does not answer, or does not do what it is asked now. Nothing is lost, and it may do so later."""


class SlurmMissingError(UserError):
    """This machine has no command of SLURM."""


class RefusedError(UserError):
    """SLURM does not take a request, for example because of a partition that it does not have."""


@dataclass(frozen=True, slots=True)
class Element:
    """A job of the queue: an element of an array, such as 123_4, or a job of its own.

    `reason`: why it waits, "" if it does not. `node`: "" before it runs. `start`: when it began or is expected to, in
    local time as SLURM writes it, "" if that is not known.
    """

    id: str
    state: str
    reason: str = ""
    node: str = ""
    start: str = ""
    partition: str = ""

    @property
    def job(self) -> str:
        """The id of the array, or of the job."""
        return self.id.partition("_")[0]

    @property
    def is_live(self) -> bool:
        """Whether it works, or will without anybody's doing."""
        return self.state in _LIVE

    @property
    def is_ending(self) -> bool:
        """Whether it is over, or is being put back into the queue: squeue says the same of both."""
        return self.state == "COMPLETING"

    @property
    def is_held(self) -> bool:
        """Whether it waits until somebody releases it."""
        return self.reason == "JobHeldUser"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition. Times are in seconds; None means that there is no limit, or none by default."""

    name: str
    is_up: bool = True
    is_default: bool = False
    max_time_s: float | None = None
    default_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cluster takes. `max_array`: the most elements of an array. None is not known."""

    max_array: int | None = None
    max_jobs: int | None = None
    partitions: tuple[Partition, ...] = ()

    def partition(self, name: str | None) -> Partition | None:
        """The partition of that name, or the default one; None where it is not there."""
        return next((one for one in self.partitions if (one.is_default if name is None else one.name == name)), None)


def is_here() -> bool:
    """Whether this machine has the commands of SLURM."""
    return shutil.which("sbatch") is not None


def require_here() -> None:
    """Raise SlurmMissingError where this machine does not have the commands of SLURM."""
    if not is_here():
        raise SlurmMissingError(_missing("sbatch"))


def _missing(command: str) -> str:
    return f"{command}: this machine has no such command: start this on a login node, or without launch=slurm"


def call(*command: str, text: str = "", limit_s: float = ANSWER_S, environ: Mapping[str, str] = os.environ) -> str:
    """What a command of SLURM prints, with `text` as its input.

    Raises SlurmMissingError where it is not here, RefusedError or SlurmError with what it says where it fails.
    """
    environment = {**environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(command, stdin=given, stdout=printed, stderr=said, env=environment)
        except FileNotFoundError as error:
            raise SlurmMissingError(_missing(command[0])) from error
        except OSError as error:
            raise SlurmError(f"{command[0]} cannot be started: {error.strerror}") from error
        code = _wait(process, said, limit_s)
        output, errors = (_content(file) for file in (printed, said))
    if code is None:
        raise SlurmError(unanswered(command[0], errors, limit_s))
    if code:
        raise refusal(command[0], errors or output)
    return output


def _wait(process: subprocess.Popen[bytes], said: IO[bytes], limit_s: float) -> int | None:
    """The exit code of a command; None where it was ended: at its limit, or because it waits for room in the queue."""
    end_s = time.monotonic() + limit_s
    try:
        while time.monotonic() < end_s:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if _WAITS in _content(said):
                    return None
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _content(file: IO[bytes]) -> str:
    data = os.pread(file.fileno(), _MOST_BYTES, 0)
    return data.decode(errors="replace")


def unanswered(command: str, said: str, limit_s: float) -> str:
    """What to say of a command that was still waiting when it was ended, after it had `said` something."""
    if _WAITS in said:
        return f"{command}: the queue of this cluster is full; nothing was submitted, run the same command again later"
    return f"{command} got no answer from SLURM within {limit_s:g} s: see whether sinfo answers, and try again later"


def refusal(command: str, said: str) -> RefusedError | SlurmError:
    """The error that a command of SLURM ended with, in one line, by what it wrote on stderr."""
    lines = [line.strip().removeprefix(f"{command}: ").removeprefix("error: ") for line in said.splitlines()]
    lines = [line.removeprefix("Batch job submission failed: ").rstrip(".") for line in lines]
    text = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith("Try "))) or "it failed"
    if "configuration source" in said or "process configuration file" in said:
        return RefusedError(f"{command}: this machine is not set up for a cluster of SLURM: {text}")
    later = ("Unable to contact", "Socket timed out", "Connection refused", "Zero Bytes", "Communication connection")
    if any(word in said for word in later):
        return SlurmError(f"{command}: {text}: SLURM does not answer; run the same command again later")
    if "Limit" in said or "limit" in text or "queue full" in said or "temporarily unavailable" in said:
        return SlurmError(f"{command}: {text}: the queue takes no more jobs now; run the same command again later")
    return RefusedError(f"{command}: {text}")


def live(job_ids: Collection[str]) -> list[Element]:
    """The elements of these jobs that run or wait, once it is clear of each. Raises SlurmError or SlurmMissingError."""
    end_s = time.monotonic() + _SETTLE_S
    found = listed(job_ids)
    while any(element.is_ending for element in found) and time.monotonic() < end_s:
        time.sleep(_ASK_AGAIN_S)
        found = listed(job_ids)
    return [element for element in found if element.is_live]


def listed(job_ids: Collection[str]) -> list[Element]:
    """What the queue holds of these jobs; one that it has forgotten is left out. Raises what `call` does."""
    if not job_ids:
        return []
    try:
        return parse_queue(call("squeue", "-h", "-r", "-a", "-j", ",".join(job_ids), "-o", _FORMAT))
    except RefusedError as error:
        if "Invalid job id" not in str(error):
            raise SlurmError(str(error)) from error
    if len(job_ids) == 1:
        return []
    return [element for job in job_ids for element in listed([job])]


def parse_queue(printed: str) -> list[Element]:
    """The jobs that squeue prints in our format."""
    found = []
    for line in printed.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 6 and fields[0]:
            empty = ("None", "N/A", "(null)")
            found.append(Element(*("" if field in empty else field for field in fields)))
    return found


def limits() -> Limits:
    """What the cluster takes. Raises SlurmError or SlurmMissingError."""
    return parse_limits(call("scontrol", "show", "config"), call("scontrol", "-o", "-a", "show", "partition"))


def parse_limits(config: str, partitions: str) -> Limits:
    """The limits in what scontrol prints of the configuration and of the partitions."""
    stated = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", config, re.MULTILINE))

    def number(name: str) -> int | None:
        return int(stated[name]) if stated.get(name, "").isdecimal() else None

    return Limits(number("MaxArraySize"), number("MaxJobCount"), tuple(map(_partition, partitions.splitlines())))


def _partition(line: str) -> Partition:
    stated = dict(re.findall(r"(\w+)=(\S*)", line))
    return Partition(
        name=stated.get("PartitionName", ""),
        is_up=stated.get("State", "UP") == "UP",
        is_default=stated.get("Default") == "YES",
        max_time_s=time_s(stated.get("MaxTime", "")),
        default_time_s=time_s(stated.get("DefaultTime", "")),
    )


def time_s(text: str) -> float | None:
    """A time of SLURM in seconds: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS[:MINUTES[:SECONDS]].

    None for UNLIMITED, NONE and what is no time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, first, second, third = (int(part) if part else 0 for part in match.groups())
    if match[1]:
        return 86_400.0 * days + 3600 * first + 60 * second + third
    return 3600.0 * first + 60 * second + third if match[4] else 60.0 * first + second


def submit(script: str, *options: str, environ: Mapping[str, str] = os.environ) -> str:
    """Submit the text of a script, return the job's id. Raises SlurmError, SlurmMissingError or RefusedError."""
    printed = call("sbatch", "--parsable", *options, text=script, limit_s=3 * ANSWER_S, environ=environ).strip()
    job = printed.splitlines()[-1].partition(";")[0] if printed else ""
    if not job.isdecimal():
        raise SlurmError(f"sbatch printed no number of a job but {printed!r}: see with squeue whether it was submitted")
    return job


def doubt(script: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why no node that works now could run a script, as far as SLURM says; None where one could.

    Of a job that is submitted held SLURM finds that out when it is too late to refuse it. Raises RefusedError where no
    node could ever run it: all nodes work, and none of them is enough.
    """
    try:
        call("sbatch", "--test-only", text=script, environ=environ)
    except RefusedError as error:
        if "configuration is not available" not in str(error):
            return None  # sbatch itself will say it
        if {state.rstrip("*~#!%$@^-") for state in call("sinfo", "-h", "-o", "%t").split()} <= _WORKING:
            raise
        return str(error)
    return None


def release(job: str) -> None:
    """Let a job go that was submitted held. Raises SlurmError."""
    call("scontrol", "release", job)


def cancel(jobs: Collection[str], *options: str) -> None:
    """Cancel jobs; those that are over already do not matter. Raises SlurmError or SlurmMissingError."""
    if jobs:
        call("scancel", *options, *jobs)
