"""The configurations of full-size models, as the public ones have them, and the pipelines that they make up."""

import diffusers
import transformers

from tests.bench import full_tokenizers as tokenizers
from tests.bench.full_tokenizers import CLIP_VOCABULARY

_UNET = {
    "in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "layers_per_block": 2, "downsample_padding": 1, "mid_block_scale_factor": 1, "act_fn": "silu",
    "norm_num_groups": 32, "norm_eps": 1e-5,
}  # fmt: skip
_VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2, "act_fn": "silu", "norm_num_groups": 32,
}  # fmt: skip
# These ids of marks are wrong, as in the public ones; with an end of 2 the pooled token is that of the highest id.
_TEXT = {
    "vocab_size": CLIP_VOCABULARY, "max_position_embeddings": 77, "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
_CLIP_L = _TEXT | {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
_BIG_G = _TEXT | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
_T5_XXL = {
    "vocab_size": 32_128, "d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_decoder_layers": 24,
    "num_heads": 64, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "decoder_start_token_id": 0,
    "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN3_4B = {
    "vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
    "tie_word_embeddings": True, "bos_token_id": 151_643, "eos_token_id": 151_645,
}  # fmt: skip
_VAE_16 = _VAE | {
    "latent_channels": 16, "sample_size": 1024, "force_upcast": True, "use_quant_conv": False,
    "use_post_quant_conv": False,
}  # fmt: skip
_FLUX_VAE = _VAE_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159}
# A UNet's attention_head_dim is its number of heads.
CONFIGS = {
    "sd15": {
        "unet": _UNET | {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8,
            "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3), "cross_attention_dim": 768,
        },
        "vae": _VAE | {"sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": _CLIP_L,
    },
    "sdxl": {
        "unet": _UNET | {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 2048,
            "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        },
        "vae": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _BIG_G,
    },
    "flux_dev": {
        "transformer": {
            "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
            "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
        },
        "vae": _FLUX_VAE,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _T5_XXL,
    },
    "sd35_medium": {
        "transformer": {
            "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
            "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
            "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
        },
        "vae": _VAE_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _BIG_G,
        "text_encoder_3": _T5_XXL,
    },
    "z_image": {
        "transformer": {
            "all_patch_size": (2,), "all_f_patch_size": (1,), "in_channels": 16, "dim": 3840, "n_layers": 30,
            "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "norm_eps": 1e-5, "qk_norm": True,
            "cap_feat_dim": 2560, "rope_theta": 256.0, "t_scale": 1000.0, "axes_dims": (32, 48, 48),
            "axes_lens": (1536, 512, 512),
        },
        "vae": _FLUX_VAE,
        "text_encoder": _QWEN3_4B,
    },
}  # fmt: skip
_BETAS = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "trained_betas": None, "steps_offset": 1,
}  # fmt: skip
# What a scheduler has no use for is there for others, which are made from its configuration.
_FOR_OTHERS = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
_FLOW = {"num_train_timesteps": 1000, "shift": 3.0}
SCHEDULERS = {
    "sd15": (diffusers.PNDMScheduler, _BETAS | _FOR_OTHERS),
    "sdxl": (
        diffusers.EulerDiscreteScheduler,
        _BETAS | _FOR_OTHERS | {
            "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0,
            "timestep_spacing": "leading", "use_karras_sigmas": False,
        },
    ),
    "flux_dev": (
        diffusers.FlowMatchEulerDiscreteScheduler,
        _FLOW | {
            "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
    ),
    "sd35_medium": (diffusers.FlowMatchEulerDiscreteScheduler, _FLOW),
    "z_image": (diffusers.FlowMatchEulerDiscreteScheduler, _FLOW),
}  # fmt: skip

_CLIP, _CLIP_PROJECTING = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
# The classes of the pipeline and of its parts, and its tokenizers.
_PIPELINES = {
    "sd15": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
    "flux_dev": diffusers.FluxPipeline,
    "sd35_medium": diffusers.StableDiffusion3Pipeline,
    "z_image": diffusers.ZImagePipeline,
}
_CLASSES = {
    "sd15": {"unet": diffusers.UNet2DConditionModel, "text_encoder": _CLIP},
    "sdxl": {
        "unet": diffusers.UNet2DConditionModel, "text_encoder": _CLIP, "text_encoder_2": _CLIP_PROJECTING,
    },
    "flux_dev": {
        "transformer": diffusers.FluxTransformer2DModel, "text_encoder": _CLIP,
        "text_encoder_2": transformers.T5EncoderModel,
    },
    "sd35_medium": {
        "transformer": diffusers.SD3Transformer2DModel, "text_encoder": _CLIP_PROJECTING,
        "text_encoder_2": _CLIP_PROJECTING, "text_encoder_3": transformers.T5EncoderModel,
    },
    "z_image": {"transformer": diffusers.ZImageTransformer2DModel, "text_encoder": transformers.Qwen3Model},
}  # fmt: skip


def kind_of(kind, name):
    """The class of a model's part of that name."""
    return diffusers.AutoencoderKL if name == "vae" else _CLASSES[kind][name]


def pipeline(kind, parts):
    """The pipeline with these parts, and with a scheduler and tokenizers of its own."""
    scheduler, settings = SCHEDULERS[kind]
    parts = parts | {"scheduler": scheduler.from_config(settings)}
    if kind == "sd15":
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if kind == "sdxl":
        parts |= {"force_zeros_for_empty_prompt": True, "add_watermarker": False}
    if kind in ("sdxl", "sd35_medium"):
        parts |= {"tokenizer_2": tokenizers.clip(pad="!")}
    if kind == "flux_dev":
        parts |= {"tokenizer_2": tokenizers.t5()}
    if kind == "sd35_medium":
        parts |= {"tokenizer_3": tokenizers.t5()}
    own = tokenizers.qwen() if kind == "z_image" else tokenizers.clip()
    return _PIPELINES[kind](tokenizer=own, **parts)
