"""The page of a report as a file: whole, alone, and with nothing in it that a run could have put there as markup.

tests/browser opens it in a browser.
"""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from batchgen.report.page import render
from tests.report.made_up import HOSTILE, hostile, report


class Page(HTMLParser):
    """The elements of a page, as a browser takes them apart: (tag, attributes, the text up to the next end tag)."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.is_inside = [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        self.is_inside = True

    def handle_endtag(self, tag):
        self.is_inside = False

    def handle_data(self, data):
        if self.is_inside:
            self.found[-1][2] += data

    def all(self, tag):
        return [one for one in self.found if one[0] == tag]


def data_of(page):
    """The report that the page holds."""
    (script,) = [one for one in page.all("script") if one[1].get("type") == "application/json"]
    return json.loads(script[2])


def test_the_page_holds_the_report_and_nothing_of_another_file():
    made = report(images=5)
    page = Page(render(made))
    assert data_of(page) == made
    addresses = [value for _, given, _ in page.found for name, value in given.items() if name in ("src", "href")]
    assert addresses == ["data:,", "#pictures"]
    assert not re.search(r"@import|url\(|https?://", "".join(one[2] for one in page.all("style")))


def test_only_the_scripts_and_styles_of_the_page_may_run():
    page = Page(render(report(images=1)))
    (policy,) = [given["content"] for _, given, _ in page.all("meta") if "http-equiv" in given]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["img-src"], rules["base-uri"]) == ("'none'", "data:", "'none'")
    scripts = [text for _, given, text in page.all("script") if "type" not in given]
    for allowed, texts in ((rules["script-src"], scripts), (rules["style-src"], [one[2] for one in page.all("style")])):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]


def test_no_text_of_a_run_becomes_markup():
    calm, made = report(images=1), hostile()
    page = Page(render(made))
    assert [one[0] for one in page.found] == [one[0] for one in Page(render(calm)).found]
    assert data_of(page) == made
    (title,) = page.all("title")
    assert title[2].startswith(HOSTILE[1])


def test_a_name_may_hold_half_a_character():
    made = report(images=1)
    made["run"]["name"] = "half \ud800"
    assert "half &#55296;" in render(made)
    render(made).encode()


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        render(report(images=1, stages={"denoise": float("nan")}))


def test_assets_can_stand_between_tags():
    found = {path.name: path.read_text("utf-8") for path in files("batchgen.report").joinpath("assets").iterdir()}
    assert "MIT License" in found["uPlot.LICENSE.txt"]
    for name, text in found.items():
        assert "\r" not in text, name  # the browser would hash another text
        if name.endswith((".js", ".css")):
            assert not re.search(r"</(script|style)|<!--", text, re.I), name
        if name.endswith(".js") and not name.startswith("uPlot"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), name
