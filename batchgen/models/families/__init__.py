"""The families of text-to-image models that run here, each in a module of its own, found by its pipeline's class.

A family is added by a module in this folder that has a `FAMILY`, and by its test.
"""

import importlib
import pkgutil
from pathlib import Path

from batchgen.errors import ModelError
from batchgen.models.families.base import Family
from batchgen.models.parts import read_index

FAMILIES: dict[str, Family] = {
    found.pipeline: found
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name)
    if (found := getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)) is not None
}
"""The families, by the class of their pipeline in diffusers."""


def family_in(folder: Path) -> Family:
    """The family of the model in a folder. Raises ModelError where it is of none, or is no model."""
    name = read_index(folder)[0]
    if name not in FAMILIES:  # a model that brings its own code has a list here
        known = ", ".join(f"{one.title} ({pipeline})" for pipeline, one in FAMILIES.items())
        raise ModelError(f"{folder} is a {name}, which batchgen does not run; it runs {known}")
    return FAMILIES[name]
