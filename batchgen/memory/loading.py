"""What loading a model takes of the host's memory, by the headers of its files. Without torch.

safetensors maps a file into memory: a weight that is wanted as the file has it stays a page of the file, which the
kernel may drop and read again, until it is moved. A weight in another dtype is made anew. So a process that loads
FLUX.1 in its own bf16 holds next to nothing, and one that loads fp32 files in fp16 holds all of it until the weights
are on the device (measured with shrunk FLUX.1: 0.0 and 9.0 GiB of 9.0).
"""

import json
import math

from batchgen.errors import MemoryNeededError
from batchgen.machine.dtype import VALUE_BYTES
from batchgen.machine.host import Room
from batchgen.memory.host_bytes import CPU_PROCESS_BYTES, CUDA_PROCESS_BYTES, Parts, shortage
from batchgen.models.find import ModelFiles, vae_wants_fp32
from batchgen.models.parts import header, weight_files

# How files name the dtypes, and the numbers that loading makes others of
_NAMES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
_FLOATS = ("F64", "F32", "F16", "BF16")


def made_bytes(model: ModelFiles, dtype: str, channels_last: bool = False) -> Parts:
    """Bytes of the weights that are made anew: of the text encoders, of the denoiser, of the VAE and what checks.

    Another memory format makes those of convolutions anew, too. Raises ModelError and OSError.
    """
    family, vae_dtype = model.family, dtype
    config = json.loads((model.folder / "vae" / "config.json").read_bytes())
    is_widened = dtype == "fp16" and vae_wants_fp32(family, config)  # it is loaded in fp16, and made fp32 then
    if is_widened:
        vae_dtype = "fp32"
    checker = _made(model, "safety_checker", dtype, False) if model.safety_checker else 0
    return Parts(
        sum(_made(model, name, dtype, False) for name in family.encoders),
        _made(model, family.denoiser, dtype, channels_last),
        _made(model, "vae", vae_dtype, channels_last, always=is_widened) + checker,
    )


def refuse_to_load(model: ModelFiles, dtype: str, on_cuda: bool, room: Room) -> None:
    """Raise MemoryNeededError where the host cannot hold what loading makes, wherever the weights go afterwards."""
    process_bytes = CUDA_PROCESS_BYTES if on_cuda else CPU_PROCESS_BYTES
    least_bytes = process_bytes + sum(made_bytes(model, dtype))
    if least_bytes > room.held_bytes:
        raise MemoryNeededError(shortage(f"loading the model in {dtype}", least_bytes, room))


def _made(model: ModelFiles, name: str, dtype: str, channels_last: bool, always: bool = False) -> int:
    found = 0
    for path in weight_files(model.folder, name, model.variant).values():
        for tensor in header(path).values() if path.suffix == ".safetensors" else ():
            is_other = always or tensor.dtype != _NAMES[dtype] or (channels_last and len(tensor.shape) == 4)
            if tensor.dtype in _FLOATS and is_other:
                found += math.prod(tensor.shape) * VALUE_BYTES[dtype]
    return found
