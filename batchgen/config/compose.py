"""How Hydra composes the configuration. All code that touches Hydra is here, and so is the wording of its errors.

Hydra acts once, at the front door.
"""

import atexit
import hashlib
import re
import shutil
import string
import tempfile
from pathlib import Path
from typing import Any

from batchgen.config.check import check, did_you_mean
from batchgen.config.schema import Config, known_keys
from batchgen.errors import ConfigError

# These keys do not become part of the name of a run in a sweep.
_UNNAMED = ("job", "run_dir", "dry_run", "extend", "retry_failed", "price_per_gpu_hour")
_MAX_NAME_CHARS = 100


def conf_dir() -> Path:
    """Where conf/ is: inside the package when installed, beside it in a checkout."""
    return _shipped("conf")


def jobs_dir() -> Path:
    """Where the shipped prompt files are: inside the package when installed, beside it in a checkout."""
    return _shipped("jobs")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def register() -> None:
    """Register the schema and the resolvers that conf/ uses with Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store("schema", Config)
    OmegaConf.register_new_resolver("batchgen.jobs", lambda name: str(jobs_dir() / name), replace=True)
    OmegaConf.register_new_resolver("batchgen.scratch", _scratch, replace=True, use_cache=True)


def _scratch() -> str:
    """Make a folder for the multirun.yaml that Hydra writes for each sweep; nobody reads it."""
    folder = tempfile.mkdtemp(prefix="batchgen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(composed: Any) -> Config:
    """Turn what Hydra composed into a checked `Config`. Raises ConfigError, or OmegaConf's own errors."""
    from omegaconf import OmegaConf

    # Merge into the schema again: a key that was added with + has not been checked against it.
    plain = OmegaConf.to_container(composed, resolve=False)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert isinstance(config, Config)
    check(config)
    return config


def run_dir_of(config: Config) -> str:
    """Return the run directory; in a sweep (-m) each run gets its own, named by its overrides.

    The name depends only on the overrides, so that the same sweep resumes all its runs.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return config.run_dir
    overrides = sorted(
        override
        for override in map(str, hydra.overrides.task)
        if override.partition("=")[0] not in _UNNAMED and not override.startswith("launch.")
    )
    name = ",".join(overrides)
    allowed = string.ascii_letters + string.digits + "._=,+-"
    safe = "".join(char if char in allowed else "_" for char in name)
    if safe != name or len(safe) > _MAX_NAME_CHARS:
        safe = f"{safe[:_MAX_NAME_CHARS]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{config.run_dir}-{safe}" if overrides else config.run_dir


def require_job(composed: Any) -> None:
    """Raise ConfigError with the list of jobs if none was named."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(composed.job, "name"):
        loader = GlobalHydra.instance().config_loader()
        raise ConfigError(f"name a job with job=NAME; choose one of {', '.join(loader.get_group_options('job'))}")


def explain(error: Exception) -> ConfigError:
    """Turn an error of Hydra or OmegaConf into one line that says what is valid."""
    cause = error.__cause__ or error
    text = f"{error}\n{cause}"
    key = str(getattr(cause, "full_key", None) or "")
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and unknown[1] not in known_keys():
        return ConfigError(f"{unknown[1]}: no such key{did_you_mean(unknown[1], known_keys())}")
    if type(cause).__name__ == "ConfigKeyError":
        return ConfigError(f"{key}: no such key{did_you_mean(key, known_keys())}")
    options = getattr(error, "options", None) or []
    if option := re.search(r"Could not find '(\w+)/([^']+)'", text):
        return ConfigError(f"{option[1]}={option[2]}: no such option{did_you_mean(option[2], options)}")
    if override := getattr(error, "override", None):
        return ConfigError(f"{override!r} cannot be parsed: put it in quotes, like \"key='a value'\" or 'key=[a,list]'")
    if text.startswith("Ambiguous value"):
        return ConfigError("a comma starts a sweep, which needs -m; write a list in quotes: 'key=[a,b]'")
    first = _first_line(str(cause))
    return ConfigError(f"{key}: {first}" if key and key not in first else first)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "the configuration could not be composed"
