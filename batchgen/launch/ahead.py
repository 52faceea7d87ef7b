"""Workers that begin before there is a plan. While the front door looks up, checks and plans, they import what they
will need and reach for their GPU, and the model's weights are read into the host's cache. Then each waits for one line
on its standard input, and goes on as any worker does.

Their environment is complete for libraries when they begin, because these read it while they are imported. The line
says only how many workers there are, which may be fewer than was thought, and how much of the host's memory each of
them may use. A process that does not suit what was planned is ended, and another one is begun in its place as if there
had been none.
"""

import json
import os
import threading
from contextlib import suppress
from typing import Self

from batchgen.config.schema import Config
from batchgen.launch.local import Begun, Child, Share, begin
from batchgen.machine.host import as_told, room_for
from batchgen.machine.imported import noted
from batchgen.machine.readahead import read_ahead
from batchgen.models.find import ModelFiles, in_cache
from batchgen.models.parts import read_index
from batchgen.paths import RunDir

_LIBRARIES = ("diffusers", "transformers")  # what is imported of a model that is not looked at yet


class Ahead:
    """Processes that are begun ahead. At the end of its `with` block those that nobody took are ended, at once."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            _end(child)
        self._children = {}

    def begin(self, run: RunDir, config: Config, share: Share) -> None:
        """Begin the workers of this process, unless the run is whole or their starts are to be spread."""
        is_apart = share.here < share.world or config.launch.spread_s is not None
        if is_apart or run.index.exists():
            return
        model = in_cache(config.model)
        classes = "" if model is None else ",".join(classes_of(model))
        for rank in share.ranks:
            with suppress(OSError):  # whoever starts it later says what hinders that
                self._children[rank] = begin(run.root, share, rank, "--ahead", classes, told={})
        weights = [] if model is None else [path for part in model.parts() for path in part.weights]
        read_ahead([*noted(), *weights])

    def hand_over(self, share: Share) -> Begun:
        """The processes that suit this share; they go on, and all others are ended. What they hold is their room."""
        suited = {rank: one for rank, one in self._children.items() if rank in share.ranks and _suits(one, share)}
        for rank in self._children.keys() - suited:
            _end(self._children[rank])
        self._children = {}
        room = room_for(share.here, [child.process.pid for child in suited.values()])
        order = {"world": share.world, "told": as_told(room)}
        return Begun({rank: child for rank, child in suited.items() if _say(child, order)}, room)


def classes_of(model: ModelFiles) -> list[str]:
    """The classes that a worker loads the model by, as LIBRARY.CLASS. Raises ModelError."""
    family, _ = read_index(model.folder)
    kinds = [(part.library, part.kind) for part in model.parts()]
    return [f"{library}.{kind}" for library, kind in (("diffusers", family), *kinds) if library in _LIBRARIES]


def _suits(child: Child, share: Share) -> bool:
    return child.device == share.device(child.rank) and child.process.poll() is None


def _say(child: Child, order: object) -> bool:
    assert child.process.stdin is not None
    try:
        os.write(child.process.stdin.fileno(), json.dumps(order).encode() + b"\n")
    except OSError:  # it has just ended
        return False
    return True


def _end(child: Child) -> None:
    child.process.kill()
    for pipe in (child.process.stdin, child.process.stderr):
        assert pipe is not None
        pipe.close()
    # Nobody waits for its end, because to give a GPU back takes a moment.
    threading.Thread(target=child.process.wait, daemon=True, name="end").start()
