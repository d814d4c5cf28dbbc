"""Reports in a browser: sorted tables, no scripts, and paper."""
import shutil

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from tagging.reporting import plots
from tagging.reporting.report import write_page
from tagging.reporting.sections import Section


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no Chromium")
    with sync_playwright() as player:
        started = player.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


TABLE = pd.DataFrame({"class": ["b10", "b9", "a", "c"], "lwlrap": [0.5, None, 0.25, 1.0], "clips": [1200, 7, 33, 5],
                      "share": ["9%", "10%", "-", "8%"]})


def test_a_table_is_sorted_with_the_keyboard(browser, tmp_path):
    write_page(tmp_path / "page.html", "A page", "Text.", [Section("Table", "Text.", [TABLE])])
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())

    def first_column() -> list[str]:
        return page.locator("tbody th").all_inner_texts()

    assert first_column() == ["b10", "b9", "a", "c"]
    for column, rising, falling in [
            ("clips", ["c", "b9", "a", "b10"], ["b10", "a", "b9", "c"]),
            ("lwlrap", ["a", "b10", "c", "b9"], ["c", "b10", "a", "b9"]),       # a missing value is the last
            ("share", ["c", "b10", "b9", "a"], ["b9", "b10", "c", "a"]),
            ("class", ["a", "b9", "b10", "c"], ["c", "b10", "b9", "a"])]:
        page.get_by_role("button", name=column).focus()
        for key, order, expected in (("Enter", "ascending", rising), ("Space", "descending", falling)):
            page.keyboard.press(key)
            assert first_column() == expected
            assert page.locator("[aria-sort]").count() == 1
            assert page.get_by_role("columnheader", name=column).get_attribute("aria-sort") == order
    assert errors == []
    page.close()


def test_a_page_can_be_read_without_scripts(browser, tmp_path):
    write_page(tmp_path / "page.html", "A page", "Text.", [Section("Table", "Text.", [TABLE])])
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        assert page.get_by_role("button").count() == 0
        assert page.locator("tbody tr").first.inner_text().split() == ["b10", "0.500", "1,200", "9%"]


def test_on_paper_nothing_is_parted_folded_or_cut(browser, tmp_path):
    long = pd.DataFrame({"class": [f"class {number}" for number in range(60)], "clips": range(60)})
    counts = pd.DataFrame(np.ones((80, 80), int), long["class"].tolist() + list("abcdefghijklmnopqrst"),
                          long["class"].tolist() + list("abcdefghijklmnopqrst"))
    truth = pd.DataFrame(np.ones((2, 80), int), columns=counts.columns)
    write_page(tmp_path / "page.html", "A page", "Text.", [
        Section("Tables", "Text.", [long, Section("Clip", "Text.", [TABLE])]),
        Section("Confusions", "Text.", [plots.confusions(counts, truth)])])
    page = browser.new_page(viewport={"width": 695, "height": 1000})       # A4 without its margins
    page.goto((tmp_path / "page.html").as_uri())
    assert not page.get_by_text("class 59", exact=True).first.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_text("class 59", exact=True).first.is_visible()
    style = """([selector, name]) => getComputedStyle(document.querySelector(selector)).getPropertyValue(name)"""
    for selector, name, value in [("h2", "break-after", "avoid"), ("h3", "break-after", "avoid"),
                                  ("h2 + p", "break-after", "avoid"), (".card", "break-inside", "avoid"),
                                  ("tbody tr", "break-inside", "avoid"), ("thead", "display", "table-header-group"),
                                  ("figure:has(.matrix)", "break-inside", "avoid"), ("nav", "display", "none")]:
        assert page.evaluate(style, [selector, name]) == value, (selector, name)
    # The matrix of 80 classes is as wide as the paper.
    assert page.evaluate("document.documentElement.scrollWidth") <= 696      # rounded up
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.get_by_text("class 59", exact=True).first.is_visible()
    page.close()
