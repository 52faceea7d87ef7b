"""`python -m batchgen job=NAME [key=value ...]`: Hydra composes the configuration, `run` does the rest."""

import os
import signal
import sys
import warnings
from typing import Any

from batchgen.config.compose import conf_dir, explain, load, register, require_job, run_dir_of
from batchgen.config.schema import Config
from batchgen.console import complain, open_console, say
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE, BatchgenError, from_os_error


def main() -> None:
    """The command line. Ends the process with one of the exit codes of `batchgen.errors`."""
    open_console()
    # Nothing has begun while the configuration is composed: Ctrl-C ends it as it ends any command, and Hydra, which
    # takes an interruption for a mistake in the configuration, does not hear of it.
    _exchange(signal.default_int_handler, signal.SIG_DFL)
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, to be said in one line
    # The name of the contract; the group of that name leaves every field of the policy to be chosen.
    sys.argv = ["memory=auto" if argument == "memory.policy=auto" else argument for argument in sys.argv]
    codes: list[int] = []

    def task(composed: Any) -> None:
        codes.append(_run(composed))

    register()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(complain(explain(error)))
    except KeyboardInterrupt:  # between two runs of a sweep
        sys.exit(_stopped())
    # A sweep goes on after a run that failed; the worst is what it ends with.
    sys.exit(max(codes, default=EXIT_WHOLE))


def _exchange(handler: Any, other: Any) -> None:
    # Of Ctrl-C; one that is ignored, as behind a script's &, stays so.
    if signal.getsignal(signal.SIGINT) is handler:
        signal.signal(signal.SIGINT, other)


def _run(composed: Any) -> int:
    from omegaconf.errors import OmegaConfBaseException

    from batchgen.run import run

    _exchange(signal.SIG_DFL, signal.default_int_handler)
    warnings.simplefilter("ignore")
    config = Config()
    try:
        require_job(composed)
        config = load(composed)
        config.run_dir = run_dir_of(config)
        return run(config)
    except OmegaConfBaseException as error:
        return complain(explain(error))
    except BatchgenError as error:
        return complain(error)
    except OSError as error:  # a full disk, a forbidden directory
        return complain(from_os_error(error, config.run_dir))
    except KeyboardInterrupt:
        return _stopped()


def _stopped() -> int:
    say("stopped; the same command goes on")
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    main()
