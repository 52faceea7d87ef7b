"""What a command does about copies: a check before work, copies while it works, and a wait for them at its end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen.config.schema import Config
from batchgen.errors import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_WHOLE,
    EXIT_WHOLE_WITH_FAILURES,
    ConfigError,
    StoreError,
)
from batchgen.files import replace, seal, unseal
from batchgen.launch.copier import Copier
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.copies import copied, make_directory, record_of, record_path, sweep_leases
from batchgen.stores.filesystem import is_address
from batchgen.stores.target import target
from batchgen.units import count

_WAIT_S, _IDLE_S, _SAID_EVERY_S = 0.5, 6.0, 30.0
# At the end a store that is away is waited for, for so many lease timeouts.
_TIMEOUTS_OF_PATIENCE = 5


def check_copies(config: Config, say: Callable[[str], None]) -> None:
    """Try the place that copies will go to, before any work. A store that does not answer is only told.

    Raises ConfigError for a mistake: no such bucket or data set, no right to write, a package that is missing.
    """
    address = config.output.copy_to
    if address is None:
        return
    _refuse_lost(address, Path(config.run_dir))
    store = target(address)
    try:
        store.check()
    except StoreError as error:
        say(f"{error}; the run goes on without it, and copies are tried again")


def _refuse_lost(address: str, run_dir: Path) -> None:
    """Raise ConfigError for a place that ends with this command, or that lies in the run itself."""
    if address.startswith("memory:"):
        raise ConfigError(f"output.copy_to={address}: what is copied there is lost when this command ends")
    folder = address.removeprefix("file://")
    if not is_address(folder) and Path(folder).resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(f"output.copy_to={address} lies in the run itself: name a folder on another disk")


@contextmanager
def copying(plan: Plan, say: Callable[[str], None]) -> Iterator["Copying"]:
    """Copy what is committed while the body runs, if the plan says so. Raises ConfigError, and OSError."""
    address = plan.config.output.copy_to
    copier = None
    if address is not None:
        _note_address(plan.run, address)
        copier = Copier(plan, target(address), say)
        copier.start()
    try:
        yield Copying(plan, copier, say)
    finally:
        if copier is not None:
            copier.close()


def _note_address(run: RunDir, address: str) -> None:
    """Where the address is another than it was, what is still here is to be copied again, to the new one."""
    note: Path = run.copies / "to"
    stated = {"to": address.rstrip("/")}
    make_directory(run)
    if note.exists() and unseal(note.read_bytes()) == stated:
        return
    for shard in copied(run) & run.tars():
        record = record_of(run, shard)
        if record is None or record["to"] != stated["to"]:
            record_path(run, shard).unlink(missing_ok=True)
    replace(note, seal(stated))


class Copying:
    """The copies of a command."""

    def __init__(self, plan: Plan, copier: Copier | None, say: Callable[[str], None]) -> None:
        self._plan, self._copier, self._say = plan, copier, say

    def finish(self, stop: threading.Event, code: int, frees: bool = False) -> int:
        """Wait for the copies of what is made, unless `stop` is set; say what lacks; return the exit code.

        `code`: how the run ended. A run that is whole but lacks copies is interrupted: the same command goes on.
        `frees`: leave what others are copying to them, and the exit code as it is.
        """
        copier = self._copier
        if copier is None:
            return code
        copier.is_ending = True
        try:
            if self._wait(copier, stop, frees):
                return code
            left = copier.left()
        except OSError as error:
            self._say(f"whether all is copied cannot be read: {error}")
            return EXIT_INTERRUPTED if code in (EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES) else code
        copier.close()
        if not left:
            sweep_leases(self._plan.run)
            if code in (EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES):
                self._say(f"all is copied to {self._plan.config.output.copy_to}")
            return code
        if copier.harmed.keys() >= left:
            self._say(
                f"{count(len(copier.harmed), 'shard')} not copied: python -m batchgen.repair {self._plan.run.root}"
            )
            return EXIT_BROKEN
        self._say(f"{self._lacks(left)}; the same command goes on copying")
        return EXIT_INTERRUPTED if code in (EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES) else code

    def _wait(self, copier: Copier, stop: threading.Event, frees: bool) -> bool:
        """Wait; return whether what is left is left to others."""
        launch = self._plan.config.launch
        waited_s = idle_s = 0.0
        while not stop.is_set() and (left := copier.left() - copier.harmed.keys()):
            if copier.outage.lasts_s() > _TIMEOUTS_OF_PATIENCE * launch.lease_timeout_s:
                return False
            idle_s = 0.0 if copier.is_busy or copier.outage.lasts_s() else idle_s + _WAIT_S
            if idle_s > _IDLE_S and (frees or not launch.wait_for_others):
                return frees
            if waited_s % _SAID_EVERY_S == 0:
                self._say(f"waiting for copies: {self._lacks(left)}")
            stop.wait(_WAIT_S)
            waited_s += _WAIT_S
        return False

    def _lacks(self, left: set[int | str]) -> str:
        shards, names = sum(isinstance(one, int) for one in left), sorted(one for one in left if isinstance(one, str))
        what = f"{count(shards, 'shard')} of {self._plan.shard_count}" if shards else " and ".join(names)
        verb = "is" if (shards or len(names)) <= 1 else "are"
        return f"{what} {verb} still to be copied to {self._plan.config.output.copy_to}"
