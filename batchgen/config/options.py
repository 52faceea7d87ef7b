"""The options of sbatch on the command line and in files: launch.slurm.NAME=VALUE takes any name, and any text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from batchgen.config.quoting import as_text
from batchgen.config.sbatch import option_name
from batchgen.config.schema import OPEN
from batchgen.errors import ConfigError

_WORDS = {"null": None, "~": None, "": None, "true": True, "yes": True, "on": True, "false": False, "no": False}


def open_word(word: str) -> str:
    """A setting of the command line as Hydra takes it, if it is an option of sbatch; any other word as it is.

    Raises ConfigError for an option without a value.
    """
    key, equals, value = word.lstrip("+~").partition("=")
    group = next((one for one in OPEN if key.startswith(f"{one}.")), None)
    if group is None:
        return word
    name = option_name(key.removeprefix(f"{group}."))
    if word.startswith("~"):
        equals, value = "=", "null"
    if not equals:
        raise ConfigError(f"{word} needs a value: write {word}=VALUE, or {word}=true for an option that takes none")
    return f"++{group}.{name}={value.lower() if value.lower() in _WORDS and value else as_text(value)}"


def without_slurm(typed: Iterable[str]) -> str | None:
    """The first of the settings that sets an option of sbatch; None if none does."""
    keys = (word.lstrip("+~").partition("=")[0] for word in typed)
    return next((key for key in keys if any(key.startswith(f"{one}.") for one in OPEN)), None)


def with_texts(path: Path, composed: Any) -> None:
    """Set the options of sbatch in what Hydra read from a file to the texts that the file has.

    YAML takes 12:00:00 for the number 43200, which sbatch would take for minutes. Names get dashes.
    """
    from omegaconf import DictConfig, OmegaConf

    places = [(group.split("."), node) for group in OPEN for node in (composed,)]
    places += [([group.rpartition(".")[2]], composed) for group in OPEN if path.parent.name == "launch"]
    if not any(isinstance(_at(node, words), DictConfig) for words, node in places):
        return
    texts = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)
    for words, node in places:
        options, written = _at(node, words), _at(texts, words)
        if isinstance(options, DictConfig) and isinstance(written, dict):
            plain = {option_name(name): _value(value) for name, value in written.items()}
            OmegaConf.update(node, ".".join(words), plain, merge=False, force_add=True)


def _at(node: Any, words: list[str]) -> Any:
    for word in words:
        node = node.get(word) if hasattr(node, "get") else None
    return node


def _value(text: Any) -> Any:
    return _WORDS.get(text.lower(), text) if isinstance(text, str) else text
