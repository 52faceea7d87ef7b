"""Parts of pipelines at sizes that load in a moment, with random weights, for the tiny model of each family."""

import diffusers
from tokenizers import pre_tokenizers
from transformers import (
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.pipeline.small_models import BETAS as BETAS
from tests.pipeline.small_models import clip as clip
from tests.pipeline.small_models import clip_tokenizer as clip_tokenizer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def t5_tokenizer():
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    letters = [(one, -6.0) for one in "abcdefghijklmnopqrstuvwxyz0123456789.,'!?-_ "]
    words = [(f"\u2581{one}", -3.0) for one in ("a", "red", "horse", "under", "an", "old", "tree")]
    return T5Tokenizer(vocab=[*marks, *words, *letters[1:]], extra_ids=0, model_max_length=512)


def t5(width=32):
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, is_encoder_decoder=False,
        )
    ).eval()  # fmt: skip


def qwen_tokenizer():
    pieces = {one: place for place, one in enumerate(LETTERS)}
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab=pieces, merges=[], model_max_length=2048)
    tokenizer.add_special_tokens({"additional_special_tokens": marks[1:]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_config(kind, layers=2, **settings):
    return kind(
        vocab_size=len(qwen_tokenizer()) + 8, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048, **settings,
    )  # fmt: skip


def kl_vae(**settings):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **settings,
    ).eval()  # fmt: skip


def flow(**settings):
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)
