"""For all tests."""

import atexit
import os
import shutil
import signal
import tempfile

from hypothesis import settings

# A commit passes or fails whoever runs its tests. `pytest --hypothesis-profile=default tests/plan` looks for new cases.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Models are checked once in a session, and what it keeps is nobody's else.
if "BATCHGEN_CACHE" not in os.environ:
    os.environ["BATCHGEN_CACHE"] = tempfile.mkdtemp(prefix="batchgen-tests-")
    atexit.register(shutil.rmtree, os.environ["BATCHGEN_CACHE"], ignore_errors=True)
# Runs that share two cores must not spin while they wait for each other; see batchgen/worker/loop.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# What nohup or a script's & has pytest ignore, the commands that it starts would ignore too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


LEFT_OUT = ("torture", "cluster", "families", "browser")


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked with one of `LEFT_OUT` unless `-m` names it; so `-m "not slow"` leaves it out too."""
    marks = [mark for mark in LEFT_OUT if mark not in config.getoption("-m")]
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
