"""The key that a person meant is found by its last word, by other programs' words, and by its spelling."""

import pytest

from batchgen.config.keys import decimal_point, expected, kinds, meant, no_such_key
from batchgen.config.schema import known_keys


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("job.run_dir", "run_dir"),
        ("job.model", "model"),
        ("steps", "job.steps"),
        ("width", "job.width"),
        ("prompts", "job.prompts"),
        ("seed", "job.seed"),
        ("model.width", "job.width"),
        ("output.batch_size", "job.batch_size"),
        ("placement", "memory.policy.placement"),
        ("stpes", "job.steps"),
        ("modl", "model"),
        ("retry-failed", "retry_failed"),
        ("job.columns.sed", "job.columns.seed"),
        ("model.size", "model.size_px"),
        ("num_inference_steps", "job.steps"),
        ("cfg_scale", "job.guidance"),
        ("output_dir", "run_dir"),
        ("input", "job.prompts"),
        ("retry", "retry_failed"),
        ("tile", "memory.policy.tile_px"),
    ],
)
def test_the_key_that_was_meant(wrong: str, right: str) -> None:
    assert meant(wrong)[0] == right
    assert no_such_key(wrong, "7").startswith(f"{wrong}: no such key; did you mean {right}=7")


def test_what_other_programs_call_a_key_is_a_key() -> None:
    from batchgen.config.keys import _OTHER_WORDS

    assert set(_OTHER_WORDS.values()) <= set(known_keys())


def test_a_key_of_two_groups_names_both() -> None:
    assert meant("guidance") == ["job.guidance", "model.guidance"]


def test_a_word_that_nothing_is_close_to_leads_to_help() -> None:
    assert no_such_key("job.foo", "1") == "job.foo: no such key; --help lists the valid ones"


def test_a_prompt_is_no_file() -> None:
    assert no_such_key("prompt", "a cat").endswith("did you mean job.prompts=FILE, with a prompt on each line?")
    assert no_such_key("prompt", "cats.txt").endswith("did you mean job.prompts=cats.txt?")


def test_a_models_folder_is_its_path() -> None:
    assert no_such_key("job.model", "sdxl").endswith("did you mean model=sdxl?")
    assert no_such_key("job.model", "./mine").endswith("did you mean model.path=./mine?")


def test_the_kind_of_each_key_is_said_in_words() -> None:
    assert expected("job.steps") == "a whole number"
    assert expected("job.limit") == "a whole number or null"
    assert expected("job.guidance") == "a number"
    assert expected("determinism") == "one of best, strict"
    assert expected("speed.traced") == "true or false"
    assert expected("job.prompts") == "text or a list of texts"
    assert set(kinds()) < set(known_keys())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("job.guidance", "7,5", "; write a decimal point: 7.5"),
        ("job.guidance", "7.5", ""),
        ("job.guidance", "a,b", ""),
        ("job.guidance", None, ""),
        ("launch.workers", "1,5", ""),
        ("job.negative_prompt", "1,5", ""),
    ],
)
def test_a_decimal_comma_is_told_where_a_number_may_have_a_fraction(key: str, value: object, said: str) -> None:
    assert decimal_point(key, value) == said
