"""Model folders as people bring them, most of them broken: each is a change to a copy of the bundled model."""

import json
from typing import Any

from safetensors.torch import load_file, save_file

UNET, VAE, TEXT = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"


def edit(path, **changes):
    """Change a JSON file; DELETE takes a key away."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "DELETE"}))


def setting(file, **changes):
    return lambda folder: edit(folder / file, **changes)


def weights(part, change):
    def act(folder):
        path = folder / f"{part}.safetensors"
        save_file({key: one.contiguous() for key, one in change(load_file(path)).items()}, path, {"format": "pt"})

    return act


def scheduler(kind, **changes):
    def act(folder):
        edit(folder / "scheduler/scheduler_config.json", _class_name=kind, **changes)
        edit(folder / "model_index.json", scheduler=["diffusers", kind])

    return act


def written(file, data):
    return lambda folder: (folder / file).write_bytes(data)


def text_truncated(folder):
    path = folder / f"{TEXT}.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fp16_only(folder):
    for part in (UNET, VAE, TEXT):
        (folder / f"{part}.safetensors").rename(folder / f"{part}.fp16.safetensors")


def fp16_unet_in_pieces(folder):
    values = load_file(folder / f"{UNET}.safetensors")
    names = sorted(values)
    where: dict[str, str] = {}
    for number, keys in enumerate((names[::2], names[1::2]), 1):
        piece = f"diffusion_pytorch_model.fp16-{number:05d}-of-00002.safetensors"
        save_file({key: values[key] for key in keys}, folder / "unet" / piece, {"format": "pt"})
        where |= dict.fromkeys(keys, piece)
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (folder / f"{UNET}.safetensors").unlink()


def fp16_piece_missing(folder):
    fp16_unet_in_pieces(folder)
    (folder / "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors").unlink()


def cloned(folder):
    for name, text in ((".git/HEAD", "ref: refs/heads/main\n"), (".cache/huggingface/a.metadata", "abc\netag\n")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)


def cut_to(part, rows, word):
    return weights(part, lambda state: {k: one[:rows] if word in k else one for k, one in state.items()})


def both(*changes):
    def act(folder):
        for change in changes:
            change(folder)

    return act


def other_prefix(state):
    return {f"cond_stage_model.transformer.text_model.{key}": one for key, one in state.items()}


CHECKER = ["stable_diffusion", "StableDiffusionSafetyChecker"]
TOKENIZER = "tokenizer/tokenizer_config.json"
# name: (change, overrides, words of the refusal or None for a run that ends well)
MODELS: dict[str, tuple[Any, dict[str, Any], str | None]] = {
    "as it is": (lambda folder: None, {}, None),
    "text_other_prefix": (weights(TEXT, other_prefix), {}, "text_encoder lacks 52 weights"),
    "text_one_missing": (
        weights(TEXT, lambda state: {k: one for k, one in state.items() if k != "final_layer_norm.weight"}),
        {}, "text_encoder lacks the weight final_layer_norm.weight",
    ),
    "unet_keys_missing": (weights(UNET, lambda state: dict(sorted(state.items())[20:])), {}, "unet lacks 20 weights"),
    "vae_keys_missing": (
        weights(VAE, lambda state: {k: one for k, one in state.items() if not k.startswith("decoder.mid")}),
        {}, "vae lacks 16 weights",
    ),
    "text_truncated": (text_truncated, {}, "text_encoder/model.safetensors is cut off"),
    "fp16_only": (fp16_only, {}, "set model.variant=fp16"),
    "fp16_only, misspelt": (fp16_only, {"model__variant": "fp61"}, "did you mean fp16?"),
    "fp16_only, another": (fp16_only, {"model__variant": "ema"}, "has no such weights; it has fp16"),
    "fp16_only, named": (fp16_only, {"model__variant": "fp16"}, None),
    "fp16_unet_in_pieces": (fp16_unet_in_pieces, {}, "set model.variant=fp16"),
    "fp16_unet_in_pieces, named": (fp16_unet_in_pieces, {"model__variant": "fp16"}, None),
    "a piece is missing": (fp16_piece_missing, {"model__variant": "fp16"}, "lacks 1 of the 2 files"),
    "no variants": (lambda folder: None, {"model__variant": "emma"}, "has no such weights; it has no variants"),
    "pointer": (written(f"{VAE}.safetensors", POINTER), {}, "only a pointer of Git LFS"),
    "empty": (written(f"{VAE}.safetensors", b""), {}, "is empty: download or copy it again"),
    "checker_deleted": (
        setting("model_index.json", safety_checker=CHECKER, feature_extractor=["transformers", "CLIPImageProcessor"]),
        {}, None,
    ),
    "checker_deleted, wanted": (
        setting("model_index.json", safety_checker=CHECKER, feature_extractor=["transformers", "CLIPImageProcessor"]),
        {"model__safety_checker": "drop"}, "lacks feature_extractor, safety_checker: copy the whole model",
    ),
    "image_encoder_deleted": (
        setting("model_index.json", image_encoder=["transformers", "CLIPVisionModelWithProjection"]), {}, None
    ),
    "lms": (scheduler("LMSDiscreteScheduler"), {}, None),
    "dpm_sde": (scheduler("DPMSolverSDEScheduler"), {"job__scheduler": "dpm++"}, None),
    "dpm_sde, its own": (scheduler("DPMSolverSDEScheduler"), {"job__scheduler": "model"}, "ignores per-image seeds"),
    "beta_sigmas": (scheduler("EulerDiscreteScheduler", use_beta_sigmas=True), {}, None),
    "pndm": (scheduler("PNDMScheduler", skip_prk_steps=False), {}, None),
    "pndm, its own": (
        scheduler("PNDMScheduler", skip_prk_steps=False), {"job__scheduler": "model"},
        r"PNDMScheduler cannot make 2 steps: .*; set job.steps \(or the row's steps\) to 4, or",
    ),
    "sd1_like": (
        scheduler("PNDMScheduler", skip_prk_steps=True, timestep_spacing="leading", steps_offset=1,
                  set_alpha_to_one=False, rescale_betas_zero_snr="DELETE"),
        {"job__scheduler": "model", "job__steps": 1000}, "PNDMScheduler cannot make 1000 steps: .* to 999, or",
    ),
    "lcm": (scheduler("LCMScheduler", original_inference_steps=50), {}, "ddim does not fit this model's LCMScheduler"),
    "lcm, its own": (scheduler("LCMScheduler", original_inference_steps=50), {"job__scheduler": "model"}, None),
    "no prediction": (
        setting("scheduler/scheduler_config.json", prediction_type="foo"), {},
        "cannot make 2 steps: .*; fix scheduler/scheduler_config.json of the model in .* or copy it again$",
    ),
    "vae_mean_std": (setting("vae/config.json", latents_mean=[0.1] * 8, latents_std=[1.1] * 8), {}, None),
    "no_max_length": (
        setting(TOKENIZER, model_max_length="DELETE"), {},
        "tokenizer has no model_max_length, .*: set model_max_length to 77 in its tokenizer_config.json",
    ),
    "max_length_text": (setting(TOKENIZER, model_max_length="77"), {}, "tokenizer has no model_max_length"),
    "max_length_long": (setting(TOKENIZER, model_max_length=1000), {}, "has model_max_length 1000, but .* up to 77"),
    "no_pad": (setting(TOKENIZER, pad_token=None), {}, "cannot encode a text: .*padding token"),
    "tokenizer_torn": (written("tokenizer/tokenizer.json", b"{"), {}, "tokenizer cannot be loaded: "),
    "tokenizer_empty": (lambda folder: (folder / "tokenizer/tokenizer.json").unlink(), {}, "tokenizer has no words"),
    "short_text_encoder": (
        both(setting("text_encoder/config.json", max_position_embeddings=40), cut_to(TEXT, 40, "position_embedding")),
        {}, "has model_max_length 77, but the text encoder takes up to 40",
    ),
    "small_vocabulary": (
        both(setting("text_encoder/config.json", vocab_size=1000), cut_to(TEXT, 1000, "token_embedding")),
        {}, "has tokens up to number 1399, but the text encoder knows only 1000",
    ),
    "unet_of_another_kind": (
        both(setting("unet/config.json", out_channels=4), cut_to(UNET, 4, "conv_out")),
        {}, "its unet takes 8 channels and gives 4",
    ),
    "no_scaling_factor": (
        setting("vae/config.json", scaling_factor=None), {}, "scaling_factor is None in vae/config.json"
    ),
    "config_with_mark": (
        lambda folder: (folder / "unet/config.json").write_bytes(
            b"\xef\xbb\xbf" + (folder / "unet/config.json").read_bytes()
        ),
        {}, "config.json of the model's unet cannot be read: .*BOM",
    ),
    "no_config": (
        lambda folder: (folder / "text_encoder/config.json").unlink(), {},
        "config.json of the model's text_encoder cannot be read: it is missing; .*/text_encoder/config.json again",
    ),
    "quantized": (
        setting("unet/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}), {},
        "is quantized, which batchgen does not run",
    ),
    "cloned": (cloned, {}, None),
}  # fmt: skip
