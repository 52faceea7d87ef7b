"""With this folder in PYTHONPATH, every launcher of batchgen starts workers that have the fake engine."""

import sys
from pathlib import Path

_FAKE = Path(__file__).resolve().parents[2] / "fake_engine.py"

if any(argument in ("batchgen", "batchgen.join") for argument in sys.orig_argv):
    from batchgen.launch import local

    local.WORKER_COMMAND = [sys.executable, str(_FAKE), "worker"]
