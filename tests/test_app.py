"""The page, in a real browser and by many visitors at once."""
import html
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from gradio_client import Client, handle_file

from tagging.data.competition import open_competition
from tagging.data.tables import read_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    """The page of run `first`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.app", "--run", "first", "--data", trained.data, "--models",
             trained.folder / "models", "--device", "cpu", "--port", str(port)],
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


@pytest.fixture
def browser_page(address):
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address)
        yield page
        outside = [url for url in page.requested if not url.startswith((address, "data:", "blob:"))]
        assert not outside
        browser.close()


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def choose(page, label, value):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=value, exact=True).click()


def plays(page):
    """Press play; whether the sound then runs. The player shows how far it is."""
    page.locator("button[aria-label='Play']:visible").first.click()
    page.wait_for_function(
        "[...document.querySelectorAll('time')].some(time => time.offsetParent && !/^0:00$/.test(time.innerText))")
    return True


def pictures(page):
    """The widths, in pixels, of the pictures that can be seen; 0 for one that is broken."""
    return page.evaluate("[...document.querySelectorAll('img')].filter(image => image.offsetParent)"
                         ".map(image => image.naturalWidth)")


def wait_for_pictures(page, count):
    page.wait_for_function(f"[...document.querySelectorAll('img')].filter(i => i.offsetParent).length == {count}")


def test_a_visitor_uploads_a_sound_and_sees_its_tag_on_top(browser_page, trained, expected):
    clip = sorted((trained.data / "test").iterdir())[0]
    browser_page.set_input_files("input[type=file]", clip)
    found = browser_page.locator("#found textarea")
    browser_page.wait_for_function("document.querySelector('#found textarea').value")
    assert found.input_value().startswith(expected.loc[clip.name].idxmax() + ": ")
    wait_for_pictures(browser_page, 3)
    assert min(pictures(browser_page)) > 700


def test_a_visitor_tries_an_example(browser_page, trained, expected):
    fname = sorted(path.name for path in (trained.data / "test").iterdir())[1]
    choose(browser_page, "or an example", fname)
    browser_page.wait_for_function("document.querySelector('#found textarea').value")
    assert browser_page.locator("#found textarea").input_value().startswith(expected.loc[fname].idxmax())


def test_a_visitor_opens_a_class_and_plays_a_clip(browser_page, trained):
    clips = open_competition(trained.data).clips("curated")
    fname = clips.fnames[clips.targets[:, 1] == 1][0]
    open_tab(browser_page, "Data")
    choose(browser_page, "class", "Bird_warble")
    choose(browser_page, f"{clips.targets[:, 1].sum()} clips", fname)
    browser_page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => /Bird_warble/.test(t.value))")
    assert plays(browser_page)
    assert min(pictures(browser_page)) > 700 and len(pictures(browser_page)) > 6


def test_a_visitor_looks_at_the_worst_clip_and_takes_the_list_along(browser_page, trained, tmp_path):
    open_tab(browser_page, "Mistakes")
    before = len(pictures(browser_page))
    browser_page.locator("#worst [role=gridcell]").first.click()
    wait_for_pictures(browser_page, before + 2)
    assert plays(browser_page) and min(pictures(browser_page)) > 700
    with browser_page.expect_download() as download:
        browser_page.get_by_text("Export all as csv").click()
    download.value.save_as(tmp_path / "list.csv")
    header, *rows = (tmp_path / "list.csv").read_text().splitlines()
    assert header == "fname,labels,precision,predicted,new_labels"
    assert {row.split(",")[0] for row in rows} == set(open_competition(trained.data).clips("curated").fnames)


def test_a_visitor_compares_runs(browser_page):
    open_tab(browser_page, "Runs")
    browser_page.get_by_role("gridcell", name="timm:test_resnet").first.wait_for()
    wait_for_pictures(browser_page, 4)
    assert min(pictures(browser_page)) > 700


def test_ten_visitors_at_once_get_the_answers_of_their_own_sounds(address, trained, expected):
    clips = sorted((trained.data / "test").iterdir())[:10]

    def visit(clip):
        return Client(address, verbose=False).predict(handle_file(clip), api_name="/tag")[0]

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(visit, clips))
    for clip, answer in zip(clips, answers):
        best = expected.loc[clip.name]
        assert answer.startswith(f"{best.idxmax()}: {best.max():.0%}, in {soundfile.info(clip).duration:.1f} seconds")


@pytest.mark.parametrize("name, content, words", [
    ("a.wav", b"", "a.wav cannot be tagged: 0 bytes"),
    ("b.wav", b"hello", "b.wav cannot be tagged: unreadable"),
    ("c.mp3", b"\xff\xfb" * 500, "c.mp3 cannot be tagged")])
def test_what_is_no_sound_gets_a_sentence(address, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    answer, *shown = Client(address, verbose=False).predict(handle_file(tmp_path / name), api_name="/tag")
    assert answer.startswith(words) and shown == ["", "", ""]


def test_an_hour_of_sound_gets_a_sentence(address, tmp_path):
    soundfile.write(tmp_path / "hour.flac", np.zeros(3600 * 1000, np.int16), 1000)
    answer, *_ = Client(address, verbose=False).predict(handle_file(tmp_path / "hour.flac"), api_name="/tag")
    assert answer == "hour.flac cannot be tagged: 3600 seconds long, where at most 300 are taken."


@pytest.mark.parametrize("path", ["{root}/README.md", "/etc/passwd", "{data}/train_curated.csv", "{data}/../../x",
                                  "{data}/test/../train_curated.csv", "{models}/first/curated/fold1.safetensors"])
def test_no_other_file_is_served(address, trained, path):
    path = path.format(root=ROOT, data=trained.data, models=trained.folder / "models")
    for form in (path, path.replace("/", "%2F"), f"..{path}"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gradio_api/file={form}")
        assert error.value.code in (403, 404)


def test_the_page_itself_names_no_other_host(address):
    text = html.unescape(urllib.request.urlopen(address).read().decode())
    loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]+)", text)
    assert not [url for url in loaded if not url.startswith(address)]


@pytest.mark.parametrize("words, parts", [
    (["--run", "nothing"], ["nothing", "train it first"]), (["--run", "first", "--data", "nowhere"], ["nowhere"])])
def test_what_cannot_be_shown_is_said(trained, expect_error, words, parts):
    options = ["--data", trained.data, "--models", trained.folder / "models", "--device", "cpu"]
    expect_error(trained.call("tools/app.py", *options, *words), *parts)
