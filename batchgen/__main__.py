"""`batchgen job=NAME [key=value ...]`: Hydra composes the configuration, `run` does the rest.

`batchgen NAME ...` for a name in `console.COMMANDS` is `python -m batchgen.NAME ...`.
"""

import os
import runpy
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batchgen.config.arguments import arranged
from batchgen.config.compose import load, own_files, register, require_job
from batchgen.config.explain import explain, located
from batchgen.config.run_dir import check_run_dir, run_dir_of
from batchgen.config.schema import Config
from batchgen.config.shipped import conf_dir
from batchgen.console import COMMANDS, complain, open_console, say
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, BatchgenError, UserError, from_os_error
from batchgen.launch.ranks import is_first_here, let_the_first_speak
from batchgen.machine.process import was_asked
from batchgen.machine.versions import versions

Ran = Sequence[tuple[Config, int]]


def main() -> None:
    """The command line. Ends the process with one of the exit codes of `batchgen.errors`."""
    open_console()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        runpy.run_module(f"batchgen.{sys.argv.pop(1)}", run_name="__main__")
        return
    if "--version" in sys.argv:
        found = versions()
        print(f"batchgen {found.pop('batchgen')} ({', '.join(f'{name} {what}' for name, what in found.items())})")
        return
    compose(_settled, _front, _tell_sweep)


def compose(
    settle: Callable[[Any], Config], act: Callable[[Config], int], end: Callable[[Ran], None] = lambda _: None
) -> None:
    """Let Hydra compose what the command line says, `settle` it and `act` on it; end the process with the exit code.

    Before it ends, `end` is called with what was acted on and the exit codes, which are several for a sweep.
    """
    # Nothing has begun while the configuration is composed: Ctrl-C ends it as it ends any command, and Hydra, which
    # takes an interruption for a mistake in the configuration, does not hear of it.
    _exchange(signal.default_int_handler, signal.SIG_DFL)
    import hydra

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, to be said in one line
    # The name of the contract; the group of that name leaves every field of the policy to be chosen.
    sys.argv = ["memory=auto" if argument == "memory.policy=auto" else argument for argument in sys.argv]
    running: list[Any] = []
    ran: list[tuple[Config, int]] = []

    def task(composed: Any) -> None:
        if was_asked():  # during the run before this one, of a sweep
            raise KeyboardInterrupt
        running.append(composed)
        ran.append((Config(), EXIT_BROKEN))  # unless it comes to its end
        ran[-1] = _run(composed, settle, act)
        running.clear()

    warnings.showwarning = lambda message, *_: say(str(message).strip().partition("\n")[0])
    register()
    try:
        sys.argv[1:] = arranged(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except BatchgenError as error:
        sys.exit(_complain_once(error))
    except Exception as error:
        if running or (told := explain(error, own_files(), sys.argv[1:])) is None:
            raise
        sys.exit(_complain_once(told))
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        end(ran)
    # A sweep goes on after a run that failed; the worst is what it ends with.
    sys.exit(max((code for _, code in ran), default=EXIT_WHOLE))


def _exchange(handler: Any, other: Any) -> None:
    # Of Ctrl-C; one that is ignored, as behind a script's &, stays so.
    if signal.getsignal(signal.SIGINT) is handler:
        signal.signal(signal.SIGINT, other)


def _complain_once(error: BatchgenError) -> int:
    # Each rank composes the same configuration.
    if is_first_here(os.environ):
        return complain(error)
    let_the_first_speak()
    return error.exit_code


def _settled(composed: Any) -> Config:
    require_job(composed)
    config = load(composed)
    config.run_dir = run_dir_of(config)
    check_run_dir(config.run_dir, dry_run=str(config.dry_run).lower() != "false")
    return config


def _front(config: Config) -> int:
    from batchgen.run import run

    return run(config)


def _tell_sweep(ran: Ran) -> None:
    """Say how the runs of a sweep ended, where they ended here."""
    leaves = any(config.launch.launcher == "slurm" and not config.launch.wait for config, _ in ran)
    if len(ran) < 2 or leaves or any(config.dry_run for config, _ in ran) or not is_first_here(os.environ):
        return
    from batchgen.report.night import Ended, tell

    tell([Ended(Path(config.run_dir), code) for config, code in ran])


def _run(composed: Any, settle: Callable[[Any], Config], act: Callable[[Config], int]) -> tuple[Config, int]:
    from omegaconf.errors import OmegaConfBaseException

    arguments = sys.argv[1:]

    _exchange(signal.SIG_DFL, signal.default_int_handler)
    warnings.simplefilter("ignore")
    config, is_composed = Config(), False
    try:
        config = settle(composed)
        is_composed = True
        return config, act(config)
    except OmegaConfBaseException as error:
        if (told := explain(error, own_files(), arguments)) is None:
            raise
        return config, _complain_once(told)
    except UserError as error:
        error.args = (located(str(error), own_files(), arguments),)
        return config, complain(error) if is_composed else _complain_once(error)
    except BatchgenError as error:
        return config, complain(error)
    except OSError as error:  # a full disk, a forbidden directory
        return config, complain(from_os_error(error, config.run_dir))


if __name__ == "__main__":
    main()
