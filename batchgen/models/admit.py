"""Whether a model can make what a job wants: known before there is a plan, and the same to a dry run. No torch here.

What needs torch is asked of batchgen.pipeline.check, in a process of its own. A good answer is kept.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.errors import BatchgenError, ModelError
from batchgen.files import put_new, to_json
from batchgen.machine.process import versions
from batchgen.models.find import check_model
from batchgen.models.fingerprint import fingerprint_model
from batchgen.models.parts import refuse_misspelt, settings
from batchgen.paths import cache_dir
from batchgen.types import Reject, Shard

CHECK_COMMAND = [sys.executable, "-m", "batchgen.pipeline.check"]
# Counted up when the check becomes stricter: what is kept is then checked anew.
_WAY_OF_CHECKING = 1
# Tiles overlap by a quarter, which has to be a whole number of latent places.
_TILE_PLACES = 4


class Admission:
    """One model's checks for one job, made before a plan is and never for a plan that is there.

    `fingerprint` is the model's.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Check the model in `folder`: its files, its weights' names and shapes, its scheduler, and the tiles.

        Raises ModelError in one line for what a run could not use.
        """
        self._folder, self._config = folder, config
        model = config.model
        refuse_misspelt(folder, model.variant)
        parts = check_model(folder, config.job.scheduler, model.safety_checker != "off", model.variant)
        self.fingerprint = fingerprint_model(folder, model)
        for remark in self._ask(set())["told"]:
            say(remark)
        (vae,) = [settings(part) for part in parts if part.name == "vae"]
        self._pixels = 2 ** (len(vae.get("block_out_channels", [64])) - 1)  # to a latent place
        tile_px = config.memory.policy.tile_px
        _refuse_uneven("memory.policy.tile_px", tile_px or 0, _TILE_PLACES * self._pixels)

    def watch(self, shards: Iterator[Shard | Reject]) -> Iterator[Shard | Reject]:
        """The shards as they stream by. At their end their sizes and numbers of steps are checked.

        Raises ModelError for one that the model cannot make.
        """
        sizes: set[tuple[int, int]] = set()
        steps: set[int] = set()
        for shard in shards:
            if isinstance(shard, Shard):
                sizes |= {batch.size for batch in shard.batches}
                steps |= {batch.prompts[0].steps for batch in shard.batches}
            yield shard
        for width, height in sorted(sizes):
            _refuse_uneven("width", width, self._pixels)
            _refuse_uneven("height", height, self._pixels)
        self._ask(steps)

    def _ask(self, steps: Collection[int]) -> dict[str, Any]:
        model, scheduler = self._config.model, self._config.job.scheduler
        facts = [_WAY_OF_CHECKING, self.fingerprint, scheduler, versions()]
        path = cache_dir() / "checks" / f"{hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]}.json"
        kept = _kept(path)
        if kept is not None and set(steps) <= set(kept["steps"]):
            return kept
        answer = _answer(
            {
                "folder": str(self._folder.absolute()),
                "variant": model.variant,
                "safety_checker": model.safety_checker != "off",
                "scheduler": scheduler,
                "steps": sorted(steps),
                "likely": [self._config.job.steps],
            }
        )
        answer["steps"] = sorted({*answer["steps"], *(kept["steps"] if kept else ())})
        with suppress(OSError):  # a cache that cannot be written costs another check and nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            put_new(path, to_json(answer).encode() + b"\n")
        return answer


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(path.read_bytes())
        known = {"told": [str(one) for one in answer["told"]], "steps": [int(one) for one in answer["steps"]]}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return known


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if sys.stderr.isatty():
        print("batchgen: checking the model; it takes some seconds, once", file=sys.stderr)
    done = subprocess.run(CHECK_COMMAND, input=to_json(request), capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BatchgenError(f"the model in {request['folder']} could not be checked: {last}") from error
    if "problem" in answer:
        raise ModelError(answer["problem"])
    return answer


def _refuse_uneven(name: str, value_px: int, multiple_px: int) -> None:
    if value_px % multiple_px:
        below = value_px // multiple_px * multiple_px
        near = " or ".join(str(one) for one in (below, below + multiple_px) if one)
        raise ModelError(f"{name}={value_px}: this model's VAE needs a multiple of {multiple_px}, such as {near}")
