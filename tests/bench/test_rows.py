"""The rows are data: every lever that the settings have is there, and what makes no sense is left out with why."""

from dataclasses import fields, replace

from batchgen.bench.guide import SAVINGS
from batchgen.bench.rows import GUIDE, LEVERS, ROWS, why_left_out
from batchgen.config.schema import ATTENTION, SpeedConfig
from batchgen.models.families import FAMILIES
from tests.bench.jobs import CPU, GPU

SD, FLUX = FAMILIES["StableDiffusionPipeline"], FAMILIES["FluxPipeline"]
BY_NAME = {row.name: row for row in ROWS}
# Not levers: what is used without one, and the slow way.
NO_LEVERS = {"sdpa", "plain"}


def left_out(place, family, speed=None):
    """The names of the rows that are left out."""
    return {row.name for row in ROWS if why_left_out(row, place, family, speed or SpeedConfig()) is not None}


def test_every_lever_of_the_settings_has_a_row():
    assert {name for name, _, _ in LEVERS} == {one.name for one in fields(SpeedConfig)}
    assert {value for name, value, _ in LEVERS if name == "attention"} == {*ATTENTION} - NO_LEVERS
    assert len(BY_NAME) == len(ROWS)
    assert tuple(row.name for row in GUIDE) == SAVINGS


def test_what_makes_no_sense_is_left_out():
    kernels = {f"batchgen_{name}" for name in ("efficient", "cudnn", "xformers", "blocks", "whole", "graphs")}
    assert left_out(CPU, SD) == kernels | {"fp16", "memory_efficient"}
    assert left_out(GPU, SD) == {"batchgen_xformers"}
    assert left_out(replace(GPU, has_xformers=True), SD) == set()
    of_unets = {"channels_last", "traced", "memory_efficient", "batchgen_channels_last", "batchgen_traced"}
    assert left_out(GPU, FLUX) == of_unets | {"batchgen_xformers"}
    assert "FLUX" in str(why_left_out(BY_NAME["traced"], GPU, FLUX, SpeedConfig()))


def test_a_lever_that_is_given_already_has_no_row_of_its_own():
    given = SpeedConfig(traced=True, attention="cudnn")
    assert left_out(GPU, SD, given) == {"batchgen_traced", "batchgen_cudnn", "batchgen_xformers"}
