"""Small models in one file, as trainers outside of diffusers write them: diffusers' names mapped back to the original.

The tables are those of diffusers' conversion scripts (scripts/convert_diffusers_to_original_stable_diffusion.py,
convert_flux_to_diffusers.py), written the other way round.
"""

import json
import re

import torch
from safetensors.torch import load_file, save_file

_CLIP = "cond_stage_model.transformer."
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_VAE = {
    "conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out", "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1", "group_norm": "norm", "to_q": "q",
    "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
_OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj", "final_layer_norm": "ln_final",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
}  # fmt: skip


def weights(folder, part):
    """All weights of a part of a model: of its folder, or {part: (configuration, weights)}."""
    if isinstance(folder, dict):
        return folder[part][1]
    return {key: one for path in (folder / part).glob("*.safetensors") for key, one in load_file(path).items()}


def config(folder, part):
    return folder[part][0] if isinstance(folder, dict) else json.loads((folder / part / "config.json").read_text())


def unet(folder):
    """A UNet by its original names."""
    layers = config(folder, "unet")["layers_per_block"]
    state = weights(folder, "unet")
    attends = {key.partition(".attentions")[0] for key in state if "up_blocks" in key and ".attentions" in key}
    return {_unet_name(key, layers, attends): one for key, one in state.items()}


def _unet_name(key, layers, attends):
    for theirs, original in _UNET.items():
        if key.startswith(f"{theirs}."):
            return original + key.removeprefix(theirs)
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", key):
        way, block, kind, layer, rest = found.groups()
        place = int(block) * (layers + 1) + int(layer) + (way == "down")
        inside = _resnet(rest) if kind == "resnets" else rest
        return f"{'input' if way == 'down' else 'output'}_blocks.{place}.{int(kind == 'attentions')}.{inside}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", key):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    if found := re.match(r"(up_blocks\.(\d+))\.upsamplers\.0\.conv\.(.*)", key):
        return (
            f"output_blocks.{int(found[2]) * (layers + 1) + layers}.{2 if found[1] in attends else 1}.conv.{found[3]}"
        )
    if found := re.match(r"mid_block\.resnets\.(\d)\.(.*)", key):
        return f"middle_block.{2 * int(found[1])}.{_resnet(found[2])}"
    return key.replace("mid_block.attentions.0", "middle_block.1")


def _resnet(rest):
    name, _, leaf = rest.partition(".")
    return f"{_RESNET[name]}.{leaf}"


def vae(folder, part="vae"):
    """A VAE by its original names, with attention by convolutions of one place."""
    blocks = len(config(folder, part)["block_out_channels"])
    made = {}
    for key, one in weights(folder, part).items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{blocks - 1 - int(found[1])}", name)
        name = re.sub(r"\.resnets\.(\d+)", r".block.\1", name) if "mid_block" not in name else name
        name = name.replace("upsamplers.0", "upsample")
        for theirs, original in _VAE.items():
            name = re.sub(rf"(?<![a-z_]){re.escape(theirs)}(?=\.)", original, name)
        made[name] = one[..., None, None] if "attn_1" in name and one.dim() == 2 else one
    return made


def clip(folder, part):
    """A CLIP as transformers names it."""
    return {f"text_model.{key.removeprefix('text_model.')}": one for key, one in weights(folder, part).items()}


def open_clip(folder, part):
    """A CLIP as open_clip names it: query, key and value in one."""
    state = {key.removeprefix("text_model."): one for key, one in weights(folder, part).items()}
    made = {}
    for key, one in state.items():
        name = key
        for theirs, original in _OPEN_CLIP.items():
            name = name.replace(theirs, original)
        if ".self_attn.q_proj." in key:
            fused = torch.cat([state[key.replace("q_proj", f"{kind}_proj")] for kind in "qkv"])
            made[name.replace("self_attn.q_proj.", "attn.in_proj_")] = fused
        elif key == "text_projection.weight":
            made["text_projection"] = one.T.contiguous()
        elif ".self_attn.k_proj." not in key and ".self_attn.v_proj." not in key:
            made[name] = one
    return made


def under(prefix, state):
    return {f"{prefix}{name}": one.contiguous() for name, one in state.items()}


def stable_diffusion(folder, without=()):
    """Stable Diffusion 1.x in one file: {name: tensor}."""
    parts = {
        "unet": under("model.diffusion_model.", unet(folder)),
        "vae": under("first_stage_model.", vae(folder)),
        "text_encoder": under(_CLIP, clip(folder, "text_encoder")),
    }
    if "text_encoder" not in without:  # older files have them
        parts["text_encoder"][f"{_CLIP}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    ema = {"model_ema.decay": torch.tensor(0.5)}
    return ema | {name: one for part, state in parts.items() if part not in without for name, one in state.items()}


def stable_diffusion_2(folder):
    """Stable Diffusion 2.x in one file, with open_clip's names."""
    text = under("cond_stage_model.model.", open_clip(folder, "text_encoder"))
    width = text["cond_stage_model.model.positional_embedding"].shape[1]
    text["cond_stage_model.model.text_projection"] = torch.zeros(width, width)  # trained with it, and never used
    return text | stable_diffusion(folder, without=("text_encoder",))


def stable_diffusion_xl(folder, without=()):
    """Stable Diffusion XL in one file."""
    parts = {
        "unet": under("model.diffusion_model.", unet(folder)),
        "vae": under("first_stage_model.", vae(folder)),
        "text_encoder": under("conditioner.embedders.0.transformer.", clip(folder, "text_encoder")),
        "text_encoder_2": under("conditioner.embedders.1.model.", open_clip(folder, "text_encoder_2")),
    }
    return {name: one for part, state in parts.items() if part not in without for name, one in state.items()}


def flux(folder):
    """FLUX.1's transformer in one file: {name: tensor}."""
    state = weights(folder, "transformer")
    made: dict = {}
    for theirs, original in {
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "context_embedder": "txt_in", "x_embedder": "img_in", "proj_out": "final_layer.linear",
    }.items():  # fmt: skip
        made |= {key.replace(theirs, original): one for key, one in state.items() if key.startswith(f"{theirs}.")}
    for kind in ("weight", "bias"):
        scale, shift = state[f"norm_out.linear.{kind}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    pattern = re.compile(r"(single_)?transformer_blocks\.(\d+)\.")
    for single, place in sorted({found.groups() for key in state if (found := pattern.match(key))}, key=str):
        block = f"{single or ''}transformer_blocks.{place}."
        inside = {key.removeprefix(block): one for key, one in state.items() if key.startswith(block)}
        made |= (
            under(f"single_blocks.{place}.", _single(inside))
            if single
            else under(f"double_blocks.{place}.", _double(inside))
        )
    return {name: one.contiguous() for name, one in made.items()}


def _single(inside):
    made = {"norm.query_norm.scale": inside["attn.norm_q.weight"], "norm.key_norm.scale": inside["attn.norm_k.weight"]}
    for kind in ("weight", "bias"):
        fused = [inside[f"{name}.{kind}"] for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
        made |= {f"modulation.lin.{kind}": inside[f"norm.linear.{kind}"], f"linear1.{kind}": torch.cat(fused)}
        made[f"linear2.{kind}"] = inside[f"proj_out.{kind}"]
    return made


def _double(inside):
    made: dict = {}
    for stream, names, mlp, out, norm, norms in (
        ("img", ("to_q", "to_k", "to_v"), "ff", "to_out.0", "norm1", ("norm_q", "norm_k")),
        ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "ff_context", "to_add_out", "norm1_context",
         ("norm_added_q", "norm_added_k")),
    ):  # fmt: skip
        made[f"{stream}_attn.norm.query_norm.scale"] = inside[f"attn.{norms[0]}.weight"]
        made[f"{stream}_attn.norm.key_norm.scale"] = inside[f"attn.{norms[1]}.weight"]
        for kind in ("weight", "bias"):
            made[f"{stream}_attn.qkv.{kind}"] = torch.cat([inside[f"attn.{name}.{kind}"] for name in names])
            made[f"{stream}_attn.proj.{kind}"] = inside[f"attn.{out}.{kind}"]
            made[f"{stream}_mod.lin.{kind}"] = inside[f"{norm}.linear.{kind}"]
            made[f"{stream}_mlp.0.{kind}"] = inside[f"{mlp}.net.0.proj.{kind}"]
            made[f"{stream}_mlp.2.{kind}"] = inside[f"{mlp}.net.2.{kind}"]
    return made


def save(state, path):
    """Write a file of safetensors; return its path."""
    save_file({name: one.contiguous().clone() for name, one in state.items()}, path)
    return path
