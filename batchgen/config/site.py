"""The site file: settings for all jobs, between the defaults of batchgen and a job or the command line."""

import os
from pathlib import Path
from typing import Any

import yaml

from batchgen.config.keys import GROUPS_OF_OPTIONS
from batchgen.config.options import with_texts
from batchgen.config.schema import flatten
from batchgen.config.shipped import conf_dir
from batchgen.errors import ConfigError
from batchgen.places import site_file

NAME = "site.yaml"  # what the file is called, as Hydra names a file that it opened


def used_site() -> Path | None:
    """The site file, if there is one. Raises ConfigError where $BATCHGEN_SITE names a file that is not there."""
    path = site_file()
    if path.is_file():
        return path
    if os.environ.get("BATCHGEN_SITE"):
        raise ConfigError(f"BATCHGEN_SITE={path}: there is no such file; unset the variable to do without a site file")
    return None


def read_site(path: Path) -> Any:
    """What the site file sets, as OmegaConf holds it. Raises YAML's errors, and ConfigError for a list of defaults."""
    from omegaconf import DictConfig, OmegaConf

    found = OmegaConf.load(path)
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{path}:1: the file holds a list or text where keys with values are needed, such as launch:")
    if "defaults" in found:
        raise ConfigError(f"{path}: defaults: a site file sets keys; an option of a group is chosen in a job")
    with_texts(path, found)
    return found


def let_choices_win(composed: Any, site: Any, choices: dict[str, Any], typed: list[str]) -> None:
    """Give options that a job or the command line chose precedence over the site file, which was merged after them.

    `choices`: the option of each group; `typed`: the settings of the command line.
    """
    from omegaconf import OmegaConf

    stated = _flat(site)
    now = _flat(composed)
    typed_keys = {word.partition("=")[0].lstrip("+~") for word in typed}
    defaults = _default_options()
    for group in GROUPS_OF_OPTIONS:
        path = conf_dir() / group / f"{choices.get(group)}.yaml"
        is_chosen = group in typed_keys or choices.get(group) != defaults.get(group)
        if group == "job" or not is_chosen or not path.is_file():
            continue
        own = flatten({group: OmegaConf.to_container(OmegaConf.load(path), resolve=False)})
        for key in own.keys() & stated.keys() - typed_keys:
            if now.get(key) == stated[key]:  # else the job sets it
                OmegaConf.update(composed, key, own[key])


def _flat(values: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return flatten(OmegaConf.to_container(values, resolve=False))  # type: ignore[arg-type]


def _default_options() -> dict[str, str]:
    """The option of each group that is taken where nobody chooses."""
    listed = yaml.safe_load((conf_dir() / "config.yaml").read_bytes())["defaults"]
    return {group: option for one in listed if isinstance(one, dict) for group, option in one.items()}
