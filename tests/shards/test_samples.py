"""Samples: the image, its text, and a JSON that says how it was made, the same each time."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from batchgen.errors import ResumeError
from batchgen.paths import RunDir
from batchgen.plan.records import SAMPLE_FORM
from batchgen.plan.store import Plan, load_plan
from batchgen.prepare import prepare
from batchgen.shards.samples import Cuts, SampleMaker, cuts_of, file_names
from batchgen.types import EMPTY_NEGATIVE, Decoded, Lora, Prompt, Sample
from tests.builders import MAKER, POLICY, begun_with_form, fake_image, make_config, make_prompt, plan_run, write_rows

PROMPT = make_prompt("fox", prompt="a f\u00fcchs", source="/home/me/prompts.txt", line=3, extra={"id": 9})
# What the commit before form 2 wrote for PROMPT.
FIRST_FORM = (
    r'{"key":"fox","prompt":"a f\u00fcchs","negative_prompt":"","cut":null,"seed":7,"width":64,"height":64,"steps":2,'
    r'"guidance":7.5,"scheduler":"model","model":"tiny","revision":"2:f0","batchgen":"0.1.0","device":"cpu","policy":{'
    r'"micro_batch":2,"decode_chunk":1,"tile_px":0,"placement":"resident","dtype":"fp32","threads":1,'
    r'"guidance_split":false,"channels_last":false,"traced":false,"attention":"sdpa","stream_buffers":3},'
    r'"decoded_again_in_fp32":false,"flagged":null,"status":"ok","source":{"file":"prompts.txt","line":3},"row":{"id":9}}'
)
POLICY_TYPES = {
    "micro_batch": int, "decode_chunk": int, "tile_px": int, "placement": str, "dtype": str, "threads": int,
    "guidance_split": bool, "channels_last": bool, "traced": bool, "attention": str, "stream_buffers": int,
    "compile": str,
}  # fmt: skip
# The fields of form 4. A change of a name or a type needs a new SAMPLE_FORM, so that runs go on as they were begun.
TYPES = {
    "key": str, "prompt": str, "negative_prompt": str, "cut": str, "negative_cut": str, "seed": int, "width": int,
    "height": int, "steps": int, "guidance": float, "scheduler": str, "model": str, "revision": str, "batchgen": str,
    "device": str, "policy": POLICY_TYPES, "decoded_again_in_fp32": bool, "safety_checker": str, "flagged": bool,
    "status": str, "lora": str, "lora_sha256": str, "source": {"file": str, "line": int}, "row_json": str,
}  # fmt: skip


def make(
    prompt: Prompt = PROMPT, maker: SampleMaker = MAKER, image: Decoded | None = None, cuts: Cuts | None = None
) -> Sample:
    return maker.assemble(prompt, cuts or Cuts(), fake_image(prompt) if image is None else image, POLICY)


def about(sample: Sample) -> dict[str, Any]:
    found = json.loads(sample.files["json"])
    assert isinstance(found, dict)
    return found


def types_of(value: Any) -> Any:
    return {name: types_of(one) for name, one in value.items()} if isinstance(value, dict) else type(value)


def test_the_same_image_is_the_same_bytes() -> None:
    assert make() == make()
    assert b"\n" not in make().files["json"]


def test_the_text_is_the_prompt_and_the_json_says_how_it_was_made() -> None:
    sample = make(cuts=Cuts("the rest", "and that"))
    assert (sample.key, sample.status, sample.reason) == ("fox", "ok", None)
    assert sample.files["txt"].decode() == "a f\u00fcchs"
    facts = about(sample)
    for name in ("key", "prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance"):
        assert facts[name] == getattr(PROMPT, name)
    assert facts["policy"] == asdict(POLICY)
    assert (facts["model"], facts["device"], facts["scheduler"]) == ("tiny", "cpu", "model")
    assert (facts["cut"], facts["negative_cut"], facts["status"]) == ("the rest", "and that", "ok")
    assert json.loads(facts["row_json"]) == {"id": 9}


@pytest.mark.parametrize(
    "extra", [{}, {"id": 9}, {"id": "nine"}, {"id": None}, {"id": {"deep": [1, "a", {}]}}, {"big": 2**90}]
)
@pytest.mark.parametrize("flagged", [None, False, True])
def test_each_field_is_there_and_of_its_type_whatever_the_row_holds(
    extra: dict[str, Any], flagged: bool | None
) -> None:
    maker = replace(MAKER, safety_checker="off" if flagged is None else "flag")
    facts = about(make(replace(PROMPT, extra=extra), maker, replace(fake_image(PROMPT), flagged=flagged)))
    assert types_of(facts) == TYPES
    assert (facts["flagged"], json.loads(facts["row_json"])) == (bool(flagged), extra)


def test_a_rows_own_columns_can_be_read_and_searched_as_they_were_written() -> None:
    facts = about(make(replace(PROMPT, extra={"artist": "D\u00fcrer \U0001f98a", "say": 'a "b"\n'})))
    assert facts["row_json"] == '{"artist":"D\u00fcrer \U0001f98a","say":"a \\"b\\"\\n"}'


@pytest.mark.parametrize(
    ("guidance", "negative", "cuts"),
    [
        (7.5, "blurry, ugly", Cuts("prompt's", "negative's")),
        (1.0, "blurry, ugly", Cuts("prompt's", "")),  # without guidance no negative prompt is drawn
        (7.5, "", Cuts("prompt's", "")),
        (7.5, EMPTY_NEGATIVE, Cuts("prompt's", "")),
    ],
)
def test_what_was_cut_from_both_prompts_is_told(guidance: float, negative: str, cuts: Cuts) -> None:
    texts = {PROMPT.prompt: SimpleNamespace(cut="prompt's"), "": SimpleNamespace(cut=None)}
    texts |= {"blurry, ugly": SimpleNamespace(cut="negative's")} if guidance > 1 else {}
    assert cuts_of(texts, replace(PROMPT, negative_prompt=negative, guidance=guidance)) == cuts


def test_where_the_prompt_file_lies_does_not_change_the_sample() -> None:
    moved = make(replace(PROMPT, source="/elsewhere/prompts.txt"))
    assert moved == make()
    assert about(moved)["source"] == {"file": "prompts.txt", "line": 3}


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([["/home/me/p.csv"]], ["p.csv"]),
        ([["/home/me/p.csv", "/home/me/q.csv"]], ["p.csv", "q.csv"]),
        ([["/home/me/a/p.csv", "/home/me/b/p.csv", "/home/me/b/q.csv"]], ["a/p.csv", "b/p.csv", "q.csv"]),
        ([["/x/a/p.csv", "/y/a/p.csv"]], ["x/a/p.csv", "y/a/p.csv"]),
        ([["/p.csv", "/a/p.csv"]], ["/p.csv", "a/p.csv"]),
        ([["p.csv", "a/p.csv"]], ["p.csv", "a/p.csv"]),
        ([["/a/p.csv"], ["/b/p.csv"]], ["p.csv", "b/p.csv"]),
        (
            [["s3://b/a/p.csv", "/home/me/p.csv"], ["hf://datasets/o/n/p.csv"]],
            ["s3://b/a/p.csv", "p.csv", "hf://datasets/o/n/p.csv"],
        ),
        ([["/a/p.csv"], [], ["/a/p.csv", "/b/q.csv"]], ["p.csv", "q.csv"]),  # the first file has grown
    ],
)
def test_files_of_one_name_are_told_apart_by_as_few_folders_as_do(groups: list[list[str]], names: list[str]) -> None:
    assert list(file_names(groups).values()) == names
    first = file_names(groups[:1])
    assert first.items() <= file_names(groups).items(), "an extension must not change what repair makes again"
    assert len(set(names)) == len(names)


def test_a_run_of_two_files_with_one_name_says_which_is_which(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "p.jsonl", [f"a fox of {folder}"])
    plan = prepared(tmp_path, job__prompts=[str(tmp_path / folder / "p.jsonl") for folder in ("a", "b")])
    maker = SampleMaker.of(plan, "FakeScheduler", "fake")
    sources = {prompt.prompt: about(make(prompt, maker))["source"]["file"] for prompt in plan.prompts()}
    assert sources == {"a fox of a": "a/p.jsonl", "a fox of b": "b/p.jsonl"}
    assert str(tmp_path) not in str(about(make(next(plan.prompts()), maker)))


def prepared(tmp_path: Path, **settings: Any) -> Plan:
    config = make_config(tmp_path, **settings)
    return prepare(RunDir(Path(config.run_dir)), config)


def test_a_new_run_has_the_newest_form(tmp_path: Path) -> None:
    maker = SampleMaker.of(plan_run(tmp_path), "FakeScheduler", "fake")
    assert types_of(about(make(maker=maker))) == TYPES
    assert (maker.form, maker.model, maker.image_format) == (4, "tiny", "png")


def test_a_run_that_was_begun_with_the_first_form_goes_on_in_it_to_the_byte(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = begun_with_form(1, prepare(RunDir(Path(config.run_dir)), config))
    added = write_rows(tmp_path / "more.jsonl", ["a grey wolf"])
    config.job.prompts, config.extend = [config.job.prompts, str(added)], True
    plan = prepare(run, config)
    assert [segment.sample_form for segment in plan.segments] == [1, SAMPLE_FORM]
    maker = replace(SampleMaker.of(plan, "model", "cpu"), revision="2:f0", names={PROMPT.source: "me/prompts.txt"})
    assert make(maker=maker, cuts=Cuts("", "cut")).files["json"].decode() == FIRST_FORM
    cut = about(make(maker=maker, cuts=Cuts("the rest", ""), image=replace(fake_image(PROMPT), flagged=True)))
    assert (cut["cut"], cut["flagged"]) == ("the rest", True)


def test_a_run_of_the_second_form_tells_of_lora_only_where_an_extension_brought_one() -> None:
    second = replace(MAKER, form=2)
    types = TYPES | {"policy": {name: kind for name, kind in POLICY_TYPES.items() if name != "compile"}}
    assert types_of(about(make(maker=replace(MAKER, form=3)))) == types
    assert types_of(about(make(maker=second))) == {name: types[name] for name in types if "lora" not in name}
    assert types_of(about(make(replace(PROMPT, lora=(Lora("/a.safetensors", 1.0, "5e"),)), second))) == types


def test_lora_is_told_by_its_files_names_and_contents() -> None:
    loras = (Lora("/home/me/fox.safetensors", 0.8, "a1"), Lora("/b/b.safetensors", 1.0, "b2"))
    facts = about(make(replace(PROMPT, lora=loras)))
    assert (facts["lora"], facts["lora_sha256"]) == ("fox.safetensors:0.8+b.safetensors:1.0", "a1+b2")
    assert (about(make())["lora"], about(make())["lora_sha256"]) == ("", "")


def test_a_run_of_a_later_form_is_left_to_its_version(tmp_path: Path) -> None:
    run = begun_with_form(SAMPLE_FORM + 1, prepared(tmp_path))
    with pytest.raises(ResumeError, match="later version"):
        SampleMaker.of(load_plan(run), "", "")


def test_the_models_folder_may_move_and_samples_still_name_it_as_planned(tmp_path: Path) -> None:
    plan = prepared(tmp_path)
    plan.planned.model.path = "/models/fox-v1"
    plan.config.model.path = "/elsewhere/fox-renamed"
    assert SampleMaker.of(plan, "", "").model == "fox-v1"
    plan.planned.model.path = "org/fox"
    assert SampleMaker.of(plan, "", "").model == "org/fox"


def test_an_image_that_had_to_be_decoded_again_says_so() -> None:
    again = replace(fake_image(PROMPT), retried_in_fp32=True)
    assert [about(make(image=image))["decoded_again_in_fp32"] for image in (fake_image(PROMPT), again)] == [False, True]


def test_metadata_goes_into_the_image_and_changes_nothing_else(tmp_path: Path) -> None:
    plain, told = make().files, make(maker=replace(MAKER, metadata="a1111")).files
    assert [name for name in plain if plain[name] != told[name]] == ["png"]
    with Image.open(io.BytesIO(told["png"])) as image:
        assert image.info["parameters"].startswith("a f\u00fcchs\nSteps: 2, ")
    maker = SampleMaker.of(plan_run(tmp_path, output__metadata="a1111"), "FakeScheduler", "fake")
    assert (maker.metadata, MAKER.metadata) == ("a1111", "none")


def test_long_prompts_of_a_jpeg_are_cut_in_the_image_alone() -> None:
    long = replace(PROMPT, prompt="x" * 20_000, negative_prompt="y" * 20_000)
    made = replace(MAKER, metadata="a1111", image_format="jpg").assemble(long, Cuts(), fake_image(long), POLICY)
    with Image.open(io.BytesIO(made.files["jpg"])) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", errors="ignore")
    assert "x ...\nNegative prompt: y" in comment and "y ...\nSteps: 2, " in comment
    assert (made.files["txt"], about(made)["prompt"]) == (b"x" * 20_000, "x" * 20_000)


@pytest.mark.parametrize("pixels", [None, b"", bytes(64 * 64 * 3 - 1)])
def test_an_image_that_is_not_one_fails_with_a_reason_and_no_files(pixels: bytes | None) -> None:
    sample = make(image=Decoded(pixels, 64, 64))
    assert (sample.key, sample.status, sample.files) == ("fox", "failed", {})
    assert sample.reason


def test_a_flagged_image_is_left_out_only_where_that_is_asked_for() -> None:
    flagged = replace(fake_image(PROMPT), flagged=True)
    assert about(make(maker=replace(MAKER, safety_checker="flag"), image=flagged))["flagged"] is True
    dropped = make(maker=replace(MAKER, safety_checker="drop"), image=flagged)
    assert (dropped.status, dropped.files) == ("filtered", {})
