"""Stable Diffusion 3 and 3.5."""

from batchgen.models.families.base import Family


class StableDiffusion3(Family):
    """Stable Diffusion 3 and 3.5: two CLIPs and T5, which may be left out, side by side; guidance in doubled rows."""

    title = "Stable Diffusion 3 and 3.5"
    pipeline = "StableDiffusion3Pipeline"
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    optional = ("text_encoder_3", "tokenizer_3")
    text_tokens = 333
    maps = 14.0
    reads = ("tokenizer_3", 255)
    returned = ("prompt_embeds", None, "pooled_prompt_embeds", None)
    encoding = {"prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False}


FAMILY = StableDiffusion3()
