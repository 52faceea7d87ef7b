"""For all tests."""

import os

# Runs that share two cores must not spin while they wait for each other; see batchgen/worker.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
