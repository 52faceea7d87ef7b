"""The machine's GPUs: nvidia-smi lists them, and CUDA_VISIBLE_DEVICES says which may be used. No torch in here.

Only where a driver is there and nvidia-smi is not, torch is asked, in a process of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from batchgen.errors import DeviceError

_FIELDS = ("index", "uuid", "name", "memory.free", "compute_cap", "mig.mode.current")
_FEWEST_FIELDS = 4  # an old driver does not know the last ones
_LIMIT_S = 60.0
# nvidia-smi's exit codes that mean a machine without a GPU: none found, no driver, no library of a driver.
_NO_GPU = (0, 6, 9, 12)
# For a GPU that nothing is known about, or whose driver is too old to tell (before 510): everything but bf16 works.
_OLD_CAPABILITY = (7, 0)
# What CUDA_VISIBLE_DEVICES may hold. SLURM writes NoDevFiles where a job has no GPU.
_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")
_NO_DEVICES = ("nodevfiles", "none", "void")
# Slices of a card, as `nvidia-smi -L` lists them below it.
_CARD = re.compile(r"GPU (\d+): ")
_SLICE = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")
# nvidia-smi where PATH often lacks it, and the devices of a driver.
_ELSEWHERE = ("/usr/lib/wsl/lib", "/usr/local/nvidia/bin", "/usr/bin")
_DEVICES, _DEVICE_NAMES = Path("/dev"), ("nvidia[0-9]*", "dxg")
_BY_TORCH = """
import json, torch
count = torch.cuda.device_count()
about = [torch.cuda.get_device_properties(place) for place in range(count)]
free = [torch.cuda.mem_get_info(place)[0] for place in range(count)]
print(json.dumps([[str(one.uuid), one.name, free[place], [one.major, one.minor]] for place, one in enumerate(about)]))
"""

# The device of a GPU that is only assumed.
ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use.

    `device` is its name in CUDA_VISIBLE_DEVICES. `kind`, its model's name (the same as torch gives), and `free_bytes`
    are None if nvidia-smi did not report them.
    """

    device: str
    kind: str | None = None
    free_bytes: int | None = None
    capability: tuple[int, int] = _OLD_CAPABILITY


def find_gpus() -> list[Gpu]:
    """The GPUs that this process may use; empty if there are none, or if CUDA_VISIBLE_DEVICES hides them.

    Raises DeviceError if nvidia-smi does not answer and nothing else says which GPUs there are, and if
    CUDA_VISIBLE_DEVICES holds what CUDA does not read as a GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        # They are named by uuid, because CUDA numbers them differently from nvidia-smi, which goes by the bus.
        return [gpu for _, gpu in _ask()]
    return list(_named(visible)) if visible.strip() else []


def check_reached(reached: bool, why_not: str) -> None:
    """Refuse to continue without the GPU that this process was given, because the CPU would make other images.

    `reached` is whether torch can use a GPU, and `why_not` what it says if it cannot. Raises DeviceError.
    """
    given = [] if reached else find_gpus()
    if given:
        names = ", ".join(gpu.device if gpu.kind is None else f"{gpu.device} ({gpu.kind})" for gpu in given)
        raise DeviceError(
            f"torch cannot use the GPU that this worker was given, {names}: {why_not}. Fix that, or set "
            "CUDA_VISIBLE_DEVICES to other GPUs, or leave it empty to compute on the CPU"
        )


def _named(visible: str) -> Iterator[Gpu]:
    """The GPUs in a list as CUDA reads it: names after an empty one or -1 do not count."""
    try:
        known = _ask()
    except DeviceError:
        known = []
    # CUDA puts the fastest first unless told otherwise, so with different GPUs its numbers mean nothing here.
    in_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.kind for _, gpu in known}) == 1
    for name in (part.strip() for part in visible.split(",")):
        if name in ("", "-1") or name.lower() in _NO_DEVICES:
            return
        if not _NAME.fullmatch(name):
            raise DeviceError(
                f"CUDA_VISIBLE_DEVICES={visible}: {name} names no GPU: set it to numbers such as 0,1, or to uuids as "
                "`nvidia-smi -L` lists them, or leave it empty to compute on the CPU"
            )
        found = [
            gpu for index, gpu in known if gpu.device.startswith(name) or (in_order and index == name)
        ]  # a uuid may be cut short
        yield replace(found[0], device=name) if len(found) == 1 else Gpu(name)


def _ask() -> list[tuple[str, Gpu]]:
    """nvidia-smi's number for each GPU, and what it reports about it; empty if there is no GPU or no driver.

    A card that is broken is left out; one that is cut into slices (MIG) stands here as its slices. Raises DeviceError
    if nvidia-smi fails for another reason.
    """
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=os.pathsep.join(_ELSEWHERE))
    if program is None:
        has_driver = any(any(_DEVICES.glob(names)) for names in _DEVICE_NAMES)
        return list(_ask_torch()) if has_driver else []
    for count in range(len(_FIELDS), _FEWEST_FIELDS - 1, -1):
        answer = _query(program, f"--query-gpu={','.join(_FIELDS[:count])}", "--format=csv,noheader,nounits")
        rows = [[part.strip() for part in line.split(",")] for line in answer.stdout.splitlines()]
        rows = [row for row in rows if len(row) == count and row[0].isdigit()]
        if rows:
            cut = any(row[5:] == ["Enabled"] for row in rows)
            slices = _slices(program) if cut else {}
            return [one for row in rows for one in _parsed(row, slices.get(row[0], []))]
    if answer.returncode not in _NO_GPU:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise DeviceError(
            f"nvidia-smi failed, so the GPUs of this machine cannot be used ({said}): fix that, or set "
            "CUDA_VISIBLE_DEVICES to an empty value to compute on the CPU"
        )
    return []


def _query(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"nvidia-smi did not answer within {_LIMIT_S:g} s, so the GPUs of this machine are not known: find out "
            "what holds it up, or set CUDA_VISIBLE_DEVICES to the GPUs to use"
        ) from None


def _slices(program: str) -> dict[str, list[str]]:
    """The uuids of each card's slices, by nvidia-smi's number of the card."""
    found: dict[str, list[str]] = {}
    card = ""
    for line in _query(program, "-L").stdout.splitlines():
        if match := _CARD.match(line):
            card = match[1]
        elif match := _SLICE.match(line):
            found.setdefault(card, []).append(match[1])
    return found


def _parsed(row: list[str], slices: list[str]) -> list[tuple[str, Gpu]]:
    index, uuid, kind, free_mib = row[:4]
    major, _, minor = (row[4] if len(row) > 4 else "").partition(".")
    card = Gpu(
        uuid if uuid.startswith(("GPU-", "MIG-")) else index,
        kind,
        int(free_mib) << 20 if free_mib.isdigit() else None,
        (int(major), int(minor)) if major.isdigit() and minor.isdigit() else _OLD_CAPABILITY,
    )
    # nvidia-smi does not report a slice's memory, so a worker measures it.
    return [(index, Gpu(one, capability=card.capability)) for one in slices] or [(index, card)]


def _ask_torch() -> Iterator[tuple[str, Gpu]]:
    """The GPUs in CUDA's own order. There are none where torch cannot be asked."""
    everything = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BY_TORCH], capture_output=True, text=True, check=True, timeout=_LIMIT_S,
            env=everything,
        )  # fmt: skip
        listed = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"torch did not list the GPUs of this machine within {_LIMIT_S:g} s, and nvidia-smi is not installed: set "
            "CUDA_VISIBLE_DEVICES to the GPUs to use, or leave it empty to compute on the CPU"
        ) from None
    except (subprocess.CalledProcessError, ValueError):
        return
    for place, (uuid, kind, free_bytes, (major, minor)) in enumerate(listed):
        yield str(place), Gpu(f"GPU-{uuid.removeprefix('GPU-')}", kind, free_bytes, (major, minor))
