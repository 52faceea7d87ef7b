"""How Hydra composes the configuration: all that touches it, its errors in one line included.

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

# Which run it is: not part of what a run of a sweep is called.
_UNNAMED = ("job", "run_dir", "dry_run", "extend", "retry_failed")
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
    """Tell Hydra the schema and the resolvers that conf/ uses."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store("schema", Config)
    OmegaConf.register_new_resolver("batchgen.jobs", lambda name: str(jobs_dir() / name), replace=True)
    OmegaConf.register_new_resolver("batchgen.scratch", _scratch, replace=True, use_cache=True)


def _scratch() -> str:
    """Hydra insists on a folder for each sweep's multirun.yaml; nobody reads it."""
    folder = tempfile.mkdtemp(prefix="batchgen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(composed: Any) -> Config:
    """A checked `Config` from what Hydra composed. Raises ConfigError, or OmegaConf's own errors."""
    from omegaconf import OmegaConf

    # Composed once more: a key added with + has slipped past the schema.
    plain = OmegaConf.to_container(composed, resolve=False)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert isinstance(config, Config)
    check(config)
    return config


def run_dir_of(config: Config) -> str:
    """The run directory; in a sweep (-m) each run gets one of its own, named by its overrides.

    The name depends on the overrides alone, so that the same sweep resumes all its runs.
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
    """Raise ConfigError, with the jobs there are, where none was named."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(composed.job, "name"):
        loader = GlobalHydra.instance().config_loader()
        raise ConfigError(f"say which job: job=NAME; possible: {', '.join(loader.get_group_options('job'))}")


def explain(error: Exception) -> ConfigError:
    """Hydra's or OmegaConf's error as one line that says what is possible."""
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
        return ConfigError(f"{override!r} cannot be read: write \"key='a value, quoted'\" or 'key=[a,list]'")
    if text.startswith("Ambiguous value"):
        return ConfigError("a comma starts a sweep, which needs -m; a list is written 'key=[a,b]', in quotes")
    first = _first_line(str(cause))
    return ConfigError(f"{key}: {first}" if key and key not in first else first)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "the configuration cannot be composed"
