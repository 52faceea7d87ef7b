"""Arguments as a shell and Hydra take them: any text as the value of a key."""

import re
import shlex
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./*?-]+")


def text_word(key: str, text: str) -> str | None:
    """`key=text` as a word of a shell's line, with the quotes that it takes; None if no quotes are enough."""
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    escaped = inner.replace("${", "\\${")  # else it is an interpolation
    for written in (escaped, _quoted(escaped, '"'), _quoted(escaped, "'")):
        if _read(key, written) == inner:
            return shlex.quote(f"{key}={written}")
    return None


def list_word(key: str, texts: list[str]) -> str:
    """`key=[a,b]` as a word of a shell's line."""
    written = ",".join(text if _PLAIN.fullmatch(text) else _quoted(text, '"') for text in texts)
    return shlex.quote(f"{key}=[{written}]")


def as_text(text: str) -> str:
    """A value that Hydra reads as this very text; one that is in quotes already means what is within them."""
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    return _quoted(inner, '"')


def _quoted(text: str, mark: str) -> str:
    # Hydra leaves a backslash as it is, except before a quotation mark.
    return mark + re.sub(rf"(\\*)({mark}|\Z)", lambda found: found[1] * 2 + (found[2] and f"\\{mark}"), text) + mark


def _read(key: str, written: str) -> Any:
    """What Hydra and OmegaConf make of a value; None if they refuse it, or take it for several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        override = OverridesParser.create().parse_override(f"{key}={written}")
        return None if override.is_sweep_override() else OmegaConf.create({"value": override.value()})["value"]
    except (HydraException, OmegaConfBaseException):
        return None
