"""What a dry run says, for a person and as JSON."""

import json

from batchgen.evening.lines import Line, as_json, as_text, warnings


def test_text_has_a_label_before_each_line_and_none_where_a_line_goes_on() -> None:
    said = as_text([Line("prompts", "50"), Line("policy", "one"), Line("", "another")])
    assert said == "prompts    50\npolicy     one\n           another\n"


def test_json_is_one_object_of_all_values() -> None:
    lines = [Line("a", "", {"prompts": 3}), Line("b", "", {"policies": [1], "refused": {"0": "x"}}), Line("", "more")]
    lines += [Line("b", "", {"policies": [2], "refused": {"1": "y"}})]
    assert json.loads(as_json(lines)) == {"prompts": 3, "policies": [1, 2], "refused": {"0": "x", "1": "y"}}
    assert as_json(lines).count("\n") == 1


def test_each_warning_is_told_once() -> None:
    lines = warnings(["the disk", "a GPU", "the disk"])
    assert as_text(lines) == "warning    the disk\nwarning    a GPU\n"
    assert json.loads(as_json(lines)) == {"warnings": ["the disk", "a GPU"]}
    assert json.loads(as_json(warnings([]))) == {"warnings": []}
