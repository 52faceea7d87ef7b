"""Runs are read as docs/reading.md says: by webdataset, a DataLoader, Hugging Face `datasets` and tarfile."""

import json
import re
import shutil
import sys
import tarfile
from typing import Any

import pytest

from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.report.table import COLUMNS
from batchgen.shards.finish import finish
from tests.builders import begun_with_form, finish_run, plan_run, write_rows
from tests.commands import FAKE, REAL, ROOT, front, run, verify, write_prompts

PAGE = ROOT / "docs" / "reading.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
LONG = "under a rainbow " * 30


def tars_of(folder):
    """The tars of a run, as the page lists them."""
    index = json.loads((folder / "index.json").read_text())
    return [str(folder / shard["file"]) for shard in index["shards"] if shard["samples"]]


def members(tars):
    """{key: {extension: bytes}}, by tarfile."""
    found: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(key, {})[kind] = content.read()
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A folder with the run that the page reads."""
    folder = tmp_path_factory.mktemp("shown")
    done = run(FAKE, "job=mars_batch", "launch.workers=1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`datasets.load_dataset`, with neither a network nor a cache that stays."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()

    def load(kind, data_files, **settings):
        return datasets.load_dataset(
            kind, data_files=data_files, split="train", cache_dir=tmp_path / "cache", **settings
        )

    return load


PROOF = """
read = [key for path in tars for key in tarfile.open(path).getnames() if key.endswith(".png")]
assert len(read) == len(dataset) == index["samples"] == 72, read
assert sorted(sum((prompts for _, prompts in loader), [])) == sorted(dataset["txt"])
assert images.shape[1:] == (3, 128, 128) and str(images.dtype) == 'torch.uint8' and int(images.max()) > 1
assert image.size == picture.size == sample["png"].size == dataset[0]["png"].size == (128, 128)
assert list(table["prompt"]) == dataset["txt"] and set(table["status"]) == {"ok"}
assert png == tarfile.open(run / first["shard"]).extractfile(first["key"] + ".png").read()
assert isinstance(prompt, str) and about["prompt"] == prompt and columns == {}
for name in ("mars.parquet", "streamed.parquet"):
    table = load_dataset("parquet", data_files=name, split="train")
    assert table["txt"] == dataset["txt"] and table[71]["png"].tobytes() == dataset[71]["png"].tobytes()
braces = "outputs/mars_batch/shards/{000000..000002}.tar"
assert len(list(webdataset.WebDataset(braces, shardshuffle=False))) == 72
assert load_dataset("webdataset", data_files="outputs/mars_batch/shards/*.tar", split="train")["txt"] == dataset["txt"]
assert load_dataset("outputs/mars_batch/shards", data_files="*.tar", split="train")["txt"] == dataset["txt"]
assert load_dataset("outputs/mars_batch/shards", split="train").num_rows == 3, "these are the manifests"
try:
    list(DataLoader(webdataset.WebDataset(tars, shardshuffle=False), batch_size=None, num_workers=4))
except ValueError as error:
    assert "empty_check=False" in str(error)
else:
    raise AssertionError("the page may leave empty_check out")
"""


def test_every_block_of_the_page_runs_and_reads_all_images(shown):
    assert len(BLOCKS) >= 7
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(shown / "home"), "OMP_NUM_THREADS": "1"}
    done = run([sys.executable, "-c", "\n".join([*BLOCKS, PROOF])], cwd=shown, **home)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_field_and_its_type(shown):
    fields = PAGE.read_text().partition("## What the JSON holds")[2]
    rows = dict(re.findall(r"^\| (`[^|]*) \| (\w+) \|", fields, re.M))
    types = {"text": str, "integer": int, "float": float, "boolean": bool, "object": dict}
    named = {field: types[kind] for fields, kind in rows.items() for field in re.findall(r"`(\w+)`", fields)}
    for files in members(tars_of(shown / "outputs" / "mars_batch")).values():
        assert {name: type(value) for name, value in json.loads(files["json"]).items()} == named


def test_the_page_names_every_column_of_the_table_and_its_type():
    rows = re.findall(r"^\| (`[^|]*) \| ([\w; ]*(?:string|int\d\d|float64)) \|", PAGE.read_text(), re.M)
    named: dict[str, str] = {}
    for columns, kinds in rows:
        groups, types = columns.split(";"), kinds.split("; ")
        assert len(groups) == len(types)
        for group, kind in zip(groups, types, strict=True):
            named |= dict.fromkeys(re.findall(r"`(\w+)`", group), kind)
    assert named == COLUMNS


def test_the_command_that_the_end_of_a_run_shows_reads_it(shown, load):
    told = run(FAKE, "job=mars_batch", "launch.workers=1", cwd=shown).stderr
    ((kind, pattern),) = re.findall(r'load_dataset\("(\w+)", data_files="(\S+)"\)', told)
    assert len(load(kind, str(shown / pattern))) == 72


@pytest.mark.parametrize("name", ["br[1]", "a*b", "what?", "s[!a]", 'q"x', "back\\slash"])
def test_what_the_end_of_a_run_shows_reads_a_directory_with_any_name(name, tmp_path, load):
    finish_run(plan_run(tmp_path, ["a fox"] * 4))
    (tmp_path / "run").rename(tmp_path / name)
    told = finish(load_plan(RunDir(tmp_path / name))).lines[-1]
    (call,) = re.findall(r"load_dataset\(.*?\)(?=, or with webdataset)", told)
    for other in ("br1", "aXb", "whats", "sx"):  # what the names would match as patterns
        shutil.copytree(tmp_path / name, tmp_path / other)
    assert len(eval(call, {"load_dataset": load})) == 4


def check(folder, load, tmp_path, image="png"):
    """Read a run whole, as a stream and as Parquet, and return its JSONs by key; all must say what tarfile finds."""
    assert verify(folder).returncode in (0, 3)
    tars = tars_of(folder)
    plain = members(tars)
    about = {key: json.loads(files["json"]) for key, files in plain.items()}
    whole, stream = load("webdataset", tars), load("webdataset", tars, streaming=True)
    whole.to_parquet(tmp_path / "whole.parquet")
    stream.select_columns(["__key__", image, "txt", "json"]).to_parquet(tmp_path / "stream.parquet")
    parquets = [load("parquet", str(tmp_path / f"{name}.parquet")) for name in ("whole", "stream")]
    for table in (whole, stream, *parquets):
        rows = list(table)
        assert [row["__key__"] for row in rows] == list(plain)
        for row in rows:
            facts = about[row["__key__"]]
            assert row["json"] == facts
            assert row["txt"] == facts["prompt"] == plain[row["__key__"]]["txt"].decode()
            assert row[image].size == (facts["width"], facts["height"])
    return about


def made(tmp_path, prompts, *overrides, codes=(0,), **environment):
    """A run by the fake engine."""
    done = front(tmp_path / "run", prompts, *overrides, **environment)
    assert done.returncode in codes, done.stderr
    return tmp_path / "run"


def test_a_run_of_plain_text_in_several_tars(tmp_path, load):
    about = check(made(tmp_path, write_prompts(tmp_path / "p.txt", 20)), load, tmp_path)
    assert len(about) == 20 and {facts["row_json"] for facts in about.values()} == {"{}"}


def test_rows_whose_columns_differ_in_name_and_type(tmp_path, load):
    (tmp_path / "p.csv").write_text("prompt,id,note\na fox,1,x\na wolf,,\na cat,two,\n")
    extras: list[dict[str, Any]] = [
        {}, {"id": 1}, {"id": "one"}, {"id": None}, {"id": 1.5, "tags": ["a", 1]}, {"tags": []}, {"tags": {}},
        {"id": {"deep": [{}]}}, {"id": 2**80, "D\u00fcrer": True}, {"note ": "\u2028"},
    ]  # fmt: skip
    write_rows(tmp_path / "q.jsonl", [{"prompt": f"a dog {place}"} | extra for place, extra in enumerate(extras)])
    folder = made(tmp_path, f"[{tmp_path / 'p.csv'},{tmp_path / 'q.jsonl'}]", "job.batch_size=3")
    about = check(folder, load, tmp_path)
    rows = [json.loads(facts["row_json"]) for facts in about.values()]
    assert rows == [{"id": "1", "note": "x"}, {"id": "", "note": ""}, {"id": "two", "note": ""}, *extras]


def test_failed_and_flagged_images_and_a_tar_without_samples(tmp_path, load):
    rows = [{"prompt": f"a fox {place}", "key": f"{'bad' if place < 9 else 'fox'}-{place}"} for place in range(20)]
    prompts = write_rows(tmp_path / "p.jsonl", rows)
    folder = made(tmp_path, prompts, codes=(3,), FAKE_NAN="bad", FAKE_FLAGGED="1")
    assert tars_of(folder)[0].endswith("000001.tar"), "every image of the first shard failed"
    about = check(folder, load, tmp_path)
    assert {key: facts["flagged"] for key, facts in about.items()} == {
        row["key"]: "1" in row["key"] for row in rows[9:]
    }


@pytest.mark.parametrize("image", ["png", "jpg", "webp"])
def test_mixed_sizes_in_every_format(tmp_path, load, image):
    import webdataset

    rows = [
        {"prompt": f"a fox {place}", "width": 64 + 64 * (place % 3), "steps": 2 + place % 2, "guidance": place % 4}
        for place in range(12)
    ]
    folder = made(tmp_path, write_rows(tmp_path / "p.jsonl", rows), f"output.format={image}")
    about = check(folder, load, tmp_path, image)
    assert {facts["width"] for facts in about.values()} == {64, 128, 192}
    for sample in webdataset.WebDataset(tars_of(folder), shardshuffle=False).decode("pil"):
        assert sample[image].size == (sample["json"]["width"], sample["json"]["height"])
        assert sample["txt"] == sample["json"]["prompt"]


def test_long_prompts_that_are_cut_after_many_short_ones(tmp_path, load):
    rows: list[dict[str, Any]] = [{"prompt": f"a red car {place}"} for place in range(7)]
    rows += [{"prompt": f"a cat {LONG}end"}, {"prompt": "a dog", "negative_prompt": f"ugly {LONG}rest"}]
    rows += [{"prompt": "a bird", "negative_prompt": f"ugly {LONG}rest", "guidance": 1.0}]
    about = check(made(tmp_path, write_rows(tmp_path / "p.jsonl", rows)), load, tmp_path)
    cuts = [(facts["cut"][-3:], facts["negative_cut"][-4:]) for facts in about.values()]
    assert cuts == [("", "")] * 7 + [("end", ""), ("", "rest"), ("", "")], "without guidance nothing of it is drawn"


def test_an_extended_run_whose_failed_images_were_tried_again(tmp_path, load):
    write_rows(tmp_path / "p.jsonl", [{"prompt": f"a fox {place}", "id": place} for place in range(9)])
    made(tmp_path, tmp_path / "p.jsonl", codes=(3,), FAKE_NAN="000003")
    (tmp_path / "other").mkdir()
    write_rows(tmp_path / "other" / "p.jsonl", [{"prompt": "a wolf", "id": ["x"], "seed": 7}])
    both = f"[{tmp_path / 'p.jsonl'},{tmp_path / 'other' / 'p.jsonl'}]"
    folder = made(tmp_path, both, "extend=true", "retry_failed=true")
    about = check(folder, load, tmp_path)
    assert len(about) == 10
    assert [facts["source"]["file"] for facts in about.values()].count("other/p.jsonl") == 1


def test_a_run_that_was_begun_with_the_first_form_goes_on_in_it(tmp_path):
    import webdataset

    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": f"a fox {place}", "id": place} for place in range(9)])
    folder = made(tmp_path, prompts)
    begun_with_form(1, load_plan(RunDir(folder)))
    for path in [*(folder / "shards").iterdir(), folder / "index.json"]:
        path.unlink()
    made(tmp_path, prompts)
    assert verify(folder).returncode == 0
    read = list(webdataset.WebDataset(tars_of(folder), shardshuffle=False).decode("pil"))
    assert [sample["json"]["row"] for sample in read] == [{"id": place} for place in range(9)]
    assert all(sample["json"]["cut"] is None and "row_json" not in sample["json"] for sample in read)


@pytest.mark.slow
def test_a_run_of_the_bundled_model_with_prompts_that_are_cut(tmp_path, load):
    rows = [f"a red car number {place}" for place in range(7)]
    more = [{"prompt": f"a cat {LONG}"}, {"prompt": "a red car", "negative_prompt": "blurry, " * 80}]
    prompts = write_rows(tmp_path / "p.jsonl", [*rows, *more])
    done = front(tmp_path / "run", prompts, "job.steps=2", "job.guidance=5.0", command=REAL)
    assert done.returncode == 0, done.stderr
    about = check(tmp_path / "run", load, tmp_path)
    cuts = [(facts["cut"], facts["negative_cut"]) for facts in about.values()]
    assert cuts[:7] == [("", "")] * 7
    assert cuts[7][0].startswith(("a rainbow", "under", "rainbow")) and cuts[7][1] == ""
    assert cuts[8][0] == "" and "blurry" in cuts[8][1]
