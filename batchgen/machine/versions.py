"""The versions of what images may depend on, as they are recorded with a run."""

import platform
from importlib.metadata import PackageNotFoundError, version

from batchgen import __version__

RECORDED_VERSIONS = ("torch", "diffusers", "transformers", "accelerate", "pillow")


def versions() -> dict[str, str]:
    """The versions of the packages that images may depend on, by name, for the records of a run."""
    found = {"batchgen": __version__, "python": platform.python_version()}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
