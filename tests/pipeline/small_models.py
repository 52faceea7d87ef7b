"""Stable Diffusion and XL at sizes that load in a moment, with random weights, in the diffusers layout."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def clip_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def clip(kind=CLIPTextModel, act="quick_gelu"):
    tokenizer = clip_tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, hidden_act=act,
            num_attention_heads=4, max_position_embeddings=77, projection_dim=32, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()  # fmt: skip


def _vae(**settings):
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **settings,
    ).eval()  # fmt: skip


def _unet(**settings):
    return UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4, **settings,
    ).eval()  # fmt: skip


def _sd15():
    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=_unet(cross_attention_dim=32),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **BETAS), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _sd2():
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", **BETAS,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=clip(act="gelu"), tokenizer=clip_tokenizer(), scheduler=scheduler,
        unet=_unet(cross_attention_dim=32, use_linear_projection=True), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def _sdxl():
    unet = _unet(
        cross_attention_dim=64, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet,
        text_encoder_2=clip(CLIPTextModelWithProjection, "gelu"), tokenizer_2=clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **BETAS), force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )  # fmt: skip


KINDS = {"sd15": _sd15, "sdxl": _sdxl}  # one of each family
ALL_KINDS = KINDS | {"sd2": _sd2}  # which predicts v and ends in noise without any signal


def save(kind, folder):
    """The folder of a small model of that kind."""
    torch.manual_seed(0)
    ALL_KINDS[kind]().save_pretrained(folder)
    return folder


def save_with_checker(folder, flags):
    """The folder of a small Stable Diffusion 1.5 whose safety checker flags every image, or none."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 32,
        "patch_size": 16,
    }  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights.data.fill_(-2.0 if flags else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    pipe = _sd15()
    pipe = StableDiffusionPipeline(
        **{name: part for name, part in pipe.components.items() if part is not None}, safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder
