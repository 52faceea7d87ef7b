"""How LoRA files are written, in `model.lora` and in the column `lora`: PATH or PATH:WEIGHT, several joined by `+`.

In the configuration several may also be a list, of which each text is one file.
"""

import math
from typing import Any

NO_LORA = "<none>"
LORAS_JOINED = "+"
_MOST_WEIGHT = 100.0


def parse_loras(said: Any) -> list[tuple[str, float]]:
    """[(path, weight)] of what the configuration or a row says: a text, a list of texts, or None.

    The weight is 1 unless it is written. `<none>` and the empty text are none. Raises ValueError, in one line.
    """
    texts = said.split(LORAS_JOINED) if isinstance(said, str) else said or []
    if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
        raise ValueError(f"lora must be text, such as style.safetensors:0.8, got {said!r}"[:200])
    pieces = [text.strip() for text in texts]
    if [piece for piece in pieces if piece] == [NO_LORA]:
        return []
    found = [_parse(piece) for piece in pieces if piece]
    paths = [path for path, _ in found]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ValueError(f"lora {twice[:120]} is named twice")
    return found


def _parse(piece: str) -> tuple[str, float]:
    path, colon, weight_text = piece.rpartition(":")
    if not colon or "/" in weight_text or "." not in path:
        return piece, 1.0
    try:
        weight = float(weight_text)
    except ValueError:
        weight = math.nan
    if not path or not abs(weight) <= _MOST_WEIGHT:  # nan, too
        raise ValueError(
            f"lora {piece[:120]}: the weight must be a number of at most {_MOST_WEIGHT:g}, such as {path[:80]}:0.8"
        )
    return path, weight
