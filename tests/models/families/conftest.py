"""The tiny model of the family that a class of tests is about, saved once, and what loads it."""

import pytest


def pytest_collection_modifyitems(items):
    """What needs a family's tiny model is marked `families`."""
    for item in items:
        if "folder" in getattr(item, "fixturenames", ()) and item.path.parent.name == "families":
            item.add_marker(pytest.mark.families)


@pytest.fixture(scope="class")
def folder(request, tmp_path_factory):
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("families") / request.cls.__name__
    request.cls.build().save_pretrained(folder)
    return folder


@pytest.fixture(scope="class")
def engine(folder):
    from batchgen.models.find import ModelFiles
    from batchgen.pipeline.engine import DiffusersEngine
    from tests.models.families.contract import POLICY

    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    engine.prepare(POLICY)
    return engine


@pytest.fixture(scope="class")
def pipe(request, folder):
    """Diffusers' own pipeline of the model."""
    import torch
    from diffusers import DiffusionPipeline

    left_out = {name: None for name in request.cls.family.optional if not (folder / name).is_dir()}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **left_out)
    pipe.set_progress_bar_config(disable=True)
    return pipe
