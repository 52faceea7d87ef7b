"""How Hydra composes the configuration. It acts once, at the front door."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from batchgen.config.check import check
from batchgen.config.options import with_texts, without_slurm
from batchgen.config.own_files import OwnFile, linked
from batchgen.config.run_dir import name_of_prompts, run_dir_of
from batchgen.config.schema import Config
from batchgen.config.shipped import conf_dir, jobs_dir
from batchgen.config.site import NAME, let_choices_win, read_site, used_site
from batchgen.console import usage
from batchgen.errors import ConfigError

# What a command without a job has in place of prompt files.
NO_PROMPTS = "none"
_OPENED: dict[Path, str] = {}


def register() -> None:
    """Register the schema and the resolvers that conf/ uses with Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store("schema", Config)
    OmegaConf.register_new_resolver("batchgen.jobs", lambda name: str(jobs_dir() / name), replace=True)
    OmegaConf.register_new_resolver("batchgen.scratch", _scratch, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("batchgen.usage", usage, replace=True)
    _watch_files()


def _scratch() -> str:
    """Make a folder for the multirun.yaml that Hydra writes for each sweep; nobody reads it."""
    folder = tempfile.mkdtemp(prefix="batchgen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(composed: Any) -> Config:
    """Turn what Hydra composed into a checked `Config`. Raises ConfigError, or OmegaConf's own errors."""
    from omegaconf import OmegaConf

    _yield_to_choices(composed)
    # Merge into the schema again: a key that was added with + has not been checked against it.
    plain = OmegaConf.to_container(composed, resolve=False)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert isinstance(config, Config)
    check(config)
    return config


def _yield_to_choices(composed: Any) -> None:
    """Let the options that a job or the command line chose count more than the site file."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    typed = list(hydra.overrides.task)
    if (site := used_site()) is not None:
        let_choices_win(composed, read_site(site), dict(hydra.runtime.choices), typed)
    if composed.launch.launcher != "slurm" and (lost := without_slurm(typed)) is not None:
        raise ConfigError(f"{lost}: an option of SLURM needs launch=slurm; without it this machine does the work")


def require_job(composed: Any) -> None:
    """Give a job that has no name one: that of the option, or of its prompt files.

    Raises ConfigError with the list of jobs if no job was named, and no prompts.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not OmegaConf.is_missing(composed.job, "name"):
        return
    chosen = HydraConfig.get().runtime.choices.get("job") if HydraConfig.initialized() else None
    prompts = None if OmegaConf.is_missing(composed.job, "prompts") else composed.job.prompts
    if chosen:
        composed.job.name = chosen.removesuffix(".yaml").rpartition("/")[2]
    elif prompts:
        composed.job.name = name_of_prompts(prompts)
    else:
        jobs = ", ".join(GlobalHydra.instance().config_loader().get_group_options("job"))
        raise ConfigError(f"name a job with job=NAME; choose one of {jobs}, or name a prompt file: job.prompts=FILE")


def load_any(composed: Any, name: str) -> Config:
    """As `load`, also without a job: then the job is called `name`, and its prompts are NO_PROMPTS.

    The directory of the run is settled. Raises ConfigError, or OmegaConf's own errors.
    """
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(composed.job, "prompts") and OmegaConf.is_missing(composed.job, "name"):
        composed.job.name, composed.job.prompts = name, NO_PROMPTS
    require_job(composed)
    config = load(composed)
    config.run_dir = run_dir_of(config)
    return config


def own_files() -> list[OwnFile]:
    """The configuration files that this run opened and that did not come with batchgen, each once, in order."""
    return linked([OwnFile(path, name) for path, name in _OPENED.items() if not path.is_relative_to(conf_dir())])


def _watch_files() -> None:
    """Note which files Hydra opens: its errors do not always name them."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.config_source import ConfigSource

    sources: list[Any] = list(Plugins.instance().discover(ConfigSource))
    (files,) = (source for source in sources if source.scheme() == "file")
    opens = files.load_config
    if opens.__module__ == __name__:
        return

    def load_config(source: Any, config_path: str) -> Any:
        path = Path(source.path, source._normalize_file_name(config_path)).resolve()
        if path == conf_dir() / "config.yaml":  # the next run of a sweep is composed
            _OPENED.clear()
        if path.exists():
            _OPENED[path] = config_path
        found = opens(source, config_path)
        with_texts(path, found.config)
        if path == conf_dir() / "config.yaml" and (site := used_site()) is not None:
            _OPENED[site.resolve()] = NAME
            found.config.merge_with(read_site(site))
        return found

    files.load_config = load_config
