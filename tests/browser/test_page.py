"""The page of a made-up report in a browser: what it shows, the contact sheet, the preview, themes, phones, harm."""

import pytest

from tests.browser.conftest import PHONE
from tests.commands import wait_for
from tests.report.made_up import HOSTILE, hostile, item, report

IN_PREVIEW = (
    "a rover",
    "blurry",
    "123456",
    "1024 × 768 px",
    "30",
    "6.5",
    "000004.tar",
    "mine.png",
    "artist",
    "Ada",
)


def one_sample(**fields):
    """A report of three samples; the second has these fields."""
    made = report(images=3)
    made["samples"]["items"][1] |= fields
    return made


def contrast(front, back):
    """The contrast of two colours, `rgb(1, 2, 3)`, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(front), luminance(back)))
    return (high + 0.05) / (low + 0.05)


def colours(opened, selector):
    """The colour of an element's text, and that of the page."""
    return opened.page.evaluate(
        "selector => [document.querySelector(selector), document.body].map((one, place) => "
        "getComputedStyle(one)[['color', 'backgroundColor'][place]])",
        selector,
    )


def test_the_totals_are_shown_with_their_units(open_report):
    opened = open_report(report())
    assert opened.text("#verdict") == "9,988 of 10,000 images made, 12 failed"
    totals = opened.text("#totals")
    for text in ("9,988", "2.71 images/s", "8 h 08 min", "13.9 GiB", "40.75"):
        assert text in totals
    assert opened.text("#state") == "Done, with failed images"
    assert "84%" not in opened.text("#stages") and "14 h 10 min" in opened.text("#stages")
    assert "image files and the disk" in opened.text("#waits")
    assert opened.page.locator(".chart canvas").count() == 2
    assert "9.75 GiB" in opened.text("#memory-text")
    assert "out of memory" in opened.text("#happened") and "micro_batch=8" in opened.text("#policies")
    assert "the image is black" in opened.text("#failed") and "4,410" in opened.text("#rejected")
    assert "diffusers" in opened.text("#facts")


@pytest.mark.parametrize(
    ("state", "word"),
    [("done", "Done"), ("running", "Running"), ("unfinished", "Unfinished"), ("empty", "Nothing was made yet"),
     ("broken", "Broken")],
)  # fmt: skip
def test_the_state_is_told_in_words_that_can_be_read(open_report, state, word):
    made = report(images=1)
    made["run"]["state"], made["totals"]["failed"] = state, 0
    for scheme in ("light", "dark"):
        opened = open_report(made, scheme=scheme)
        assert opened.text("#state") == word
        for selector in ("#state", "#when", "#sections a", ".tiles dt", "#verdict", "h3"):
            assert contrast(*colours(opened, selector)) >= 4.5, (scheme, selector)


def test_a_click_opens_a_preview_with_all_that_made_the_sample(open_report):
    made = item(1) | {"prompt": "a rover", "negative_prompt": "blurry", "seed": 123456, "width": 1024, "height": 768}
    made |= {"steps": 30, "guidance": 6.5, "shard": "000004.tar", "member": "mine.png", "columns": {"artist": "Ada"}}
    opened = open_report(one_sample(**made))
    opened.tiles().nth(1).click()
    shown = opened.text("#preview")
    assert [text for text in IN_PREVIEW if text not in shown] == []
    picture = opened.page.locator("#preview-picture img")
    assert picture.evaluate("one => one.complete && one.naturalWidth") > 0
    assert opened.text("#preview code") == made["extract"]


def test_the_command_can_be_copied(open_report):
    opened = open_report(one_sample(extract="batchgen export 'a run' KEY to=here"))
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.tiles().nth(1).click()
    opened.page.get_by_role("button", name="Copy").click()
    opened.page.get_by_role("button", name="Copied").wait_for()
    assert opened.page.evaluate("navigator.clipboard.readText()") == "batchgen export 'a run' KEY to=here"


def test_the_keyboard_goes_through_the_sheet_and_the_preview(open_report):
    opened = open_report(report(images=12))
    keys, page = [item(place)["key"] for place in range(12)], opened.page
    opened.tiles().first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert opened.text("#preview-key") == keys[1]
    page.keyboard.press("ArrowRight")
    assert (opened.text("#preview-key"), opened.text("#preview-place")) == (keys[2], "3 of 12")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")  # stops at the first
    assert opened.text("#preview-key") == keys[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not page.locator("#preview").is_visible()
    focused = page.evaluate("[...document.querySelectorAll('.sample')].indexOf(document.activeElement)")
    assert focused == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert opened.text("#preview-key") == keys[1 + 7]


def test_the_sheet_is_filtered_by_text_status_and_any_column(open_report):
    opened = open_report(report(images=40))
    page, items = opened.page, report(images=40)["samples"]["items"]

    def shown():
        """How many samples are shown, which the page says too."""
        number = opened.tiles().count()
        assert opened.text("#shown").startswith(f"{number} of 40 samples" if number < 40 else "40 samples")
        return number

    assert shown() == 40
    page.fill("#filter-text", "TRAM woodcut")
    assert shown() == sum("tram" in one["prompt"] and "woodcut" in one["prompt"] for one in items) > 0
    page.click("text=Clear")
    assert shown() == 40
    page.select_option("#filter-status", "failed")
    assert shown() == sum(one["status"] == "failed" for one in items) == 3
    page.click("text=Clear")
    page.select_option("#filter-column", label="artist")
    page.select_option("#filter-value", "artist 3")
    assert shown() == 8
    page.fill("#filter-text", "there is no such thing")
    assert shown() == 0
    page.click("text=Clear")
    page.select_option("#filter-column", label="steps")
    page.select_option("#filter-value", "30")
    assert shown() == 20
    opened.tiles().first.click()
    assert opened.text("#preview-place") == "1 of 20"


def test_a_column_of_many_values_is_searched(open_report):
    opened = open_report(report(images=100))
    opened.page.select_option("#filter-column", label="caption_id")
    opened.page.fill("#filter-contains", "310")
    assert opened.tiles().count() == sum("310" in str(31 * place) for place in range(100)) > 0


def test_a_row_may_lack_a_column_whatever_its_name(open_report):
    made = report(images=3)
    made["samples"]["columns"] = ["constructor", "__proto__"]
    for place, one in enumerate(made["samples"]["items"]):
        one["columns"] = {"constructor": "here", "__proto__": "there"} if place == 1 else {}
    opened = open_report(made)
    for column, value in (("constructor", "here"), ("__proto__", "there")):
        opened.page.select_option("#filter-column", label=column)
        options = opened.page.locator("#filter-value option").all_inner_texts()
        assert options == ["any", "none (2)", f"{value} (1)"]
        opened.page.select_option("#filter-value", value)
        assert opened.tiles().count() == 1


def test_the_theme_is_switched_and_remembered(open_report):
    opened = open_report(report(images=3))
    page = opened.page

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    page.get_by_text("Dark", exact=True).click()
    dark = background()
    page.reload()
    opened.asked.remove(opened.url)
    assert background() == dark != light
    assert page.get_by_label("Dark").is_checked()
    page.get_by_text("Auto", exact=True).click()
    assert background() == light
    page.emulate_media(color_scheme="dark")
    assert background() == dark


def test_it_can_be_read_on_a_phone(open_report):
    for scheme in ("light", "dark"):
        opened = open_report(report(workers=12), viewport=PHONE, scheme=scheme)
        assert not opened.is_too_wide
        opened.tiles().nth(5).click()
        assert not opened.is_too_wide
        box = opened.page.locator("#preview").bounding_box()
        assert (box["x"], box["width"]) == (0, 360)
        opened.page.get_by_role("button", name="Close").click()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 900}, PHONE])
def test_what_is_markup_shows_as_text_and_runs_nothing(open_report, viewport):
    opened = open_report(hostile(), viewport=viewport)
    page = opened.page
    assert not opened.is_too_wide
    assert page.locator("h1").inner_text() == HOSTILE[1] + HOSTILE[2]
    assert page.title() == HOSTILE[1] + HOSTILE[2] + " - batchgen"
    opened.tiles().first.click()
    for place, text in enumerate(HOSTILE):
        shown = page.locator("#preview-about").evaluate("one => one.textContent")
        assert shown.count(text) >= 5, place
        assert page.locator("#preview-key").evaluate("one => one.textContent") == text
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.select_option("#filter-column", label=HOSTILE[0])
    page.select_option("#filter-value", HOSTILE[0])
    assert opened.tiles().count() == 2
    page.locator("summary").last.click()
    assert page.locator("#facts").evaluate("one => one.textContent").count(HOSTILE[0]) >= 1
    assert page.locator("main script, main svg, main iframe, [onerror]").count() == 0


def test_a_script_that_got_into_the_page_would_not_run(open_file, tmp_path):
    from batchgen.report.page import render

    text = render(report(images=1)).replace("<main>", "<main><script>window.harmed = true</script>")
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    opened = open_file(path)
    assert any("Content Security Policy" in line for line in opened.said)
    opened.said.clear()


def test_a_thousand_pictures_and_four_thousand_points_are_no_burden(open_report):
    opened = open_report(report(images=1000, workers=16, points=250, of=1_000_000))
    assert opened.text("#shown") == "1,000 samples, chosen evenly from 1,000,000"
    loaded = "[...document.querySelectorAll('.sample img')].filter(one => one.src).length"
    assert 0 < opened.page.evaluate(loaded) < 200
    opened.tiles().last.scroll_into_view_if_needed()
    wait_for(lambda: opened.page.evaluate("[...document.querySelectorAll('.sample img')].at(-1).naturalWidth > 0"))
    began = opened.page.evaluate("performance.now()")
    opened.page.fill("#filter-text", "tram")
    assert opened.page.evaluate("performance.now()") - began < 2000
    assert 0 < opened.tiles().count() < 1000


def test_a_report_of_nothing_says_so(open_report):
    none = {"count": 0, "reasons": [], "shown": []}
    made = report(
        images=0, of=0, series=[], workers=1, stages={}, waits={}, policies=[], events=[], failures=none, rejects=none
    )
    made["workers"] = []
    made["run"] |= {"state": "empty", "began_at": None, "ended_at": None}
    made["totals"] = dict.fromkeys(made["totals"]) | {"planned": 10, "ok": 0, "failed": 0, "open": 10}
    opened = open_report(made)
    assert opened.text("#verdict") == "0 of 10 images made, 10 not made yet"
    assert opened.text("#shown") == "0 samples"
    assert opened.text("#speed-text") == "No speed was recorded yet."
    assert opened.page.locator("canvas").count() == 0


def test_several_jobs_are_told_apart(open_report):
    made = report(images=4)
    job = {name: made["run"][name] for name in ("name", "dir", "id", "state", "problems", "began_at", "ended_at")}
    job |= {"totals": made["totals"], "settings": {"job.steps": 20}, "versions": {}, "model": {}}
    made["run"]["jobs"] = [job | {"name": name} for name in ("mars", "venus")]
    for place, one in enumerate(made["samples"]["items"]):
        one["job"] = ("mars", "venus")[place % 2]
    opened = open_report(made)
    assert "venus" in opened.text("#jobs")
    opened.page.select_option("#filter-column", label="job")
    opened.page.select_option("#filter-value", "venus")
    assert opened.tiles().count() == 2
