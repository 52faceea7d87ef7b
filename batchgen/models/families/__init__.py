"""The families of text-to-image models that run here, each in a module of its own, found by its pipeline's class.

A family is added by a module in this folder that has a `FAMILY`, and by its test.
"""

import importlib
import pkgutil

from batchgen.models.families.base import Family

FAMILIES: dict[str, Family] = {
    found.pipeline: found
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name)
    if (found := getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)) is not None
}
"""The families, by the class of their pipeline in diffusers."""
