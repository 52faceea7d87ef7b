"""Which key a person meant: by its last word in another group, by what other programs call it, or by its spelling."""

import difflib
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from batchgen.config.check import CHOICES
from batchgen.config.sbatch import BARE, KNOWN, meant_options, option_name
from batchgen.config.schema import Config, known_keys

GROUPS_OF_OPTIONS = ("job", "launch", "memory", "model", "output", "speed")  # the folders of conf/
_CLOSE = 0.7
_SAME_GROUP = 0.1
_MOST_SHOWN = 2
# What people write who know other programs.
_OTHER_WORDS = {
    "batch": "job.batch_size",
    "cfg": "job.guidance",
    "cfg_scale": "job.guidance",
    "checkpoint": "model.path",
    "file": "job.prompts",
    "gpus": "launch.workers",
    "guidance_scale": "job.guidance",
    "input": "job.prompts",
    "model_path": "model.path",
    "negative": "job.negative_prompt",
    "num_images": "job.images_per_prompt",
    "num_images_per_prompt": "job.images_per_prompt",
    "num_inference_steps": "job.steps",
    "num_workers": "launch.workers",
    "out": "run_dir",
    "out_dir": "run_dir",
    "outdir": "run_dir",
    "output_dir": "run_dir",
    "prompt": "job.prompts",
    "prompt_file": "job.prompts",
    "resolution": "job.width",
    "sampler": "job.scheduler",
    "size": "job.width",
}

_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list[str]: "a list of texts",
    dict[str, Any]: "names and values, such as {time: 08:00:00}",
}


@cache
def kinds() -> dict[str, tuple[Any, bool]]:
    """The type of each dotted key that holds a value, and whether the value may be null."""
    return dict(_kinds(Config, ""))


def _kinds(kind: Any, prefix: str) -> list[tuple[str, tuple[Any, bool]]]:
    found: list[tuple[str, tuple[Any, bool]]] = []
    for field in fields(kind):
        if is_dataclass(field.default_factory):
            found += _kinds(field.default_factory, f"{prefix}{field.name}.")
        else:
            types = (field.type,) if get_origin(field.type) in (dict, list) else get_args(field.type) or (field.type,)
            found.append((prefix + field.name, (types[0], type(None) in types)))
    return found


def expected(key: str) -> str:
    """What the value of a key must be, in words."""
    kind, nullable = kinds()[key]
    if key in CHOICES:
        return f"one of {', '.join(str(choice) for choice in CHOICES[key] if choice)}" + (
            " or null" if nullable else ""
        )
    return _KINDS.get(kind, "text or a list of texts") + (" or null" if nullable else "")


def decimal_point(key: str, value: object) -> str:
    """What to append where a number of `key` was written with a comma, such as 2,5; "" for any other value."""
    if kinds()[key][0] is not float or not _DECIMAL_COMMA.fullmatch(str(value)):
        return ""
    return f"; write a decimal point: {str(value).replace(',', '.')}"


def meant(wrong: str) -> list[str]:
    """The dotted keys that `wrong` may stand for, best first, and at most two; [] if none is close."""
    if wrong.split(".")[0] == "hydra":
        return []
    word, group = wrong.rpartition(".")[2].replace("-", "_"), wrong.rpartition(".")[0]
    columns = "column" in wrong
    keys = [key for key in known_keys() if key.startswith("job.columns.") == columns]
    same = [key for key in keys if _word(key) == word and key != wrong]
    if (option := _option_of(wrong)) is not None:
        return [option]
    if same:
        return sorted(same, key=lambda key: key.count("."))[:_MOST_SHOWN]
    score = {
        key: difflib.SequenceMatcher(None, word.lower(), _word(key)).ratio()
        + _SAME_GROUP * (key.rpartition(".")[0] == group)
        for key in keys
    }
    close = sorted((key for key in keys if score[key] >= _CLOSE), key=lambda key: -score[key])
    if word.lower() in _OTHER_WORDS and not any(group and key.startswith(f"{group}.") for key in close[:1]):
        return [_OTHER_WORDS[word.lower()]]
    if not close:
        return [key for key in keys if word.lower() in _word(key).split("_")][:_MOST_SHOWN]
    return [key for key in close if score[key] > score[close[0]] - _SAME_GROUP][:_MOST_SHOWN]


def _option_of(wrong: str) -> str | None:
    """The key of an option of sbatch that was written without launch.slurm before it, or nearly with it."""
    group, _, word = wrong.rpartition(".")
    option = option_name(word)
    near = difflib.SequenceMatcher(None, group, "launch.slurm").ratio() >= _CLOSE or group == "slurm"
    if near and group != "launch":
        return f"launch.slurm.{next(iter(meant_options(option)), option)}"
    return f"launch.slurm.{option}" if option in (KNOWN if group == "launch" else BARE) else None


def _word(key: str) -> str:
    return key.rpartition(".")[2]


def no_such_key(wrong: str, value: str | None = None) -> str:
    """Say that there is no key `wrong`, and which one is meant, with its `value` where that is known."""
    if wrong in known_keys():
        return f"{wrong}: it cannot be added or removed: write {wrong}=VALUE"
    if _word(wrong) == "prompt" and not Path(value or "x.txt").suffix:
        value = "FILE, with a prompt on each line"
    keys = [_with_value(key, value) for key in meant(wrong)]
    hint = f"did you mean {' or '.join(keys)}?" if keys else "--help lists the valid ones"
    return f"{wrong}: no such key; {hint}"


def _with_value(key: str, value: str | None) -> str:
    """`key=value`; a group takes the name of an option, and a model's path has a key of its own."""
    if value is None:
        return key
    if key == "model" and ("/" in value or "." in value):
        key = "model.path"
    return f"{key}={value}"
