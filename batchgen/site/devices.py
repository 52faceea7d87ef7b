"""What a machine computes with: its GPUs, as the driver and as torch see them, its cores and its memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from batchgen.errors import DeviceError
from batchgen.machine.gpus import Gpu, find_gpus
from batchgen.machine.versions import versions
from batchgen.site.findings import FAIL, OK, WARN, Finding
from batchgen.units import GIB, count, gib

TORCH_LIMIT_S = 120.0  # torch may be read over a network for the first time
_SMI_LIMIT_S = 10.0
_FEW_CORES, _LITTLE_BYTES = 2, 8 * GIB
# What torch says of itself and of its GPUs: whether a small product of matrices comes out right on each.
_BY_TORCH = """
import json, torch
def right(device):
    ones = torch.ones(256, 256, device=device)
    return bool(((ones @ ones) == 256).all())
found = {"torch": torch.__version__, "cuda": torch.version.cuda or torch.version.hip, "cpu": right("cpu"), "gpus": []}
for place in range(torch.cuda.device_count()):
    try:
        name = torch.cuda.get_device_name(place)
        found["gpus"].append({"name": name, "right": right(f"cuda:{place}"), "why": ""})
    except RuntimeError as error:
        found["gpus"].append({"name": f"GPU {place}", "right": False, "why": str(error).partition(chr(10))[0]})
print(json.dumps(found))
"""


def check_gpus(expected: bool) -> Iterator[Finding]:
    """The GPUs that the driver reports, with what other processes hold. `expected`: this machine is to make images."""
    try:
        gpus = find_gpus()
    except DeviceError as error:
        yield Finding(FAIL, "GPUs", str(error))
        return
    if not gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
        advice = "images are made on the CPU, which takes long" if expected else "srun checks a node: --help says how"
        yield Finding(WARN if expected else OK, "GPUs", f"none here{why}", advice)
        return
    details = _details()
    for gpu in gpus:
        yield _gpu(gpu, details)
    kinds = {gpu.kind for gpu in gpus}
    if len(kinds) > 1:
        yield Finding(WARN, "GPUs", "there are several kinds", "images are the same bit for bit only within a kind")


def _gpu(gpu: Gpu, details: Sequence[dict[str, str]]) -> Finding:
    known = next((one for one in details if gpu.device in (one["index"], one["uuid"])), None)
    said = gpu.kind or gpu.device
    if gpu.free_bytes is not None:
        said += f", {gib(gpu.free_bytes)} free"
    if known is None:
        return Finding(OK, "GPUs", said)
    said += (
        f" of {gib(int(known['total']) << 20) if known['total'].isdigit() else 'its memory'}, driver {known['driver']}"
    )
    others = [f"{one['name']} ({one['used']} MiB)" for one in _processes(known["uuid"])]
    if others:
        return Finding(WARN, "GPUs", f"{said}, in use by {', '.join(others)}", "end them, or less memory is left")
    return Finding(OK, "GPUs", said)


def _details() -> list[dict[str, str]]:
    return _ask("--query-gpu=index,uuid,memory.total,driver_version", ("index", "uuid", "total", "driver"))


def _processes(uuid: str) -> list[dict[str, str]]:
    names = ("uuid", "name", "used")
    return [one for one in _ask("--query-compute-apps=gpu_uuid,process_name,used_memory", names) if one["uuid"] == uuid]


def _ask(query: str, names: Sequence[str]) -> list[dict[str, str]]:
    """What nvidia-smi answers, a row each; empty where it does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, check=False, timeout=_SMI_LIMIT_S,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def check_torch() -> Iterator[Finding]:
    """Whether torch sees the GPUs that the driver reports, and computes rightly on each."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BY_TORCH], capture_output=True, text=True, check=False, timeout=TORCH_LIMIT_S - 10
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        said = f"it did not answer within {TORCH_LIMIT_S - 10:g} s"
        yield Finding(FAIL, "torch", said, "try python -c 'import torch; torch.cuda.init()'")
        return
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding(FAIL, "torch", last, "install batchgen's packages again in this environment")
        return
    yield from torch_findings(found, _given())


def _given() -> int | None:
    """How many GPUs the driver reports; None where that is not known."""
    try:
        return len(find_gpus())
    except DeviceError:
        return None


def torch_findings(found: dict[str, Any], given: int | None) -> Iterator[Finding]:
    """What follows from torch's answer where the driver reports so many GPUs."""
    gpus = found["gpus"]
    others = {name: version for name, version in versions().items() if name not in ("batchgen", "torch")}
    said = f"{found['torch']}, CUDA {found['cuda'] or 'not in this build'}, {count(len(gpus), 'GPU')}"
    said += f" ({', '.join(f'{name} {version}' for name, version in others.items())})"
    if not found["cpu"]:
        yield Finding(FAIL, "torch", "a product of matrices comes out wrong on the CPU", "install torch again")
    for gpu in gpus:
        if not gpu["right"]:
            why = gpu["why"] or "a product of matrices comes out wrong"
            yield Finding(FAIL, "torch", f"{gpu['name']}: {why}", "leave this GPU out by CUDA_VISIBLE_DEVICES")
    if given is not None and given != len(gpus):
        advice = "install a build of torch for this CUDA" if not found["cuda"] else "see whether the driver is too old"
        yield Finding(FAIL, "torch", f"{said}, but the driver reports {given}", advice)
    else:
        yield Finding(OK, "torch", said)


def check_host() -> Iterator[Finding]:
    """The cores and the memory that a process here may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    total = f" of {os.cpu_count()}" if cores != os.cpu_count() else ""
    said = f"{cores}{total} {'core' if cores == 1 and not total else 'cores'}, "
    said += f"{gib(memory.available)} of {gib(memory.total)} of memory free"
    if cores < _FEW_CORES:
        advice = "images are encoded by several threads; under SLURM set launch.slurm.cpus-per-task=8"
        yield Finding(WARN, "host", said, advice)
    elif memory.available < _LITTLE_BYTES:
        yield Finding(
            WARN, "host", said, "a large model needs more while it is loaded; under SLURM set launch.slurm.mem"
        )
    else:
        yield Finding(OK, "host", said)
