"""sbatch, squeue, scontrol, sinfo and scancel of a cluster that runs nothing: jobs wait until a test moves them.

`install(folder)` puts the commands into folder/bin; the state is folder/jobs.json, a test changes it by `Queue`.
"""

import fcntl
import json
import os
import sys
from pathlib import Path

PARTITIONS = (
    "PartitionName=gpu Default=YES DefaultTime=01:00:00 MaxTime=1-00:00:00 State=UP\n"
    "PartitionName=cpu Default=NO DefaultTime=NONE MaxTime=UNLIMITED State=UP\n"
)


class Queue:
    """The jobs of the fake cluster."""

    def __init__(self, folder):
        self.folder = folder
        self._file = folder / "jobs.json"

    def read(self):
        return json.loads(self._file.read_text()) if self._file.exists() else {"next": 100, "jobs": {}, "calls": []}

    def write(self, state):
        self._file.write_text(json.dumps(state))

    def jobs(self):
        """{id: job}, the elements of an array as a list of states."""
        return self.read()["jobs"]

    def set_states(self, job, states):
        state = self.read()
        state["jobs"][job]["states"] = states
        self.write(state)

    def says(self, **answers):
        """What commands answer with: {command: (exit code, stderr)}."""
        (self.folder / "answers.json").write_text(json.dumps(answers))


def install(folder):
    """Make the commands; return their folder for PATH, and the queue."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo"):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} {folder} "$@"\n')
        script.chmod(0o755)
    return binaries, Queue(folder)


def main():
    command, folder, *arguments = sys.argv[1:]
    lock = os.open(Path(folder, "lock"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends
    queue = Queue(Path(folder))
    answers = Path(folder, "answers.json")
    told = json.loads(answers.read_text()).get(command) if answers.exists() else None
    if told and not ("--test-only" in arguments and command == "sbatch"):
        print(told[1], file=sys.stderr)
        sys.exit(told[0])
    state = queue.read()
    state["calls"].append([command, *arguments])
    options = dict(one.lstrip("-").partition("=")[::2] for one in arguments if one.startswith("--"))
    if command == "sbatch" and "test-only" not in options:
        job, state["next"] = str(state["next"]), state["next"] + 1
        last = int(options.get("array", "0-0").partition("%")[0].partition("-")[2])
        reason = "JobHeldUser" if "hold" in options else "None"
        state["jobs"][job] = {
            "script": sys.stdin.read(), "states": ["PENDING"] * (last + 1), "reason": reason,
            "is_array": "array" in options, "dependency": options.get("dependency", ""), "array": options.get("array"),
        }  # fmt: skip
        print(f"{job};test")
    elif command == "scontrol" and arguments[0] == "release":
        state["jobs"][arguments[1]]["reason"] = "Resources"
    elif command == "scontrol":
        print(
            "MaxArraySize            = 1001\nMaxJobCount             = 10000" if "config" in arguments else PARTITIONS
        )
    elif command == "scancel":
        for job in [one for one in arguments if one.isdecimal()]:
            old = state["jobs"][job]["states"]
            kept = ["RUNNING"] if "--state=PENDING" in arguments else []
            state["jobs"][job]["states"] = [one if one in kept else "CANCELLED" for one in old]
    elif command == "squeue":
        _squeue(state, arguments[arguments.index("-j") + 1].split(","))
    queue.write(state)


def _squeue(state, jobs):
    for job in jobs:
        for number, element in enumerate(state["jobs"].get(job, {"states": []})["states"]):
            one = state["jobs"][job]
            name = f"{job}_{number}" if one["is_array"] else job
            reason = one["reason"] if element == "PENDING" else "None"
            print(f"{name}|{element}|{reason}|{'node1' if element == 'RUNNING' else ''}|N/A|gpu")


if __name__ == "__main__":
    os.umask(0o022)
    main()
