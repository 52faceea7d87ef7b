"""A headless Chromium that opens pages from file://, and listens to whatever they complain of or ask for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from batchgen.report.page import render

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


def pytest_collection_modifyitems(items):
    """All tests in this folder are marked `browser`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium():
    """The path of Debian's chromium, which is installed where it lacks."""
    if shutil.which("chromium") is None:
        assert os.geteuid() == 0, "install chromium: these tests open the report in it"
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["update", "-q"],
            ["install", "-qy", "--no-install-recommends", "chromium", "fonts-liberation"],
        ):
            subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    return shutil.which("chromium")


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium has no sandbox where root starts it.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page from file://. `said`: what its console, its scripts and its dialogs said; `asked`: what it asked for."""

    def __init__(self, browser, path, viewport, scheme):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def _dismiss(self, dialog):
        self.said.append(dialog.message)
        dialog.dismiss()

    def check(self):
        """Nothing was said, nothing but the file itself was asked for, and no script of the data ran."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:image/webp;")] == [self.url]
        assert self.page.evaluate("window.harmed") is None

    @property
    def is_too_wide(self):
        """Whether the page can be scrolled sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def text(self, selector):
        """The text of the element, as it is shown."""
        return self.page.locator(selector).inner_text()

    def tiles(self):
        """The samples that are shown."""
        return self.page.locator(".sample:visible")


@pytest.fixture
def open_file(browser):
    """Open a file; at the end each page is checked, whatever the test did with it."""
    opened = []

    def act(path, viewport=WIDE, scheme="light"):
        opened.append(Opened(browser, Path(path), viewport, scheme))
        return opened[-1]

    yield act
    for one in opened:
        one.check()
        one.context.close()


@pytest.fixture
def open_report(open_file, tmp_path):
    """Open the page of a report, which is rendered for it."""

    def act(report, **how):
        path = tmp_path / f"report {len(list(tmp_path.iterdir()))}.html"
        path.write_text(render(report), encoding="utf-8")
        return open_file(path, **how)

    return act
