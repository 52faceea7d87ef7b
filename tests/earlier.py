"""What commit 2f10da6 computed, for tests that go on with what it left."""

import hashlib
import json
from pathlib import Path

SAMPLED_BYTES, SAMPLES = 1 << 20, 8


def first_fingerprint(folder: Path) -> str:
    """The model's fingerprint as its plans hold it: of every file, cards and hidden names apart."""
    digest = hashlib.sha256()
    parts = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in sorted(path for path in parts if path.suffix != ".md"):
        size_bytes = path.stat().st_size
        digest.update(json.dumps([path.relative_to(folder).as_posix(), size_bytes], separators=(",", ":")).encode())
        with path.open("rb") as file:
            if size_bytes <= SAMPLES * SAMPLED_BYTES:
                digest.update(file.read())
                continue
            for sample in range(SAMPLES):
                file.seek((size_bytes - SAMPLED_BYTES) * sample // (SAMPLES - 1))
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()
