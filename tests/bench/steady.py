"""Whether memory grows over many batches: host and device, batch by batch, and the slope through them.

python -m tests.bench.steady [--batches 300] [--rows 32] [--name NAME] [key=value ...for batchgen]

The carried model under model offload, two steps; --rows: of a batch.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.bench.record import Record, command, gpu_name
from tests.commands import memory_log

MIB = 1 << 20
WARM_SHARE = 0.1  # of the batches, at the start: caches fill
GROWTH_GOAL_MIB = 0.05  # a batch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--name", default="steady")
    parser.add_argument("arguments", nargs="*", metavar="key=value")
    options = parser.parse_args()
    record = Record(options.name, gpu_name())
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.txt"
        images = options.batches * options.rows
        lines = [f"a photo of an astronaut riding horse number {place}" for place in range(images)]
        prompts.write_text("\n".join(lines) + "\n")
        run_dir = Path(scratch) / "run"
        given = (f"job.prompts={prompts}", f"run_dir={run_dir}", "job.steps=2", f"job.batch_size={options.rows}")
        policy = ("memory.policy.placement=model_offload", *options.arguments)
        wall_s = command("batchgen", "job=mars_batch", *given, *policy, gpu=True)
        units = memory_log(run_dir)
    assert len(units) == options.batches
    record.add(batches=len(units), rows=options.rows, wall_s=wall_s, arguments=list(policy))
    for name in ("host_rss_bytes", "device_used_bytes", "peak_reserved_bytes", "host_pinned_bytes"):
        values = np.array([unit[name] for unit in units[int(len(units) * WARM_SHARE) :] if unit[name] is not None])
        if len(values):
            slope_mib = float(np.polyfit(np.arange(len(values)), values / MIB, 1)[0])
            first, last = (round(float(part.mean()) / MIB, 1) for part in (values[:20], values[-20:]))
            record.add(figure=name, first_mib=first, last_mib=last, slope_mib_a_batch=round(slope_mib, 5))
            what, asked = f"growth of {name} in MiB a batch", shlex.join(sys.argv[1:])
            record.bar(what, round(slope_mib, 5), below=GROWTH_GOAL_MIB, arguments=asked)
    record.write()


if __name__ == "__main__":
    main()
