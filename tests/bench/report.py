"""The report of a million samples, and of a run of 10,000 pictures: seconds, peak memory and bytes of the page.

The runs are made up: planned from a prompt file as any run is, then their tars, manifests, memory logs and worker logs
are written as workers would have written them, with pictures from a small pool. Each report is made by the command, in
a process of its own. Needs about 25 GB of disk for the time being.

python -m tests.bench.report [--images N]
"""

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from batchgen.files import seal, sha256_bytes, to_json
from batchgen.paths import RunDir
from batchgen.prepare import prepare
from batchgen.shards.index import write_index
from batchgen.shards.records import sample_record
from batchgen.shards.tars import END_OF_TAR, tar_members
from batchgen.types import Sample
from tests.bench.record import ROOT, Record
from tests.builders import make_config

GIB = 1 << 30
BEGAN = datetime(2026, 3, 1, 20, tzinfo=UTC)
UNIT_S = 6.0
POLICY = {"micro_batch": 32, "decode_chunk": 4, "tile_px": 0, "placement": "resident", "dtype": "bf16", "threads": 1}
SUBJECTS = ("an astronaut on a white horse", "a rover beside a crater", "a greenhouse full of tomatoes", "a small dog")
SETTINGS = {
    "scheduler": "EulerDiscreteScheduler",
    "model": "made-up",
    "revision": "2:" + "f0" * 32,
    "batchgen": "0.1.0",
    "device": "NVIDIA H100 80GB HBM3",
    "policy": POLICY,
    "decoded_again_in_fp32": False,
    "safety_checker": "off",
    "flagged": False,
    "status": "ok",
    "cut": "",
    "negative_cut": "",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000, help="of the largest run")
    most = parser.parse_args().images
    record = Record("report")
    for images, edge_px, below_s in ((most, 32, 120), (10_000, 512, 10), (10_000, 1024, None)):
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(Path(scratch), images, edge_px)
        record.add(images=images, edge_px=edge_px, **found)
        what, arguments = f"of {images:,} images of {edge_px} px", f"--images {most}"
        record.bar(f"seconds of the report {what}", found["seconds"], below_s, arguments=arguments)
        record.bar(
            f"peak memory of the report {what}, GiB", round(found["peak_bytes"] / GIB, 3), 2, arguments=arguments
        )
        record.bar(f"report.html {what}, MB", round(found["page_bytes"] / 1e6, 2), 20, arguments=arguments)
    record.write()


def measure(folder, images, edge_px):
    """Make the run up and its report by the command; the figures of that process alone."""
    started = time.perf_counter()
    run = made_up(folder, images, edge_px)
    made_s = round(time.perf_counter() - started, 1)
    load = round(os.getloadavg()[0], 2)
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "batchgen.report", run.root], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the report ended with exit code {process.returncode}")
    report = json.loads(run.report_json.read_text())
    assert report["run"]["state"] == "done", report["run"]
    assert report["samples"]["shown"] == min(images, 1000)
    return {
        "shards": report["totals"]["shards"],
        "failed": report["totals"]["failed"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "load_before": load,
        "peak_bytes": usage.ru_maxrss * 1024,
        "page_bytes": run.report.stat().st_size,
        "facts_bytes": run.report_json.stat().st_size,
        "sheet_bytes": run.contact_sheet.stat().st_size,
        "tar_bytes": report["totals"]["bytes"],
        "made_up_s": made_s,
    }


def made_up(folder, images, edge_px, workers=8):
    """A finished run of so many images: one in a thousand failed. The pictures are those of a pool."""
    config = make_config(folder)
    with Path(config.job.prompts).open("w") as file:
        for row in range(images):
            subject = SUBJECTS[row // 10 % len(SUBJECTS)]
            values = {"prompt": f"a photo of {subject}, take {row}", "subject": subject, "score": row % 97 / 96}
            file.write(json.dumps(values) + "\n")
    config.job.batch_size, config.output.batches_per_shard = 32, 32
    plan = prepare(RunDir(Path(config.run_dir)), config)
    plan.run.create_directories()
    pool = [picture(edge_px, seed) for seed in range(16)]
    for shard in range(plan.shard_count):
        _commit(plan, shard, pool, shard % workers, shard // workers)
    for worker in range(workers):
        _log(plan, worker, range(worker, plan.shard_count, workers))
    write_index(plan)
    return plan.run


def picture(edge_px, seed):
    """A PNG with large shapes and some grain, which takes about the bytes of a photo of that size."""
    chosen = random.Random(seed)
    small = Image.frombytes("RGB", (9, 9), chosen.randbytes(243)).resize((edge_px, edge_px), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((edge_px, edge_px), 6).convert("RGB")
    file = io.BytesIO()
    Image.blend(small, grain, 0.35).save(file, "PNG")
    return file.getvalue()


def _commit(plan, index, pool, worker, turn):
    run, (shard, digest), attempt = plan.run, plan.shard(index), f"{index:032x}"
    header = {"format": 1, "run_id": plan.run_id, "shard": index, "plan_sha256": digest, "computes": 1}
    header |= {"attempt": attempt, "worker": f"node{worker}-0", "process": {"host": f"node{worker}"}}
    began = BEGAN + timedelta(seconds=60 + turn * len(shard.batches) * UNIT_S)
    samples, lines, end = [], [seal(header)], 0
    with run.tar(index).open("wb") as tar:
        for batch in shard.batches:
            made = [_sample(prompt, pool) for prompt in batch.prompts]
            data = b"".join(tar_members(sample) for sample in made if sample.status == "ok")
            tar.write(data)
            facts = [sample_record(sample) for sample in made]
            proof = {"tar_start": end, "tar_end": end + len(data), "sha256": sha256_bytes(data), "samples": facts}
            start = began + timedelta(seconds=batch.index * UNIT_S)
            lines.append(seal(_unit(index, batch, start, worker, attempt) | proof))
            end += len(data)
            samples += facts
        tar.write(END_OF_TAR)
    run.memory_log(index).write_bytes(b"".join(lines))
    size = run.tar(index).stat().st_size
    run.manifest(index).write_bytes(seal(header | {"bytes": size, "sha256": "", "samples": samples}))


def _sample(prompt, pool):
    if prompt.line % 1000 == 0:
        return Sample(prompt.key, "failed", reason="not finite, when decoded in fp32 too")
    settings = {name: getattr(prompt, name) for name in ("seed", "width", "height", "steps", "guidance")}
    facts = {"key": prompt.key, "prompt": prompt.prompt, "negative_prompt": "", **settings, **SETTINGS}
    facts |= {"source": {"file": "prompts.jsonl", "line": prompt.line}, "row_json": json.dumps(prompt.extra)}
    files = {"png": pool[prompt.line % len(pool)], "txt": prompt.prompt.encode(), "json": to_json(facts).encode()}
    return Sample(prompt.key, "ok", files)


def _unit(shard, batch, start, worker, attempt):
    peak = 30 * GIB + shard % 7 * (GIB >> 3)
    return {
        "shard": shard, "batch": batch.index, "first_row": 0, "started_at": start.isoformat(timespec="milliseconds"),
        "worker": f"node{worker}-0", "host": f"node{worker}", "device": "NVIDIA H100 80GB HBM3", "attempt": attempt,
        "images": len(batch.prompts), "seconds": UNIT_S - 0.2,
        "stage_seconds": {"encode": 0.1, "denoise": 4.9, "decode": 0.6, "write": 1.1},
        "micro_batch": 32, "decode_chunk": 4, "policy": POLICY, "predicted_peak_bytes": 31 * GIB,
        "peak_allocated_bytes": peak, "peak_reserved_bytes": peak, "device_free_bytes": 80 * GIB - peak,
        "device_used_bytes": peak + GIB, "host_rss_bytes": 3 * GIB, "host_pinned_bytes": 0, "ooms": 0, "retries": 0,
        "status": "ok", "failed": 0,
    }  # fmt: skip


def _log(plan, worker, shards):
    at, events = BEGAN, []

    def add(event, after_s, **facts):
        nonlocal at
        at += timedelta(seconds=after_s)
        events.append(to_json({"at": at.isoformat(timespec="milliseconds"), "event": event} | facts))

    add("start", 0, rank=worker, world=8, pid=7, host=f"node{worker}", element=None)
    add("loaded", 40, device="NVIDIA H100 80GB HBM3", seconds=40)
    add("policy", 20, width=64, height=64, policy=POLICY)
    for shard in shards:
        add("shard", 0, shard=shard, attempt=f"{shard:032x}", rows_resumed=0)
        for batch, _ in enumerate(plan.shard(shard)[0].batches):
            add("made", UNIT_S, shard=shard, batch=batch, first_row=0, images=32)
        add("commit", 0, shard=shard, attempt=f"{shard:032x}")
    add("end", 1)
    plan.run.worker_log(f"node{worker}-0").write_text("\n".join(events) + "\n")


if __name__ == "__main__":
    if shutil.disk_usage(tempfile.gettempdir()).free < 25e9:
        sys.exit(f"needs 25 GB free in {tempfile.gettempdir()}")
    main()
