"""Page-locked memory of the host: what is counted beside what is locked, under each placement, and what is left of it.
And whether a trial of one image changes what the next job chooses.

python -m tests.bench.pinned [--models MODELS] [--only sd15] [--small]     one GPU

MODELS/sd15 and MODELS/sdxl are made by full_size.py where they are not there yet. --small: the bundled model on
whatever device there is, to see that this program runs; nothing is written.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil

from batchgen.events import EventLog, read_events
from batchgen.machine.meters import read_meters
from batchgen.machine.pinned import locked_bytes
from batchgen.memory.frozen import Policies, task_of
from batchgen.memory.measure import guess
from batchgen.memory.placement_bytes import pinned_bytes
from batchgen.memory.worth import image_s
from batchgen.places import models_dir
from batchgen.policy import Policy
from batchgen.shards.leases import Watch
from batchgen.worker.loop import load_engine
from tests.bench import full_size
from tests.bench.record import Record, gpu_name
from tests.builders import make_prompt, plan_run

GIB = 1 << 30
SIZES_PX = {"sd15": 512, "sdxl": 1024, "tiny": 64}
PLACEMENTS = (
    "text_offload", "model_offload", "weight_streaming", "group_offload_block", "group_offload_leaf",
    "sequential_offload",
)  # fmt: skip
OFF_GOAL, LEFT_GOAL_GIB, SHARE_GOAL = 0.05, 0.01, 0.05
STEPS = 30
# Of the jobs after the trial: one that is over before a probe would pay, and a night's
JOBS = {"sd15": (320, 20_000), "sdxl": (320,), "tiny": (320,)}


def planned(folder, size_px, images, scratch):
    """A planned run of so many images of the model in `folder`."""
    scratch.mkdir(parents=True)
    prompts = [f"an astronaut on mars, take {place}" for place in range(images)]
    return plan_run(
        scratch, prompts, model__path=str(folder), model__size_px=size_px, job__width=size_px, job__height=size_px,
        job__steps=STEPS, job__batch_size=32, output__batches_per_shard=32,
    )  # fmt: skip


def made(engine, policy, size_px):
    """The sha256 of an image's pixels under this policy."""
    policy, _ = engine.prepare(policy)
    prompts = [make_prompt("pinned", seed=7, width=size_px, height=size_px, steps=2)]
    engine._texts.clear()  # a text that is known from before would leave the text encoders where they are
    for _ in range(2):  # streaming learns an order first
        latents = engine.denoise(engine.encode(prompts), prompts, policy)
    (image,) = engine.decode(latents, policy)
    return hashlib.sha256(image.pixels or b"").hexdigest()


def status_gib(name):
    """A line of this process's status, in GiB; None where the system has no such line."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return round(found[0] * 1024 / GIB, 3) if found else None


def pinned_weights_bytes(engine):
    """Bytes of the pipeline's weights in host memory that torch says is pinned; each storage once."""
    parts = [part for part in engine._pipe.components.values() if hasattr(part, "parameters")]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor.device.type == "cpu" and tensor.is_pinned()
    }
    return sum(storages.values())


def place(engine, weights, placement, size_px):
    """A row: the weights under this placement."""
    before_rss = psutil.Process().memory_info().rss
    policy = Policy(1, 1, 0, placement, engine.dtype, 4)
    started = time.monotonic()
    digest = made(engine, policy, size_px)
    seconds = time.monotonic() - started
    engine._model._placement.leave()  # all weights wait; hooks have put theirs back by themselves
    counted = pinned_bytes(weights, placement)
    locked = read_meters().host_pinned_bytes or 0
    row = {
        "placement": placement,
        "counted_gib": round(counted / GIB, 3),
        "locked_gib": round(locked / GIB, 3),
        "locked_by_torch_gib": round((locked - locked_bytes()) / GIB, 3),
        "weights_that_torch_calls_pinned_gib": round(pinned_weights_bytes(engine) / GIB, 3),
        "off_percent": round(100 * (locked / counted - 1), 2),
        "vm_lck_gib": status_gib("VmLck"),
        "vm_pin_gib": status_gib("VmPin"),
        "host_rss_grown_gib": round((psutil.Process().memory_info().rss - before_rss) / GIB, 3),
        "load_and_image_s": round(seconds, 2),
    }
    engine._model.reload()
    row["left_gib"] = round((read_meters().host_pinned_bytes or 0) / GIB, 3)
    return row, digest


def crossing(engine):
    """Bytes a second of the UNet's weights on their way to the device, as model offload brings them in."""
    engine.prepare(Policy(1, 1, 0, "model_offload", engine.dtype, 4))
    torch = sys.modules["torch"]
    taken_s = []
    for _ in range(3):
        engine._model.enter("encode")
        _synchronize(torch)
        started = time.perf_counter()
        engine._model.enter("denoise")
        _synchronize(torch)
        taken_s.append(time.perf_counter() - started)
    size_bytes = sum(one.numel() * one.element_size() for one in engine._pipe.unet.parameters())
    return size_bytes / min(taken_s)


def _synchronize(torch):
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def empty_cache(folder):
    """Within it, nothing is known of any model but what is found within it."""
    before = os.environ.get("BATCHGEN_CACHE")
    os.environ["BATCHGEN_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("BATCHGEN_CACHE")
        os.environ |= {} if before is None else {"BATCHGEN_CACHE": before}


def chosen(engine, folder, size_px, images, scratch):
    """(policy, facts) of a job of so many images, as a worker's first look at it gives them."""
    plan = planned(folder, size_px, images, scratch)
    log = EventLog(plan.run.worker_log("bench"))
    policies = Policies(plan, engine, log, "bench", Watch(60), threading.Event())
    engine._model.reload()
    started = time.monotonic()
    policy = policies.of(size_px, size_px)
    seconds = time.monotonic() - started
    policies.predicted_bytes(policy, size_px, size_px)  # has it read the figures
    log.close()
    events = [event["event"] for event in read_events(plan.run.worker_log("bench"))]
    facts = {"images": images, "probed": "probed" in events, "choosing_s": round(seconds, 2)}
    task, figures = task_of(plan.config, size_px, size_px), policies._figures.get((size_px, size_px))
    if figures is not None:
        facts["job_s"] = round(images * image_s(figures, task))
    return asdict(policy), facts


def after_a_trial(record, engine, model, folder, scratch):
    """Rows and bars: jobs with an empty cache, and after a trial of one image."""
    size_px = SIZES_PX[model]
    for images in JOBS[model]:
        with empty_cache(scratch / f"cache-{images}"):
            without, alone = chosen(engine, folder, size_px, images, scratch / f"alone-{images}")
        with empty_cache(scratch / f"cache-trial-{images}"):
            _, trial = chosen(engine, folder, size_px, 1, scratch / f"trial-{images}")
            after, second = chosen(engine, folder, size_px, images, scratch / f"after-{images}")
        record.add(model=model, trial=trial, job=second, job_alone=alone, policy=after, policy_alone=without)
        what = f"fields of the policy that differ, {model}, {images} images after a trial of one and without it"
        differ = [field for field in after if after[field] != without[field]]
        record.bar(what, len(differ), below=1)
        if alone["probed"] and "job_s" in alone:
            share = round(alone["choosing_s"] / alone["job_s"], 4)
            record.bar(f"share of the job's time that its probe took, {model}, {images} images", share, SHARE_GOAL)


def placements(record, engine, weights, model):
    """Rows and bars: weights under each placement that locks memory."""
    size_px, on_gpu = SIZES_PX[model], engine.gauge is not None
    expected = made(engine, Policy(1, 1, 0, "resident", engine.dtype, 4), size_px)
    engine._model.reload()
    off, left, same = [], [], []
    for placement in PLACEMENTS:
        row, digest = place(engine, weights, placement, size_px)
        same.append(digest == expected)
        record.add(model=model, **row, same_pixels=same[-1])
        off.append(abs(row["off_percent"]) / 100)
        left.append(row["left_gib"])
    rate = crossing(engine)
    engine._model.reload()
    record.add(model=model, unet_crosses_gib_per_s=round(rate / GIB, 2))
    record.bar(f"placements whose pixels differ from resident's, {model}", same.count(False), below=1)
    if on_gpu:
        record.bar(f"locked bytes beside those counted, {model}, the placement that is most off", max(off), OFF_GOAL)
        record.bar(f"GiB still locked after a reload, {model}, at most", max(left), LEFT_GOAL_GIB)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only", choices=("sd15", "sdxl"))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    record = Record("pinned", gpu_name())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as scratch:
        names = ["tiny"] if options.small else [options.only] if options.only else ["sd15", "sdxl"]
        for model in names:
            folder = models_dir() / "tiny" if options.small else (options.models or Path(scratch)) / model
            if not (folder / "model_index.json").exists():
                full_size.make(model, folder)
            own = Path(scratch) / f"runs-{model}"
            plan = planned(folder, SIZES_PX[model], 1, own / "load")
            engine = load_engine(plan)
            weights = guess(plan, engine.dtype, SIZES_PX[model], SIZES_PX[model]).weights
            placements(record, engine, weights, model)
            after_a_trial(record, engine, model, folder, own)
            del engine
    if not options.small:
        record.write()


if __name__ == "__main__":
    main()
