"""How the speed grows with the GPUs of one machine, and what the death of a worker costs.

python -m tests.bench.scaling [--models DIR] [--gpus 1 2 4] [--batches 20] [--turns 2] [--kill] [--rows FILE] [...]
python -m tests.bench.scaling --small        with the tests' fake engine on the CPU, to try this program; keeps nothing

SD 1.5 of full size with random weights (`DIR/sd15`, made if it is not there), 512x512, 20 steps. N GPUs get N times the
prompts in a run of their own, with nothing known before. Speed counts from each worker's second batch on: its images
by its seconds, summed over the workers. Wall-clock is that of the whole command. A run of one batch comes first, which
does not count: the first command on a machine reads Python's and CUDA's libraries from the disk. No two runs meet quite
the same machine, so the crews take turns, 1 2 2 1, and their means are compared. No two GPUs are quite alike, so a
smaller crew takes the first ones in one turn and the last ones in the next. --kill kills a worker of the largest crew
halfway. Rows that FILE holds are kept, so that a measurement that was cut off goes on; give --kill then, too.
"""

import argparse
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from batchgen.events import read_events, seconds_of
from batchgen.machine.gpus import find_gpus
from batchgen.machine.process import identity
from batchgen.memory import cache
from batchgen.memory.placement_bytes import pinned_bytes
from batchgen.paths import RunDir
from tests.bench.ladder import Rows
from tests.bench.record import RESULTS, ROOT, Record
from tests.commands import FAKE, REAL, memory_log, verify, worker_events

STEPS = 20
RATE_GOALS = {2: 1.95, 4: 3.9, 8: 7.7}
WALL_GOALS = {2: 1.9, 4: 3.8, 8: 7.4}
# Of --small: the fake engine sleeps so long for each row of a batch, so two workers are twice as fast on any machine.
SMALL_BATCH, SMALL_ROW_S = 4, 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", type=Path, help="a folder with sd15 in it; without it, one is made for this run only"
    )
    parser.add_argument("--gpus", type=int, nargs="+", help="how many in each run; by default 1, 2, 4 and so on")
    parser.add_argument("--batches", type=int, default=20, help="of each GPU")
    parser.add_argument("--turns", type=int, default=2, help="how often each crew is measured")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", type=Path, default=RESULTS / "scaling.rows.jsonl")
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="batchgen-scaling-") as scratch:
        setting = small(options, Path(scratch)) if options.small else full(options, Path(scratch))
        measure(setting, options, overrides)


def full(options, scratch):
    """The command, its arguments, the GPUs and where the rows are kept."""
    model = (options.models or scratch) / "sd15"
    if not (model / "model_index.json").exists():
        from tests.bench.full_size import make

        make("sd15", model)
    # As wide as torch sees it, in a process of its own: this one must hold no memory of a GPU.
    asked = [sys.executable, "-c", "from tests.bench.record import gpu_name; print(gpu_name())"]
    name = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    job = [
        "job=mars_batch", f"model.path={model.resolve()}", "model.guidance=7.5", "job.width=512", "job.height=512",
        f"job.steps={STEPS}", "job.batch_size=32",
    ]  # fmt: skip
    devices = [gpu.device for gpu in find_gpus()]
    return {"command": REAL, "job": job, "devices": devices, "batch": 32, "name": name, "rows": options.rows}


def small(options, scratch):
    """The same for the fake engine, which needs no GPU."""
    job = ["job=mars_batch", "job.width=64", "job.height=64", f"job.batch_size={SMALL_BATCH}", f"job.steps={STEPS}"]
    os.environ |= {"FAKE_ROW_S": str(SMALL_ROW_S), "FAKE_STEP_S": "0", "CUDA_VISIBLE_DEVICES": ""}
    rows = scratch / "rows.jsonl"
    return {"command": FAKE, "job": job, "devices": ["", ""], "batch": SMALL_BATCH, "name": "fake", "rows": rows}


def measure(setting, options, overrides):
    """Measure each crew, and record it beside the first."""
    counts = sorted(set(options.gpus or powers(len(setting["devices"]))))
    if not counts or counts[-1] > len(setting["devices"]) or counts[0] < 1:
        sys.exit(f"there are {len(setting['devices'])} GPUs here, so --gpus takes 1 to {len(setting['devices'])}")
    record = Record("scaling", setting["name"])
    rows = Rows(setting["rows"], setting["name"])
    key = {"batches": options.batches, "overrides": overrides, "boot": identity()["boot"]}
    warm = {"kind": "first", "gpus": 1} | key | {"batches": 1}
    rows.get(warm, lambda: [crew(setting, 1, warm)])
    found: dict[int, list] = {gpus: [] for gpus in counts}
    for turn in range(options.turns):
        for gpus in counts if turn % 2 == 0 else reversed(counts):
            named = {"kind": "scaling", "gpus": gpus, "turn": turn} | key
            [row] = rows.get(named, lambda gpus=gpus, turn=turn: [crew(setting, gpus, key, from_last=turn % 2 == 1)])
            found[gpus].append(row)
            record.add(**row)
    arguments = f"--gpus {' '.join(map(str, counts))} --batches {options.batches} --turns {options.turns}"
    compare(record, {gpus: together(turns) for gpus, turns in found.items()}, arguments)
    if options.kill and counts[-1] > 1:
        gpus = counts[-1]
        [killed] = rows.get({"kind": "kill", "gpus": gpus} | key, lambda: [crew(setting, gpus, key, kill=True)])
        record.add(**killed)
        bar = functools.partial(record.bar, arguments=f"{arguments} --kill")
        bar(f"{gpus} GPUs, a worker killed halfway: the run is whole", killed["whole"], at_least=1)
        for name in ("work_lost_s", "shard_waited_s", "images_made_twice", "wall_s"):
            bar(f"{gpus} GPUs, a worker killed halfway: {name}", killed[name])
    if options.small:
        record.show()
    else:
        record.write()


def together(turns):
    """The rows of a crew's turns as one: means, and the worst of what is counted."""
    found = {name: statistics.mean(row[name] for row in turns) for name in ("images_per_s", "wall_s")}
    found |= {name: max(row[name] for row in turns) for name in ("probes", "host_rss_bytes_of_all")}
    return found | {"whole": min(row["whole"] for row in turns)}


def powers(most):
    """1, 2, 4 and so on, up to `most`."""
    return [1 << power for power in range(most.bit_length())]


def compare(record, found, arguments):
    """The bars of each crew, against one GPU of the same machine where that was measured."""
    one = found.get(1)
    for gpus, row in found.items():
        bar = functools.partial(record.bar, arguments=arguments)
        bar(f"{gpus} GPUs: the run is whole", row["whole"], at_least=1)
        bar(f"{gpus} GPUs: how often memory was probed", row["probes"], below=2)
        if one is None or gpus == 1:
            continue
        rate = round(row["images_per_s"] / one["images_per_s"], 3)
        wall = round(gpus * one["wall_s"] / row["wall_s"], 3)
        host = round(row["host_rss_bytes_of_all"] / (gpus * one["host_rss_bytes_of_all"]), 3)
        bar(f"{gpus} GPUs: images/s from the second batch on, over those of one", rate, at_least=RATE_GOALS.get(gpus))
        bar(f"{gpus} GPUs: wall-clock, how many times as fast as one", wall, at_least=WALL_GOALS.get(gpus))
        bar(f"{gpus} GPUs: host memory of the workers, over that of as many single ones", host)


def crew(setting, gpus, key, kill=False, from_last=False):
    """A run on so many GPUs, with as many times the prompts: how fast it was, and what it took."""
    devices = setting["devices"][-gpus:] if from_last else setting["devices"][:gpus]
    images = gpus * key["batches"] * setting["batch"]
    with tempfile.TemporaryDirectory(prefix="batchgen-scaling-") as scratch:
        run_dir, prompts = Path(scratch) / "run", Path(scratch) / "prompts.txt"
        prompts.write_text("".join(f"a photo of an astronaut riding horse {place}\n" for place in range(images)))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if any(devices):
            environment |= {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
            environment |= {"BATCHGEN_CACHE": str(Path(scratch) / "cache")}  # nothing is known before
        arguments = [f"run_dir={run_dir}", f"job.prompts={prompts}", f"launch.workers={gpus}", *key["overrides"]]
        arguments += ["launch.restarts=0"] * kill  # another worker goes on with the shard
        began_s = time.time()
        process = subprocess.Popen(
            [*setting["command"], *setting["job"], *arguments],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        killed = kill_halfway(process, RunDir(run_dir), images) if kill else None
        _, said = process.communicate()
        wall_s = round(time.time() - began_s, 2)
        if process.returncode != 0:
            sys.exit(f"{gpus} GPUs: exit code {process.returncode}\n{said}")
        row = {"images": images, "wall_s": wall_s, "whole": int(verify(run_dir).returncode == 0)}
        row |= speed(memory_log(run_dir), began_s, images) | memory(RunDir(run_dir)) | starts(worker_events(run_dir))
        return row if killed is None else row | loss(RunDir(run_dir), killed, images)


def speed(records, began_s, images):
    """Images a second from each worker's second batch on, and what of the time came before and after."""
    assert sum(one["images"] for one in records) == images, "images were lost"
    spans = {}
    for name in sorted({one["worker"] for one in records}):
        mine = sorted((seconds_of(one["started_at"]), one) for one in records if one["worker"] == name)
        first = mine[0][1]
        later = [(at_s, one) for at_s, one in mine if (one["shard"], one["batch"]) != (first["shard"], first["batch"])]
        end_s = max(at_s + one["seconds"] for at_s, one in mine)
        took_s = end_s - later[0][0] if later else 0.0
        made = sum(one["images"] for _, one in later)
        spans[name] = {"began_s": mine[0][0], "end_s": end_s, "images_per_s": made / took_s if took_s else 0.0}
    begins, ends = [[one[what] for one in spans.values()] for what in ("began_s", "end_s")]
    rates = [one["images_per_s"] for one in spans.values()]
    return {
        "images_per_s": round(sum(rates), 3),
        "images_per_s_of_each": [round(rate, 3) for rate in rates],
        "batch_s": stages(records),
        "start_s": round(min(begins) - began_s, 2),  # to the first batch of any worker
        "start_apart_s": round(max(begins) - min(begins), 2),
        "end_apart_s": round(max(ends) - min(ends), 2),
    }


def stages(records):
    """Mean seconds of a batch after the first of a worker, and of its stages."""
    begins: dict = {}
    for one in records:
        begins[one["worker"]] = min(begins.get(one["worker"], one["started_at"]), one["started_at"])
    later = [one for one in records if one["started_at"] > begins[one["worker"]]]
    timed = [{"whole": one["seconds"]} | one["stage_seconds"] for one in later]
    names = sorted({name for one in timed for name in one})
    return {name: round(statistics.mean(one.get(name, 0.0) for one in timed), 3) for name in names}


def memory(run):
    """Each worker's most host memory, and page-locked bytes beside those that its policy should keep."""
    records = memory_log(run.root)
    policy, size = records[-1]["policy"], [int(edge) for edge in _size(run)]
    figures = cache.read(run.figures(records[-1]["device"], *size))
    predicted = None if figures is None else pinned_bytes(figures.weights, policy["placement"])
    workers = sorted({one["worker"] for one in records})
    most = {
        name: [max((one[name] or 0) for one in records if one["worker"] == worker) for worker in workers]
        for name in ("host_rss_bytes", "host_pinned_bytes")
    }
    return most | {
        "host_rss_bytes_of_all": sum(most["host_rss_bytes"]),
        "predicted_pinned_bytes_of_each": predicted,
        "policy": policy,
        "policies_frozen": len([path for path in run.policies.iterdir() if "figures" not in path.name]),
    }


def _size(run):
    prompt = json.loads(run.plan.shard(0).read_text().splitlines()[0])
    return prompt["width"], prompt["height"]


def starts(events):
    """How long the workers loaded, and how often memory was probed."""
    kinds = Counter(event["event"] for event in events)
    loads = [event["seconds"] for event in events if event["event"] == "loaded"]
    return {"load_s": loads, "probes": kinds["probed"], "ooms": kinds["oom"]}


def kill_halfway(process, run, images):
    """Kill a worker in the middle of a batch when half of the images are there; its name, and when that was."""
    while process.poll() is None:
        time.sleep(0.1)
        made = [event for event in worker_events(run.root) if event["event"] == "made"] if run.root.is_dir() else []
        if sum(event["images"] for event in made) < images / 2:
            continue
        path = sorted(run.event_logs())[-1]
        began, *events = read_events(path)
        *_, before_s, last_s = [seconds_of(event["at"]) for event in events if event["event"] == "made"]
        time.sleep((last_s - before_s) / 2)
        os.kill(began["pid"], signal.SIGKILL)
        return path.stem, time.time()
    sys.exit("the run ended before a worker could be killed")


def loss(run, killed, images):
    """What the death of a worker cost: the time of the work that was not kept, and when another took its shard.

    The others pass over the shard until they have nothing else to do.
    """
    name, killed_s = killed
    events = {path.stem: list(read_events(path)) for path in run.event_logs()}
    shards = [event["shard"] for event in events[name] if event["event"] == "shard"]
    done = {event["shard"] for event in events[name] if event["event"] == "commit"}
    lost = shards[-1] if shards[-1] not in done else None
    others = [event for other, told in events.items() if other != name for event in told]
    goes_on = [event for event in others if event["event"] == "shard" and event["shard"] == lost]
    rows_kept = goes_on[-1]["rows_resumed"] if goes_on else 0
    keeps = ("shard", "commit", "made") if rows_kept else ("shard", "commit")
    kept_s = max(seconds_of(event["at"]) for event in events[name] if event["event"] in keeps)
    made = sum(event["images"] for told in events.values() for event in told if event["event"] == "made")
    return {
        "shard_lost": lost,
        "rows_kept": rows_kept,
        "work_lost_s": round(killed_s - kept_s, 2),
        "shard_waited_s": round(seconds_of(goes_on[-1]["at"]) - killed_s, 2) if goes_on else 0.0,
        "images_made_twice": made - images,
    }


if __name__ == "__main__":
    main()
