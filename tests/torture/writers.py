"""Several commands on one run that are killed, stopped, told to end, or live in other years.

python -m tests.torture.writers FOLDER KIND COUNT     KIND: one of KINDS; prints one JSON object
"""

import json
import os
import random
import re
import signal
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from batchgen import repair
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_USER, EXIT_WHOLE
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.verify import verify
from tests.torture import commands, watch
from tests.torture.commands import Ended, Started, command, committed_files, empty, left_behind, tars, wrongs

LEASE_S = 0.3  # as `commands` sets it
STEP_S = "0.004"
TEN_YEARS_S = 10 * 365 * 24 * 3600
# What only a command may say that wakes up in a run of which a shard was set aside meanwhile.
_WOKEN_SAYS = re.compile(
    r".*No such file or directory.*"
    r"|.* or its directory was removed while it was in use; .*"
    r"|batchgen: no shard is left for the workers here; "
    r"if no other worker makes the last ones, run the same command again"
    r"|batchgen: worker 0: \S+: shard \d{6}'s tar is missing: "
    r"python -m batchgen\.repair \S+ sets the shard aside so that it is made again"
)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Writers:
    """The cases of one folder, and what an undisturbed run is like."""

    def __init__(self, folder):
        self.config = commands.set_up(folder)
        uuid.uuid4 = commands.random_uuid  # names that are the same each time would be the same in two commands
        self.rng = random.Random(folder.name)
        self.run = folder / "disk" / "outputs" / "run"
        os.environ["FAKE_STEP_S"] = STEP_S
        self._begin()
        started = time.monotonic()
        assert command(self.config, self.run).code == EXIT_WHOLE
        self.takes_s = time.monotonic() - started
        self.tars = tars(self.run)

    def _begin(self):
        empty(self.run.parent.parent)
        watch.begin(self.run.parent.parent)

    def kills(self, count):
        """Two commands at a time, each killed with its worker at a random moment and begun again."""
        problems, killed = [], 0
        while killed < count:
            self._begin()
            problems += self._killed(self.rng.randint(2, 8))
            killed += self._kills
        return problems, killed

    def _killed(self, most):
        # One run, in which at most so many commands are killed
        found: list[str] = []
        seen: dict[str, bytes] = {}
        self._kills, running = 0, [Started(self.config, self.run) for _ in range(2)]
        while running:
            victim = self.rng.choice(running)
            running.remove(victim)
            if self._kills < most:
                time.sleep(self.rng.uniform(0, 0.7 * self.takes_s))
                victim.signal(signal.SIGKILL, everybody=True)
            ended = victim.ended()
            self._kills += ended.code == -signal.SIGKILL
            found += ended.problems((EXIT_WHOLE, -signal.SIGKILL))
            now = committed_files(self.run) if self.run.exists() else {}
            found += [f"committed {name} changed" for name, data in seen.items() if now.get(name) != data]
            seen = now
            if ended.code != EXIT_WHOLE:
                running.append(Started(self.config, self.run))
        return found + self._whole()

    def stops(self, count):
        """Two, four or eight commands; some are stopped until others have taken over, and then go on."""
        problems = []
        for number in range(count):
            self._begin()
            running = [Started(self.config, self.run) for _ in range((2, 4, 8)[number % 3])]
            time.sleep(self.rng.uniform(0, self.takes_s))
            stopped = running[: len(running) // 2]
            for one in stopped:
                one.signal(signal.SIGSTOP, everybody=True)
            time.sleep(self.rng.uniform(1.2, 2.5) * LEASE_S)
            for one in stopped:
                one.signal(signal.SIGCONT, everybody=True)
            problems += [problem for one in running for problem in one.ended().problems((EXIT_WHOLE,))]
            problems += self._whole()
        return problems, count

    def repairs(self, count):
        """A command is stopped; another finishes; a tar is damaged and set aside; then the first wakes up."""
        problems = []
        for _ in range(count):
            self._begin()
            sleeper = Started(self.config, self.run)
            time.sleep(self.rng.uniform(0.3, 1.0) * self.takes_s)
            sleeper.signal(signal.SIGSTOP, everybody=True)
            problems += command(self.config, self.run).problems((EXIT_WHOLE,))
            victim = self.rng.choice(sorted(self.run.glob("shards/*.tar")))
            data = bytearray(victim.read_bytes())
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            victim.write_bytes(data)
            problems += self._repaired()
            sleeper.signal(signal.SIGCONT, everybody=True)
            problems += self._woken(sleeper.ended())
            problems += command(self.config, self.run).problems((EXIT_WHOLE,))
            problems += self._whole(damaged=True)
        return problems, count

    def _repaired(self):
        said = self.run.parents[2] / "repair.stderr"
        repaired = os.fork()
        if repaired == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            repair.repair(RunDir(self.run))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(repaired, 0)[1])
        # Who sleeps may hold a lease that has not run out yet: repair says that it waits.
        rest = [line for line in said.read_text().splitlines(True) if "workers may be running" not in line]
        return Ended(code, "".join(rest)).problems((EXIT_WHOLE,))

    def _woken(self, ended):
        # Repair is promised the run for itself: who wakes up in it may find files gone, and says which.
        rest = "".join(f"{line}\n" for line in ended.stderr.splitlines() if not _WOKEN_SAYS.fullmatch(line))
        return Ended(ended.code, rest).problems((EXIT_WHOLE, EXIT_BROKEN, EXIT_INTERRUPTED))

    def signals(self, count):
        """A command is told to end at a random moment, sometimes twice; the same command goes on."""
        problems = []
        for number in range(count):
            self._begin()
            asked = ENDING[number % len(ENDING)]
            one = Started(self.config, self.run)
            time.sleep(self.rng.uniform(0, 1.1 * self.takes_s))
            one.signal(asked)
            if asked == signal.SIGINT and number % 2:
                time.sleep(self.rng.uniform(0, 0.1 * self.takes_s))
                one.signal(asked)
            # Before it listens, a signal ends a process as it ends any.
            problems += one.ended().problems((EXIT_WHOLE, EXIT_INTERRUPTED, -asked))
            problems += command(self.config, self.run).problems((EXIT_WHOLE,))
            problems += self._whole()
        return problems, count

    def clocks(self, count):
        """Between commands all files' times jump by ten years, back or ahead; two commands then share the rest."""
        problems = []
        for number in range(count):
            self._begin()
            one = Started(self.config, self.run)
            time.sleep(self.rng.uniform(0.2, 0.9) * self.takes_s)
            one.signal(signal.SIGKILL, everybody=True)
            problems += one.ended().problems((EXIT_WHOLE, -signal.SIGKILL))
            jumped = time.time() + (TEN_YEARS_S if number % 2 else -TEN_YEARS_S)
            for path in self.run.parent.rglob("*"):
                os.utime(path, (jumped, jumped))
            both = [Started(self.config, self.run) for _ in range(2)]
            problems += [problem for one in both for problem in one.ended().problems((EXIT_WHOLE,))]
            problems += self._whole()
        return problems, count

    def extends(self, count):
        """While a run is under way or just ending, three commands at once extend it by the same files or some of them.

        Each plans its rows, or says what it does not know; with all files named, every row is there once.
        """
        problems = []
        more = [self.run.parents[2] / name for name in ("more-1.txt", "more-2.txt")]
        for place, path in enumerate(more):
            path.write_text("".join(f"a dome on mars, take {place} {number}\n" for number in range(4)))
        prompts = [*commands.PROMPTS, *(line for path in more for line in path.read_text().splitlines())]
        some, both = self._longer(more[:1]), self._longer(more)
        for _ in range(count):
            self._begin()
            first = Started(self.config, self.run)
            while not (self.run / "plan").is_dir():
                time.sleep(0.002)
            time.sleep(self.rng.uniform(0, self.takes_s))
            running = [Started(config, self.run) for config in self.rng.sample([some, both, both], 3)]
            problems += first.ended().problems((EXIT_WHOLE,))
            problems += [problem for one in running for problem in one.ended().problems((EXIT_WHOLE, EXIT_USER))]
            problems += command(both, self.run).problems((EXIT_WHOLE,))
            problems += self._holds(prompts)
        return problems, count

    def _longer(self, more):
        job = replace(self.config.job, prompts=[self.config.job.prompts, *map(str, more)])
        return replace(self.config, job=job, extend=True)

    def _holds(self, prompts):
        # What is wrong with a run that has these prompts, each once, in this order
        plan = load_plan(RunDir(self.run))
        findings = verify(plan)
        planned = list(plan.prompts())
        found = [f"verify: {problem}" for problem in findings.problems + findings.warnings]
        if [prompt.prompt for prompt in planned] != prompts:
            found.append(f"{len(planned)} prompts are planned, not each row once")
        if sorted(findings.keys.elements()) != sorted(prompt.key for prompt in planned):
            found.append("the keys are not those that were planned, each once")
        return found + [f"{name} is left" for name in left_behind(self.run)]

    def takes(self, count):
        """A tar is taken away while a command is at work, or after it: never 'done' until it is back."""
        problems = []
        for _ in range(count):
            self._begin()
            one = Started(self.config, self.run)
            while not list(self.run.glob("shards/*.tar")):
                time.sleep(0.002)
            time.sleep(self.rng.uniform(0, self.takes_s))
            tar = self.rng.choice(sorted(self.run.glob("shards/*.tar")))
            aside = self.run.parents[2] / tar.name
            tar.rename(aside)
            problems += one.ended().problems((EXIT_WHOLE, EXIT_BROKEN))  # whole, if it was taken after the end
            left = tars(self.run)
            problems += command(self.config, self.run).problems((EXIT_BROKEN,))
            problems += [f"{name} was changed or made again" for name in tars(self.run).keys() ^ left.keys()]
            aside.rename(tar)
            problems += command(self.config, self.run).problems((EXIT_WHOLE,))
            problems += self._whole()
        return problems, count

    def _whole(self, damaged=False):
        # What is wrong with the run, now that a command said that it is whole
        found = wrongs(self.run, self.tars)
        left = [name for name in left_behind(self.run) if not (damaged and name.startswith("damaged"))]
        if left and command(self.config, self.run).code == EXIT_WHOLE:
            left = [name for name in left_behind(self.run) if name.startswith("work")]
        return found + [f"{name} is left" for name in left]


KINDS = ("kills", "stops", "repairs", "signals", "clocks", "extends", "takes")


def main():
    folder, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    assert kind in KINDS
    started = time.monotonic()
    problems, done = getattr(Writers(folder), kind)(count)
    print(
        json.dumps({"kind": kind, "done": done, "problems": problems, "seconds": round(time.monotonic() - started, 1)})
    )


if __name__ == "__main__":
    main()
