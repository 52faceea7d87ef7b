"""What the fields of a row may hold, and what of it is a number where programs write it as something else."""

import math
import re
from typing import Any

from batchgen.config.bounds import BOUNDS, KEY_PATTERN, MAX_PROMPT_CHARS, PLANNED_KEY_PATTERN, SEED_LIMIT
from batchgen.config.loras import LORAS_JOINED, parse_loras
from batchgen.prompts.records import BadRow, shown

_MAX_SEED = 2**64  # what other programs count to
_EXACT = 2**53  # up to here a float holds every whole number
_WHOLE = re.compile(r"(-?[0-9]{1,639})(?:\.0*|,0)?")  # 1,000 may be a thousand
_COMMA = re.compile(r"-?[0-9]+,[0-9]+")
_NONE = frozenset(("nan", "none", "null", "na", "n/a", "<na>"))  # what programs write where a number is missing


def prompt_text(value: Any) -> str:
    """The prompt of a row. Raises BadRow."""
    if value is None:
        raise BadRow("no prompt")
    text = plain_text("prompt", value)
    if not text or text.isspace():
        raise BadRow("empty prompt")
    return text


def plain_text(name: str, value: Any) -> str:
    """The text of a field. Raises BadRow if it is not text, or too long."""
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text, got {shown(value)}")
    if len(value) > MAX_PROMPT_CHARS:
        raise BadRow(f"{name} has {len(value):,} characters, more than {MAX_PROMPT_CHARS:,}")
    return value


def lora_text(value: Any) -> str:
    """The LoRA files that a row names. Raises BadRow if they are not written as `parse_loras` reads them."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = LORAS_JOINED.join(value)
    text = plain_text("lora", value)
    try:
        parse_loras(text)
    except ValueError as error:
        raise BadRow(f"{error} ({_turn_off('lora')})") from error
    return text


def key_text(value: Any, lenient: bool) -> str:
    """The key that a row names. Raises BadRow if it cannot be one."""
    if lenient and isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if lenient and isinstance(value, str) and (whole := _WHOLE.fullmatch(value)):
        value = whole[1]
    key = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(key, str) or not KEY_PATTERN.fullmatch(key):
        raise BadRow(f"key must be 1 to 64 of A-Z a-z 0-9 _ -, got {shown(value)} ({_turn_off('key')})")
    if PLANNED_KEY_PATTERN.fullmatch(key):
        raise BadRow(f"key has the reserved form of the keys that batchgen gives, got {shown(value)}")
    return key


def number_in(name: str, value: Any) -> Any:
    """What a value means as a number of this field: 5 for "5" and 5.0, None where none is given, else the value."""
    kind = BOUNDS[name].kind
    if type(value) is int:
        return value
    if isinstance(value, str):
        text = value.strip()
        if kind is int and text.isascii() and text.isdigit() and len(text) < 20:
            return int(text)
        if text.lower() in _NONE:
            return None
        if kind is int and (whole := _WHOLE.fullmatch(text)):
            return int(whole[1])
        value = number_of_cell(name, text.replace(",", ".") if kind is float and _COMMA.fullmatch(text) else text)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if kind is int and value.is_integer():
            if abs(value) > _EXACT:
                raise BadRow(f"{name} {value!r} was rounded by the program that wrote it: store it as a whole number")
            return int(value)
    return value


def number_of_cell(name: str, cell: str) -> int | float | str:
    """Return the number in a table's cell, or the cell without its outer spaces if it holds no number."""
    text = cell.strip()
    if BOUNDS[name].kind is int:
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 640 else text
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def checked_number(name: str, value: Any) -> int | float:
    """The number within the bounds of its field. Raises BadRow, which names the key that ignores the column."""
    bound = BOUNDS[name]
    problem = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        expected = "a whole number" if bound.kind is int else "a number"
        problem = f"{name} must be {expected}, got {shown(value)}"
    elif isinstance(value, int) and value.bit_length() > 64:  # its digits must not fill the reason
        problem = f"{name} must be between {bound.low} and {bound.high}, got {shown(value)}"
    else:
        problem = bound.problem(name, value)
    if problem is not None:
        raise BadRow(f"{problem} ({_turn_off(name)})")
    return float(value) if bound.kind is float else int(value)


def is_seed_of_64_bits(value: Any) -> bool:
    """Whether a seed is one of other programs, which batchgen takes modulo 2**32."""
    return isinstance(value, int) and not isinstance(value, bool) and SEED_LIMIT <= value < _MAX_SEED


def check_copies(found: dict[str, Any]) -> None:
    """Raise BadRow if a row's seed and its number of images go beyond the last seed."""
    seed, copies = found.get("seed"), found.get("images_per_prompt")
    if seed is not None and copies is not None and seed + copies - 1 >= SEED_LIMIT:
        raise BadRow(f"seed {seed} + images_per_prompt {copies} goes beyond the last seed, {SEED_LIMIT - 1}")


def _turn_off(name: str) -> str:
    if name in ("width", "height"):
        return "job.columns.width=null job.columns.height=null leave the size to the job"
    return f"job.columns.{name}=null ignores the column"
