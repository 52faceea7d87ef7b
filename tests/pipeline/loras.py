"""LoRA files with random weights for small models, in the forms in which people have them."""

import json
import re

import torch
from safetensors.torch import save_file
from torch import nn

RANK = 2
# What trainers change: the projections of attention and of what follows it.
_TRAINED = re.compile(
    r".*(\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj|add_[qkv]_proj|to_add_out|fc1|fc2|proj_in|proj_out|net\.0\.proj)|"
    r"attention\.to_out\.0)"
)


def layers(pipe, parts, seed=0, strength=0.2, convs=False):
    """{(part, layer): (up, down)} of random matrices, for what is usually trained, and all convolutions if asked."""
    noise, found = torch.Generator().manual_seed(seed), {}
    for part in parts:
        for name, module in getattr(pipe, part).named_modules():
            is_conv = isinstance(module, nn.Conv2d)
            if not isinstance(module, nn.Linear | nn.Conv2d) or not (_TRAINED.fullmatch(name) or (convs and is_conv)):
                continue
            edges = (1, 1) if is_conv else ()
            down = torch.randn(RANK, *module.weight.shape[1:], generator=noise) / module.weight[0].numel() ** 0.5
            up = strength * torch.randn(len(module.weight), RANK, *edges, generator=noise)
            found[part, name] = (up, down)
    return found


def as_diffusers(made, path, bias=False):
    """As diffusers' trainers write them: PEFT's names under those of the parts."""
    tensors: dict[str, torch.Tensor] = {}
    for (part, name), (up, down) in made.items():
        tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
        tensors |= {f"{part}.{name}.lora_B.bias": up[:, 0]} if bias else {}
    return _saved(tensors, path)


def with_settings(made, path, alpha):
    """As `as_diffusers`, with the settings of PEFT in the header; the first part has that alpha, the next one more."""
    said: dict[str, object] = {}
    for more, part in enumerate(dict.fromkeys(part for part, _ in made)):
        targets = [name for one, name in made if one == part]
        settings = {"r": RANK, "lora_alpha": alpha + more, "target_modules": targets}
        said |= {f"{part}.{key}": one for key, one in settings.items()}
    return _saved(_tensors(as_diffusers(made, path)), path, {"lora_adapter_metadata": json.dumps(said)})


def as_older_diffusers(made, path):
    """As diffusers wrote them before PEFT."""
    tensors: dict[str, torch.Tensor] = {}
    for (part, name), (up, down) in made.items():
        middle = "lora_linear_layer" if part.startswith("text_encoder") else "lora"
        tensors |= {f"{part}.{name}.{middle}.down.weight": down, f"{part}.{name}.{middle}.up.weight": up}
    return _saved(tensors, path)


def as_kohya(made, path, alpha, xl=False):
    """As kohya-ss writes them. `alpha`: of each layer, by its number."""
    tensors: dict[str, torch.Tensor] = {}
    for number, ((part, name), (up, down)) in enumerate(made.items()):
        if part == "unet":
            prefix, name = "lora_unet", _sgm(name) if xl else name
        else:
            prefix = {"text_encoder": "lora_te1" if xl else "lora_te", "text_encoder_2": "lora_te2"}[part]
            name = name if name.startswith("text_") else f"text_model.{name}"
        stem = f"{prefix}_{name.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = torch.tensor(alpha(number))
    return _saved(tensors, path)


def _sgm(name):
    # The names of SDXL's first code, in which kohya-ss trains it; for one layer a block and two blocks
    if (down := re.fullmatch(r"down_blocks\.(\d)\.attentions\.0\.(.+)", name)) is not None:
        return f"input_blocks.{1 + 2 * int(down[1])}.1.{down[2]}"
    if (up := re.fullmatch(r"up_blocks\.(\d)\.attentions\.(\d)\.(.+)", name)) is not None:
        return f"output_blocks.{2 * int(up[1]) + int(up[2])}.1.{up[3]}"
    middle = re.fullmatch(r"mid_block\.attentions\.0\.(.+)", name)
    assert middle is not None, name
    return f"middle_block.1.{middle[1]}"


def as_peft(made, folder, **settings):
    """As PEFT's save_pretrained writes one part's."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for (_, name), (up, down) in made.items():
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    said = {"peft_type": "LORA", "r": RANK, "target_modules": [name for _, name in made], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return _saved(tensors, folder / "adapter_model.safetensors")


def _saved(tensors, path, header=None):
    save_file({name: one.contiguous() for name, one in tensors.items()}, path, header)
    return path


def _tensors(path):
    from safetensors.torch import load_file

    return load_file(path)
