"""A small model of each family, and its images with all weights on the device."""

import pytest


@pytest.fixture(scope="module", params=["sd15", "sdxl"])  # tests.pipeline.small_models.KINDS, which needs torch
def folder(request, tmp_path_factory):
    from tests.pipeline.small_models import save

    return save(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def resident(folder):
    from batchgen.models.find import ModelFiles
    from batchgen.pipeline.engine import DiffusersEngine
    from tests.pipeline.placed import images

    return images(DiffusersEngine(ModelFiles(folder), "model", "fp32"))
