"""The machine's GPUs, asked without torch: nvidia-smi knows them, and CUDA_VISIBLE_DEVICES says which may be used."""

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
# Of a GPU that nothing is known of, or whose driver is too old to say (before 510): on it all but bf16 works.
_OLD_CAPABILITY = (7, 0)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use.

    `device` is how CUDA_VISIBLE_DEVICES names it. `kind`, the model's name as torch gives it too, and `free_bytes` are
    None where nvidia-smi did not say.
    """

    device: str
    kind: str | None = None
    free_bytes: int | None = None
    capability: tuple[int, int] = _OLD_CAPABILITY


def find_gpus() -> list[Gpu]:
    """The GPUs that this process may use; empty without any, or where CUDA_VISIBLE_DEVICES hides them.

    Raises DeviceError where nvidia-smi does not answer and nothing else says which GPUs there are.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        # By uuid: CUDA's own numbers are not nvidia-smi's, whose order is that of the bus.
        return [gpu for _, gpu in _ask()]
    return list(_named(visible)) if visible.strip() else []


def check_reached(reached: bool, why_not: str) -> None:
    """Refuse to go on without the GPU that this process was given: its images would be another device's.

    `reached`: whether torch can use a GPU; `why_not`: what it says where it cannot. Raises DeviceError.
    """
    given = [] if reached else find_gpus()
    if given:
        names = ", ".join(gpu.device if gpu.kind is None else f"{gpu.device} ({gpu.kind})" for gpu in given)
        raise DeviceError(
            f"torch cannot use the GPU that this worker was given, {names}: {why_not}. Fix that, or set "
            "CUDA_VISIBLE_DEVICES to other GPUs, or leave it empty to compute on the CPU"
        )


def _named(visible: str) -> Iterator[Gpu]:
    """The GPUs in a list as CUDA reads it: what comes after a name that is none does not count."""
    try:
        known = _ask()
    except DeviceError:
        known = []
    # CUDA puts the fastest first unless told otherwise: of unlike GPUs, nobody knows here which its numbers mean.
    in_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.kind for _, gpu in known}) == 1
    for name in (part.strip() for part in visible.split(",")):
        if name in ("", "-1"):
            return
        found = [
            gpu for index, gpu in known if gpu.device.startswith(name) or (in_order and index == name)
        ]  # a uuid may be cut short
        yield replace(found[0], device=name) if len(found) == 1 else Gpu(name)


def _ask() -> list[tuple[str, Gpu]]:
    """nvidia-smi's number of each GPU, and what it says of it; empty where there is no GPU or no driver.

    A card that is broken is left out. Raises DeviceError where nvidia-smi fails otherwise.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    for fields in (_FIELDS, _FIELDS[:-1]):  # an old one does not know compute_cap
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
