"""The machine's GPUs, found without torch: nvidia-smi lists them, and CUDA_VISIBLE_DEVICES says which may be used."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

from batchgen.errors import DeviceError

_FIELDS = ("index", "uuid", "name", "memory.free", "compute_cap")
_LIMIT_S = 60.0
# nvidia-smi's exit codes that mean a machine without a GPU: none found, no driver, no library of a driver.
_NO_GPU = (0, 6, 9, 12)
# For a GPU that nothing is known about, or whose driver is too old to tell (before 510): everything but bf16 works.
_OLD_CAPABILITY = (7, 0)


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

    Raises DeviceError if nvidia-smi does not answer and nothing else says which GPUs there are.
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
        if name in ("", "-1"):
            return
        found = [
            gpu for index, gpu in known if gpu.device.startswith(name) or (in_order and index == name)
        ]  # a uuid may be cut short
        yield replace(found[0], device=name) if len(found) == 1 else Gpu(name)


def _ask() -> list[tuple[str, Gpu]]:
    """nvidia-smi's number for each GPU, and what it reports about it; empty if there is no GPU or no driver.

    A card that is broken is left out. Raises DeviceError if nvidia-smi fails for another reason.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    for fields in (_FIELDS, _FIELDS[:-1]):  # an old driver does not know compute_cap
        answer = _query(fields)
        rows = [[part.strip() for part in line.split(",")] for line in answer.stdout.splitlines()]
        if found := [(row[0], _parse(row)) for row in rows if len(row) == len(fields) and row[0].isdigit()]:
            return found
    if answer.returncode not in _NO_GPU:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise DeviceError(
            f"nvidia-smi failed, so the GPUs of this machine cannot be used ({said}): fix that, or set "
            "CUDA_VISIBLE_DEVICES to an empty value to compute on the CPU"
        )
    return []


def _query(fields: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"nvidia-smi did not answer within {_LIMIT_S:g} s, so the GPUs of this machine are not known: find out "
            "what holds it up, or set CUDA_VISIBLE_DEVICES to the GPUs to use"
        ) from None


def _parse(row: list[str]) -> Gpu:
    index, uuid, kind, free_mib = row[:4]
    major, _, minor = (row[4] if len(row) > 4 else "").partition(".")
    return Gpu(
        uuid if uuid.startswith(("GPU-", "MIG-")) else index,
        kind,
        int(free_mib) << 20 if free_mib.isdigit() else None,
        (int(major), int(minor)) if major.isdigit() and minor.isdigit() else _OLD_CAPABILITY,
    )
