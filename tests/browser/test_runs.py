"""report.html as commands wrote it, of a finished, a running, a broken and an empty run, in a browser."""

import sys

import pytest

from batchgen.paths import RunDir
from tests.browser.conftest import PHONE, WIDE
from tests.builders import truncate, write_rows
from tests.commands import FAKE, SMALL, front, planned, run, start, wait_for
from tests.report.made_up import HOSTILE

REPORT = [sys.executable, "-m", "batchgen.report"]
ROWS = 48
FAILED = "000000000007"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Rows with columns; some hold what is markup."""
    texts = [*HOSTILE, *(f"a lighthouse, take {place}" for place in range(len(HOSTILE), ROWS))]
    rows = [{"prompt": text, "artist": f"artist {place % 3}"} for place, text in enumerate(texts)]
    rows[0] |= {HOSTILE[2]: HOSTILE[0], "negative_prompt": HOSTILE[1]}
    rows.insert(20, {"prompt": "a rover", "seed": HOSTILE[0]})  # is rejected
    return write_rows(tmp_path_factory.mktemp("prompts") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def finished(prompts, tmp_path_factory):
    """A run that is done, with a failed image."""
    folder = tmp_path_factory.mktemp("finished") / "a night <b>&amp;"
    done = front(f'"{folder}"', prompts, "job.on_bad_row=skip", FAKE_NAN=FAILED, FAKE_BAD="black")
    assert done.returncode == 3, done.stderr
    return RunDir(folder)


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_finished_run(open_file, finished, viewport, scheme):
    opened = open_file(finished.report, viewport=viewport, scheme=scheme)
    page = opened.page
    assert opened.text("#state") == "Done, with failed images"
    assert opened.text("#verdict") == f"{ROWS - 1} of {ROWS} images made, 1 failed"
    assert page.locator(".chart canvas").count() == 2
    assert opened.tiles().count() == ROWS
    assert not opened.is_too_wide
    page.select_option("#filter-status", "failed")
    assert opened.tiles().count() == 1
    opened.tiles().first.click()
    assert FAILED in opened.text("#preview") and "black" in opened.text("#preview")
    page.keyboard.press("Escape")
    page.select_option("#filter-status", "")
    page.select_option("#filter-column", label="artist")
    page.select_option("#filter-value", "artist 1")
    assert opened.tiles().count() == ROWS // 3
    page.get_by_text("Dark" if scheme == "light" else "Light", exact=True).click()
    opened.tiles().first.click()
    assert not opened.is_too_wide
    assert page.locator("#preview img").evaluate("one => one.complete && one.naturalWidth") > 0
    assert "seed" in opened.text("#rejected")


def test_rows_that_are_markup_show_as_text(open_file, finished):
    opened = open_file(finished.report)
    assert opened.page.locator("h1").inner_text() in ("a night <b>&amp;", "mars_batch")
    for place, text in enumerate(HOSTILE):
        opened.tiles().nth(place).click()
        assert opened.page.locator(".prompt").evaluate("one => one.textContent.trim()") == text.strip(), place
        opened.page.keyboard.press("Escape")
    opened.tiles().first.click()
    columns = opened.page.locator(".columns").evaluate("one => one.textContent")
    assert HOSTILE[2] in columns and HOSTILE[0] in columns


def test_a_running_run(open_file, prompts, tmp_path):
    folder = RunDir(tmp_path / "run")
    going = start(
        FAKE, *SMALL, f"run_dir={folder.root}", f"job.prompts={prompts}", "job.on_bad_row=skip", FAKE_STEP_S="1"
    )
    try:
        wait_for(lambda: len(folder.committed()) >= 1 or going.poll() is not None, timeout_s=60)
        done = run(REPORT, folder.root)
        assert going.poll() is None, going.stderr.read()
        assert done.returncode == 0, done.stderr
        opened = open_file(folder.report)
    finally:
        going.terminate()
        going.communicate(timeout=60)
    assert opened.text("#state") == "Running"
    assert 8 <= opened.tiles().count() < ROWS
    assert "not made yet" in opened.text("#verdict")
    assert "was under way" in opened.text("#made")


def test_a_broken_run(open_file, prompts, tmp_path):
    folder = RunDir(tmp_path / "run")
    assert front(folder.root, prompts, "job.on_bad_row=skip").returncode == 0
    truncate(folder.tar(0), 30_000)
    folder.tar(1).unlink()
    folder.manifest(2).write_text("{")
    folder.memory_log(3).write_bytes(b"\xff\x00 torn")
    done = run(REPORT, folder.root)
    assert "Traceback" not in done.stderr
    for viewport in (WIDE, PHONE):
        opened = open_file(folder.report, viewport=viewport)
        assert opened.text("#state") == "Broken"
        assert "000001" in opened.text("#problems")
        assert opened.tiles().count() > 0
        assert not opened.is_too_wide


def test_an_empty_run(open_file, prompts, tmp_path):
    folder = RunDir(tmp_path / "run")
    planned(folder.root, prompts, "job.on_bad_row=skip")
    done = run(REPORT, folder.root)
    assert done.returncode == 0, done.stderr
    opened = open_file(folder.report)
    assert opened.text("#state") == "Nothing was made yet"
    assert opened.text("#verdict") == f"0 of {ROWS} images made, {ROWS} not made yet"
    assert opened.tiles().count() == 0
    assert not opened.is_too_wide
