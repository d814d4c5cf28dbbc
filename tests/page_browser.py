"""The page of tools.app for the tests: its process, and a browser."""
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from tagging.data.tables import read_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TABS = ["Tag", "Live", "Data", "Mistakes", "Runs"]


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    """The page of run `first`, with an index of its test clips."""
    folder = tmp_path_factory.mktemp("app")
    models = ["--run", "first", "--models", trained.folder / "models", "--device", "cpu"]
    result = trained.call("tools/tag.py", *models, "--embeddings", "--out", folder / "index", trained.data / "test")
    assert result.code == 0, result.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-m", "tools.app", *models, "--data", trained.data, "--index",
                                    folder / "index", "--port", str(port)],
                                   cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(address)
                break
            except urllib.error.URLError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        yield address
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """What predict.py says of the test clips."""
    out = tmp_path_factory.mktemp("out") / "submission.csv"
    assert trained.predict("first", "--out", str(out)).code == 0
    return read_scores(out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose microphone plays a tone of two seconds again and again."""
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright
    tone = tmp_path_factory.mktemp("microphone") / "tone.wav"
    soundfile.write(tone, 0.3 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000), 48_000)
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={tone}"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page with a width and colours. At the end: no error in its scripts, and no request to other hosts."""
    pages, errors, requested = [], [], []

    def open_one(width=1366, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert not errors
    assert not [url for url in requested if not url.startswith((address, "data:", "blob:"))]


@pytest.fixture
def browser_page(open_page):
    return open_page()


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def tabs_with_content(page):
    """Open each tab, and wait until it shows all that it can."""
    for name in TABS:
        open_tab(page, name)
        if name == "Tag":
            page.get_by_label("or an example").select_option(index=1)
            page.locator("#found").get_by_text("seconds of sound").wait_for()
            page.locator("#matches [aria-selected=true]").wait_for()
        elif name == "Live":
            page.get_by_role("button", name="Start").click()
            page.wait_for_function("live.moments > 1")
        else:
            page.wait_for_function(f"document.querySelector('#{name.lower()} .loaded').dataset.state == 'loaded'")
        if name == "Data":
            page.get_by_label("class", exact=True).select_option(index=1)
            page.locator("#clips [aria-selected=true]").wait_for()
        yield name


def shown_clip(page, tab):
    """Wait for the player of a tab, and return the name at it."""
    page.locator(f"#{tab} .sound .name").first.wait_for()
    return page.locator(f"#{tab} .sound .name").first.text_content()


def plays(page, tab):
    """Press play; whether the sound then runs."""
    page.wait_for_function(f"document.querySelector('#{tab} .save').href.startsWith('blob:')")
    page.locator(f"#{tab} .play").first.click()
    page.wait_for_function(f"Number(document.querySelector('#{tab} .seek input').value) > 0.1")
    page.locator(f"#{tab} .play").first.click()
    return page.evaluate(f"parseFloat(document.querySelector('#{tab} .cursor').style.left)") > 0
