"""The data set card: valid for the hub and `datasets`, never invented, never over what a person wrote."""

import json
import re

import pytest
import yaml

from batchgen.report.card import escaped, fenced, is_ours, marked, size_category, write_card
from batchgen.report.table import write_table
from tests.builders import finish_run, full_attempt, plan_run

NASTY = "<b>`x`</b> | *a* [l](http://x.y) ```\n---\n# head\n$E=1$ & @me"


def written(plan):
    write_table(plan)
    write_card(plan)
    return plan.run.card.read_text()


def head_of(text):
    first, head, _ = text.split("---\n", 2)
    assert first == ""
    return yaml.safe_load(head)


def test_the_head_names_the_tars_and_no_licence(tmp_path):
    finish_run(plan := plan_run(tmp_path, ["a fox", "a hen"]))
    text = written(plan)
    head = head_of(text)
    assert head["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": ["shards/*.tar"]}]}]
    assert head["size_categories"] == ["n<1K"] and "license" not in head
    assert "# To do: choose the licence" in text and "To do: choose a licence" in text
    assert [one["name"] for one in head["dataset_info"]["features"]] == ["json", "png", "txt", "__key__", "__url__"]


def test_the_hubs_own_reader_takes_it(tmp_path):
    from huggingface_hub import DatasetCard

    finish_run(plan := plan_run(tmp_path, ["a fox"], output__copy_to="hf://datasets/me/night"))
    written(plan)
    data = DatasetCard.load(plan.run.card).data
    assert data.pretty_name == "test" and data.task_categories == ["text-to-image"]
    assert data.configs[0]["data_files"][0]["path"] == ["shards/*.tar", "data/shards/*.tar"]


def test_counts_columns_and_an_example(tmp_path):
    plan = plan_run(tmp_path, [{"prompt": f"a fox {place}", "id": place} for place in range(6)])
    full_attempt(plan, 0, failed={plan.shard(0)[0].keys[1]}).commit()
    text = written(plan)
    assert re.search(
        r"3 images that batchgen \S+ made of prompts, with the model tiny\. 6 were planned; 1 failed", text
    )
    assert "2 are not made yet" in text and "| id | int64 | from the prompt files |" in text
    [example] = re.findall(r"```json\n(.*?)\n```", text, re.S)
    assert json.loads(example)["prompt"] == "a fox 0"


def test_a_run_that_has_not_begun_has_a_card(tmp_path):
    text = written(plan_run(tmp_path, ["a fox"]))
    assert "dataset_info" not in head_of(text) and "1 are not made yet" in text


def test_the_note_on_the_models_licence_is_its_presets(tmp_path):
    plan = plan_run(tmp_path, ["a fox"])
    assert "note on the model" not in written(plan)
    plan.planned.model.path = "black-forest-labs/FLUX.1-schnell"
    assert "> FLUX\\.1 schnell, 12 B, under Apache 2\\.0\\. It is distilled" in written(plan)


def test_text_of_prompts_stays_text(tmp_path):
    rows = [{"prompt": NASTY, NASTY: "x"}]
    finish_run(plan := plan_run(tmp_path, rows, job__negative_prompt=NASTY))
    text = written(plan)
    body = text.split("\n---\n", 1)[1]
    outside = re.sub(r"^(`{3,})(\w*)\n.*?\n\1$", "", body, flags=re.S | re.M)
    assert escaped(NASTY) in outside and not re.search(r"(?<!\\)[<\[*]", outside)
    longest = max(map(len, re.findall("`+", json.dumps(NASTY))))
    assert f"\n{'`' * (longest + 1)}json\n" in body
    assert head_of(text)["pretty_name"] == "test"


def test_escaped_text_is_one_line_and_a_fence_is_longer_than_what_it_holds():
    assert escaped("a\n| b\\c") == "a \\| b\\\\c"
    assert fenced("x ````` y", "json") == "``````json\nx ````` y\n``````"


@pytest.mark.parametrize(
    ("images", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**12 - 1, "100B<n<1T"), (10**13, "n>1T")],
)
def test_the_size_category_is_the_hubs(images, category):
    assert size_category(images) == category


def test_a_card_that_a_person_edited_is_left_alone(tmp_path):
    plan = plan_run(tmp_path, ["a fox"])
    first = written(plan)
    finish_run(plan)
    second = written(plan)
    assert first != second and is_ours(second.encode())
    for edit in (
        second.replace("# To do: choose the licence of this data set", "license: mit #"),
        second.replace("\n", "\r\n"),
        f"{second}\n",
        "---\nlicense: mit\n---\n",
        "",
    ):
        assert not is_ours(edit.encode())
        plan.run.card.write_bytes(edit.encode())
        write_card(plan)
        assert plan.run.card.read_bytes() == edit.encode()
    plan.run.card.unlink()
    assert written(plan) == second


def test_a_link_is_not_followed(tmp_path):
    plan = plan_run(tmp_path, ["a fox"])
    (tmp_path / "mine.md").write_bytes(marked("---\nx: 1\n---\n"))
    plan.run.card.symlink_to(tmp_path / "mine.md")
    write_table(plan)
    write_card(plan)
    assert plan.run.card.is_symlink()
    assert (tmp_path / "mine.md").read_bytes() == marked("---\nx: 1\n---\n")
