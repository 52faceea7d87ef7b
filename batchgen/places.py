"""Where files are that belong to no run: the bundled models, what is kept between runs, and the site's settings."""

import os
from pathlib import Path

import platformdirs


def models_dir() -> Path:
    """Where the models that are bundled with the package are."""
    return Path(__file__).resolve().parent / "models"


def cache_dir() -> Path:
    """Where figures and checks are kept between runs: $BATCHGEN_CACHE, or a folder in the user's cache directory."""
    folder = os.environ.get("BATCHGEN_CACHE")
    return Path(folder) if folder else platformdirs.user_cache_path("batchgen")


def site_file() -> Path:
    """The settings of this site, written once for all jobs: $BATCHGEN_SITE, or a file in the user's configuration."""
    file = os.environ.get("BATCHGEN_SITE")
    return Path(file) if file else platformdirs.user_config_path("batchgen") / "site.yaml"
