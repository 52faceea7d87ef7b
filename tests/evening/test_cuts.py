"""Prompts that the model's tokenizer cuts are told beforehand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.evening.cuts import cut_warning, may_be_cut
from batchgen.models.families.texts import TextOptions
from batchgen.models.find import ModelFiles
from batchgen.places import models_dir
from tests.builders import POLICY, make_prompt
from tests.commands import front

TINY = ModelFiles(models_dir() / "tiny")
LONG = ", ".join(f"a cat with {place} horses" for place in range(30))


def test_short_texts_need_no_tokenizer() -> None:
    assert not may_be_cut("a cat") and may_be_cut(LONG) and may_be_cut("ä" * 40)


def test_the_warning_counts_them_and_shows_where_the_first_is_cut() -> None:
    said = cut_warning(TINY, ["a cat", LONG, LONG + "!"])
    assert said is not None and said.startswith("2 prompts are longer than the 75 tokens that the model reads")
    assert cut_warning(TINY, ["a cat " * 3]) is None and cut_warning(TINY, []) is None


def test_what_is_shown_is_what_the_engine_cuts() -> None:
    from batchgen.pipeline.engine import DiffusersEngine

    engine = DiffusersEngine(TINY, "ddim", "auto")
    engine.prepare(POLICY)
    cut = engine.encode([make_prompt(prompt=LONG, guidance=1.0)])[LONG].cut
    said = cut_warning(TINY, [LONG])
    assert cut and said is not None
    shown = said.rpartition("(first: ")[2].strip("')").removesuffix("...")
    assert cut.replace(" ", "").startswith(shown.replace(" ", "")[:20])


def test_chunks_and_weights_count_as_the_engine_counts_them() -> None:
    most = TextOptions(text_chunks=2, prompt_weights=True)
    weighted = f"({LONG}:1.2), a cat, a [cat]"
    said = cut_warning(replace(TINY, texts=most), [LONG, weighted])
    assert said is not None and said.startswith("2 prompts are longer than the 150 tokens") and ":1.2" not in said
    assert cut_warning(replace(TINY, texts=most), [LONG[:300]]) is None
    assert cut_warning(TINY, [LONG[:300]]) is not None


def test_the_files_of_older_models_serve_too(tmp_path: Path) -> None:
    tokenizer = json.loads((TINY.folder / "tokenizer" / "tokenizer.json").read_text())
    folder = tmp_path / "model" / "tokenizer"
    folder.mkdir(parents=True)
    for name in ("model_index.json", "unet/config.json"):
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes((TINY.folder / name).read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    vocabulary = {one["content"]: one["id"] for one in tokenizer["added_tokens"]} | tokenizer["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    assert cut_warning(ModelFiles(tmp_path / "model"), [LONG]) == cut_warning(TINY, [LONG])


@pytest.mark.parametrize("content", [None, "{", '{"model": 3}'])
def test_a_tokenizer_that_cannot_be_read_is_not_this_modules_business(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    if content is not None:
        (folder / "tokenizer_config.json").write_text("{}")
        (folder / "tokenizer.json").write_text(content)
    assert cut_warning(ModelFiles(tmp_path), [LONG]) is None


def test_a_dry_run_warns_of_it_once(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"a cat\n{LONG}\n{LONG}\n")
    says = json.loads(front(tmp_path / "run", prompts, "dry_run=json").stdout)
    assert [one for one in says["warnings"] if one.startswith("1 prompt is longer")], says["warnings"]
