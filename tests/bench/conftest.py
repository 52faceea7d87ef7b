"""A small model for the tests of the bench."""

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The folder of a Stable Diffusion 1.5 that loads in a moment."""
    from tests.pipeline.small_models import save

    return save("sd15", tmp_path_factory.mktemp("models") / "small")
