"""README.md of a run: a data set card as Hugging Face reads it. `datasets` and the hub find the tars by its head.

The card is made from samples.parquet, so that is written first. Its second line has the sha256 of all the others: where
it does not fit, a person has edited the card, which is then left alone.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from batchgen import __version__
from batchgen.config.schema import flatten
from batchgen.config.shipped import conf_dir
from batchgen.files import is_plain, replace, sha256_bytes
from batchgen.plan.store import Plan
from batchgen.report.table import COLUMNS
from batchgen.shards.samples import SampleMaker
from batchgen.shards.tars import read_samples
from batchgen.stores.hub import DEFAULT_FOLDER, PREFIX

_MARK = "# batchgen wrote this card. If you edit it, batchgen leaves it alone. sha256 of the other lines: "
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&$:@])")
_TYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}
_ABOUT = {
    "key": "the key of the sample in its tar",
    "shard": "the tar, where there is one",
    "offset": "where the image begins in it, in bytes",
    "size": "how many bytes it has",
    "status": "`ok`, `failed`, `filtered` or `open` (not made yet)",
    "reason": "why there is no image",
    "sha256": "of the image",
}
_LOADING = """\
```python
from datasets import load_dataset

images = load_dataset("PATH", split="train")  # PATH is this folder, or the data set's name on the hub
stream = load_dataset("PATH", split="train", streaming=True)
```

```python
import glob

import webdataset
from torch.utils.data import DataLoader

tars = sorted(glob.glob("PATH/shards/*.tar"))
pairs = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False).decode("torchrgb8").to_tuple("{image}", "txt")
loader = DataLoader(pairs, batch_size=None, num_workers=4)
```

```python
import pandas

table = pandas.read_parquet("PATH/samples.parquet")
```
"""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the table says: how many images have which status, and the types of the rows' own columns by their names."""

    counts: Counter[str]
    own: dict[str, str]


def write_card(plan: Plan) -> None:
    """Write the card, unless a person has edited it. samples.parquet must be there. Raises OSError."""
    path = plan.run.card
    if not os.path.lexists(path) or (is_plain(path) and is_ours(path.read_bytes())):
        replace(path, marked(card(plan)), durable=False)


def marked(text: str) -> bytes:
    """The card with the line that says that it is batchgen's own, as its second."""
    first, _, rest = text.partition("\n")
    top, data = first.encode(errors="replace"), rest.encode(errors="replace")
    return b"\n".join([top, f"{_MARK}{sha256_bytes(top + data)}".encode(), data])


def is_ours(data: bytes) -> bool:
    """Whether batchgen wrote this card, and nobody has edited it since."""
    first, _, rest = data.partition(b"\n")
    mark, _, rest = rest.partition(b"\n")
    return mark == f"{_MARK}{sha256_bytes(first + rest)}".encode()


def card(plan: Plan) -> str:
    """The card's text, without the mark."""
    facts, sample = _facts(plan), _first_sample(plan)
    sections = [_head(plan, facts, sample), *_body(plan, facts, sample)]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _facts(plan: Plan) -> _Facts:
    from pyarrow.parquet import ParquetFile

    counts: Counter[str] = Counter()
    with ParquetFile(plan.run.samples_table) as table:
        own = {one.name: str(one.type) for one in table.schema_arrow if one.name not in COLUMNS}
        for group in table.iter_batches(columns=["status"]):
            counts.update(group.column(0).to_pylist())
    return _Facts(counts, own)


def _first_sample(plan: Plan) -> dict[str, bytes] | None:
    """The files of the first sample that is on this disk, by extension; None where no tar has any."""
    for shard in sorted(plan.run.tars()):
        try:
            found = next(read_samples(plan.run.tar(shard)), None)
        except Exception:  # the tar is torn; the report says so
            continue
        if found is not None:
            return found[1]
    return None


def _head(plan: Plan, facts: _Facts, sample: dict[str, bytes] | None) -> str:
    tars = ["shards/*.tar"]
    if (plan.config.output.copy_to or "").startswith(PREFIX):  # there, the card is beside that folder
        tars.append(f"{DEFAULT_FOLDER}/shards/*.tar")
    head: dict[str, Any] = {
        "pretty_name": plan.config.job.name,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": tars}]}],
        "size_categories": [size_category(facts.counts["ok"])],
        "task_categories": ["text-to-image"],
        "tags": ["batchgen", "image", "synthetic", "webdataset"],
    }
    if sample is not None and (features := _features(plan, sample)) is not None:
        head["dataset_info"] = {"features": features}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}{_TO_DO}\n---"


_TO_DO = "# To do: choose the licence of this data set and write it here, such as: license: cc-by-4.0"


def size_category(images: int) -> str:
    """The hub's word for the size of a data set."""
    place = max(0, len(str(images)) - 3)  # 999 has three digits, 1000 has four
    if place == 0:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[place - 1]}<n<{_SIZES[place]}" if place < len(_SIZES) else f"n>{_SIZES[-1]}"


def _features(plan: Plan, sample: dict[str, bytes]) -> list[dict[str, Any]] | None:
    """The fields of a sample as `datasets` writes them; None for the first form, whose fields change their types.

    `datasets` then need not look for them, which it can only in a first tar that is not empty.
    """
    if plan.segments[0].sample_form < 2:
        return None
    kinds = {"json": _feature(json.loads(sample["json"])), "txt": {"dtype": "string"}}
    fields = [{"name": name, **kinds.get(name, {"dtype": "image"})} for name in sorted(sample)]
    return [*fields, {"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]


def _feature(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"struct": [{"name": name, **_feature(one)} for name, one in value.items()]}
    return {"list": _feature(value[0])} if isinstance(value, list) else {"dtype": _TYPES[type(value)]}


def _body(plan: Plan, facts: _Facts, sample: dict[str, bytes] | None) -> Iterator[str]:
    maker = SampleMaker.of(plan, "", "")
    job, counts = plan.planned.job, facts.counts
    yield f"# {escaped(plan.config.job.name)}"
    yield (
        f"{counts['ok']:,} images that batchgen {__version__} made of prompts, with the model "
        f"{escaped(maker.model)}. {counts.total():,} were planned; {counts['failed']:,} failed, {counts['filtered']:,} "
        f"were filtered and {counts['open']:,} are not made yet."
    )
    yield "## Settings\n\nA row of a prompt file may override the size, steps, guidance, seed and negative prompt."
    settings = {"model": maker.model, "model revision": maker.revision, "dtype": plan.planned.model.dtype}
    settings |= {name: getattr(job, name) for name in ("scheduler", "steps", "guidance", "width", "height", "seed")}
    settings |= {"negative prompt": job.negative_prompt, "image format": maker.image_format}
    yield _table(("setting", "value"), settings)
    yield "## Samples\n\nEach sample is an image, its prompt as text, and a JSON that says how it was made."
    if sample is not None:
        yield f"The JSON of the first:\n\n{fenced(_pretty(sample['json']), 'json')}"
    yield "`samples.parquet` has a row for each planned image, also for those that have no image."
    columns = COLUMNS | facts.own
    about = {name: _ABOUT.get(name, "as planned" if name in COLUMNS else "from the prompt files") for name in columns}
    yield _table(("column", "type", "what it is"), {name: f"{columns[name]} | {about[name]}" for name in columns}, True)
    yield f"## Loading\n\n{_LOADING.replace('{image}', maker.image_format)}"
    yield f"## Licence\n\nTo do: choose a licence, and state it here and at the top of this file.{_note(plan)}"


def _note(plan: Plan) -> str:
    """What the model's preset says of the model and its licence, as a paragraph; "" without a preset."""
    for path in sorted((conf_dir() / "model").glob("*.yaml")):
        text = path.read_text()
        if flatten(yaml.safe_load(text)).get("path") == plan.planned.model.path:
            lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            return f" batchgen's note on the model:\n\n> {escaped(' '.join(lines))}" if lines else ""
    return ""


def _table(names: tuple[str, ...], rows: dict[str, Any], are_cells: bool = False) -> str:
    """A table of Markdown. `are_cells`: the values are cells that were made for it, else any text."""
    head = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    return "\n".join(
        [
            *head,
            *(f"| {escaped(name)} | {value if are_cells else escaped(str(value))} |" for name, value in rows.items()),
        ]
    )


def _pretty(data: bytes) -> str:
    return json.dumps(json.loads(data), ensure_ascii=False, indent=1)


def escaped(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str) -> str:
    """Any text as a block of code, which no backtick in it ends."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
