"""A worker that is started before there is a plan: it imports what it will need, and waits to be told to go on."""

import gc
import importlib
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

from batchgen.errors import EXIT_INTERRUPTED
from batchgen.machine.imported import note
from batchgen.machine.meters import try_cuda
from batchgen.speed.kept import code_dir

# Optional libraries that diffusers and transformers import where they are installed, and that no worker uses.
_UNUSED = ("peft", "sklearn")


class Told(NamedTuple):
    """What the line says: how many workers there are. `printed`: what libraries printed meanwhile."""

    world: int
    printed: bytes


def stand_by(prepare: Callable[[], None]) -> Told:
    """Call `prepare`, then wait for the line. Where standard input ends before there is one, the process ends.

    An error of `prepare` is not told: the worker does the same again when it loads, and then says what is wrong.
    """
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: lines.put(_read_line()), daemon=True, name="standby").start()
    with _aside() as printed:
        with suppress(Exception):
            prepare()
        order = json.loads(lines.get())
    os.environ |= order["told"]
    printed.seek(0)
    return Told(int(order["world"]), printed.read())


def get_ready(classes: str) -> None:
    """Import the engine and then `classes`, LIBRARY.CLASS,LIBRARY.CLASS,...; and make CUDA's context."""
    gc.disable()  # what is imported stays; to look for garbage in it takes a tenth of the time
    try:
        import_engine()
        for name in filter(None, classes.split(",")):
            library, _, kind = name.partition(".")
            getattr(importlib.import_module(library), kind)
        try_cuda()
    finally:
        gc.enable()
    note()


def import_engine() -> None:
    """Import the engine, and with it torch and diffusers."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_dir()))  # for all workers and later runs
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # else fragments take half as much again
    import batchgen.pipeline.engine  # noqa: F401


def leave_out_unused() -> None:
    """Hide from this process the libraries that would be imported for nothing."""
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # so Python takes it for not installed


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        one = os.read(0, 1)  # no more, because what follows is for whoever reads next
        if not one:
            os._exit(EXIT_INTERRUPTED)  # whoever started this process is gone or needs it no more
        line += one
    return line


@contextmanager
def _aside() -> Iterator[IO[bytes]]:
    """Send what this process prints to a file for a while: its log is known only later."""
    real = [os.dup(1), os.dup(2)]
    printed = tempfile.TemporaryFile()  # noqa: SIM115  # it is read after this block
    try:
        for fd in (1, 2):
            os.dup2(printed.fileno(), fd)
        yield printed
    finally:
        for fd, was in zip((1, 2), real, strict=True):
            os.dup2(was, fd)
            os.close(was)
