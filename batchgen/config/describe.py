"""docs/configuration.md, written from the schema, its comments, the choices and bounds, and conf/.

python -m batchgen.config.describe > docs/configuration.md
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from batchgen.config import schema
from batchgen.config.bounds import BOUNDS, Bound
from batchgen.config.check import CHOICES
from batchgen.config.shipped import conf_dir
from batchgen.console import open_console

_INTRODUCTION = """# Configuration

<!-- `make docs` writes this file from batchgen/config/ and conf/. Edit those, not this. -->

Set a key on the command line with `key=value`, choose an option of a group with `group=option`, or keep settings of
your own in a folder that `--config-dir` names (see [Jobs of your own](#jobs-of-your-own)). `python -m batchgen --help`
prints every key with its value. A key, type or value that is not valid ends the command with exit code 2 before
anything is written. `null` means that the key is not set.
"""
_JOBS = """
## Jobs of your own

Put a file such as `mine/job/venus.yaml` somewhere:

```yaml
# @package _global_
defaults:
  - override /model: sdxl
job:
  name: venus
  prompts: venus.csv
  steps: 30
  scheduler: unipc
```

and run it with `python -m batchgen --config-dir mine job=venus`. A mistake in the file is told with its line. Prompts
need no job: `python -m batchgen job.prompts=venus.csv` makes them with the bundled model, in `outputs/venus`.
"""
_SITE = """
## The settings of a site

What is the same for all jobs of a site goes into one file, which is found without an option:
`~/.config/batchgen/site.yaml`, or the file that `BATCHGEN_SITE` names. It has the keys of a job file:

```yaml
launch:
  workers: 8
  scratch: /scratch/$USER
  slurm:
    partition: gpu
    account: my_project
    time: 08:00:00
    gpus-per-task: 1
  collector:
    partition: cpu
  setup:
    - module load cuda
```

It counts more than the defaults, and less than a job or the command line. Under `launch.slurm` and `launch.collector`
any long option of sbatch may stand, with dashes or underscores: `true` is an option without a value, `null` leaves one
out. On the command line write `launch.slurm.partition=gpu`. What batchgen sets itself, such as `--array`, is refused
with the key to set instead. A password or token that is written out in `launch.setup` is refused, too: export it in the
shell that starts batchgen.
"""


def page() -> str:
    """Return the text of docs/configuration.md."""
    return "\n".join([_INTRODUCTION, *_group(schema.Config, ""), _JOBS, _SITE, *_options()]).rstrip("\n") + "\n"


def _group(kind: Any, prefix: str, about: str | None = None) -> Iterator[str]:
    """The section of one group and, after it, those of the groups within it."""
    comments = _comments(kind)
    title = f"`{prefix.rstrip('.')}`" if prefix else "Top level"
    yield f"## {title}\n\n{about or ' '.join(str(kind.__doc__).split())}\n"
    yield "| key | type | default | valid values | meaning |\n| --- | --- | --- | --- | --- |"
    groups: list[tuple[Any, str, str | None]] = []
    for field in fields(kind):
        if is_dataclass(field.default_factory):
            groups.append((field.default_factory, f"{prefix}{field.name}.", comments.get(field.name)))
            continue
        name = prefix + field.name
        meaning = comments.get(field.name) or f"The column that holds `{field.name}`."
        default = "from the job or the prompts" if name == "job.name" else _default(_value(field))
        row = (f"`{name}`", f"`{_type(field.type)}`", default, _valid(name), meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
    for group in groups:
        yield from _group(*group)


def _comments(kind: Any) -> dict[str, str]:
    """The comment above each field of a dataclass, as one line of Markdown."""
    lines = inspect.getsource(kind).splitlines()
    found = {}
    for node in ast.parse(inspect.getsource(kind)).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            text = " ".join(line.strip().lstrip("# ") for line in lines[first : node.lineno - 1])
            found[node.target.id] = re.sub(r"<\w+>", r"`\g<0>`", text)  # else Markdown takes it for a tag
    return found


def _type(kind: Any) -> str:
    if kind is Any:
        return "str or list"
    if str(kind).startswith("dict"):
        return "names and values"
    if kind == list[str]:
        return "list"
    return kind.__name__ if isinstance(kind, type) else str(kind).replace(" | None", " or null")


def _value(one: Field[Any]) -> Any:
    return one.default_factory() if callable(one.default_factory) else one.default


def _default(value: Any) -> str:
    if value == "???":
        return "required"
    if isinstance(value, str) and value.startswith("${"):
        return f"the value of `{value[2:-1]}`"
    if isinstance(value, str) and value:
        return f"`{value}`"
    return '`""`' if value == "" else f"`{yaml.safe_dump(value).split()[0]}`"


def _valid(name: str) -> str:
    if name in CHOICES:
        return ", ".join(f"`{choice}`" for choice in CHOICES[name] if choice is not None)
    bound = None if name.startswith("job.columns.") else BOUNDS.get(name.rpartition(".")[2])
    if name == "model.size_px":
        bound = BOUNDS["width"]
    if bound is None:
        return ""
    return ("0, or " if name == "memory.policy.tile_px" else "") + _range(bound)


def _range(bound: Bound) -> str:
    multiple = f", a multiple of {bound.multiple}" if bound.multiple > 1 else ""
    return f"{bound.low} to {bound.high}{multiple}"


def _options() -> Iterator[str]:
    yield "## Options of the groups\n\nThese files in `conf/` come with batchgen; the first column is what to write.\n"
    yield "| option | what it is |\n| --- | --- |"
    for path in sorted(conf_dir().glob("*/*.yaml")):
        yield f"| `{path.parent.name}={path.stem}` | {_heading(path)} |"


def _heading(path: Path) -> str:
    """The first comment of a file in conf/, up to the command that it shows."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    text = " ".join(line.removeprefix("# ") for line in lines if not line.startswith("#   "))
    return text.rstrip(":") + ("." if text.endswith(":") else "")


if __name__ == "__main__":
    open_console()
    print(page(), end="")
