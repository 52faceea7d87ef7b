"""What may change on a resume: each command writes it to RUN/free.yaml, and every worker reads it there.

The plan stays as it was written. `recipe.FREE` lists the keys that are free. Where no command has written the file yet,
the plan's own values count.
"""

from dataclasses import asdict

import yaml

from batchgen.config.schema import Config, flatten, from_plain
from batchgen.errors import UserError
from batchgen.files import replace
from batchgen.paths import RunDir
from batchgen.plan.recipe import is_free, set_key

_HEAD = "# What the last command on this run set and its workers go by. The same command writes it anew.\n"


def save_free(run: RunDir, config: Config) -> None:
    """Write the free settings of a command for all workers that load the plan from now on."""
    free = {key: value for key, value in flatten(asdict(config)).items() if is_free(key)}
    data = (_HEAD + yaml.safe_dump(free, sort_keys=False)).encode()
    if not run.free.is_file() or run.free.read_bytes() != data:
        replace(run.free, data)


def with_free(run: RunDir, planned: Config) -> Config:
    """The configuration of a plan with the free settings of the last command. Raises UserError."""
    try:
        stated = yaml.safe_load(run.free.read_bytes())
    except FileNotFoundError:
        return planned
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{run.free} cannot be read: remove it, and the same command writes it again") from error
    plain = asdict(planned)
    known = flatten(plain).keys()  # a key that this version does not know belongs to another version and is ignored
    for key, value in stated.items() if isinstance(stated, dict) else ():
        if key in known and is_free(key):
            set_key(plain, key, value)
    return from_plain(plain)
