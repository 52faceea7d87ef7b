"""What makes full-size models small enough for a CPU: {kind: {component: settings}}. They keep their vocabularies."""

_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32,
}  # fmt: skip
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
SHRINK = {
    "sd15": {
        "unet": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32},
        "vae": _VAE, "text_encoder": _TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": (32, 32, 64), "layers_per_block": 1, "cross_attention_dim": 64,
            "attention_head_dim": (2, 2, 4), "transformer_layers_per_block": (1, 1, 2),
            "projection_class_embeddings_input_dim": 6 * 256 + 32,
        },
        "vae": _VAE, "text_encoder": _TEXT, "text_encoder_2": _TEXT,
    },
    "flux_dev": {
        "transformer": {
            "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
            "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8),
        },
        "vae": _VAE, "text_encoder": _TEXT, "text_encoder_2": _T5,
    },
    "sd35_medium": {
        "transformer": {
            "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 64,
            "caption_projection_dim": 32, "pooled_projection_dim": 64, "dual_attention_layers": (0,),
        },
        "vae": _VAE, "text_encoder": _TEXT, "text_encoder_2": _TEXT, "text_encoder_3": _T5 | {"d_model": 64},
    },
    "z_image": {
        "transformer": {
            "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
            "axes_dims": (8, 4, 4),
        },
        "vae": _VAE,
        "text_encoder": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8,
        },
    },
}  # fmt: skip
