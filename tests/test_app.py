"""The page, in a real browser and by many visitors at once."""
import html
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from page_browser import address as address
from page_browser import browser as browser
from page_browser import browser_page as browser_page
from page_browser import expected as expected
from page_browser import open_page as open_page
from page_browser import open_tab, plays, shown_clip, tabs_with_content

from tagging.data.competition import open_competition
from tagging.evaluation import error_analysis
from tagging.run import StageFolder


def test_a_visitor_uploads_a_sound_and_sees_its_tag_on_top(browser_page, trained, expected):
    clip = sorted((trained.data / "test").iterdir())[0]
    browser_page.get_by_label("Sound file").set_input_files(clip)
    browser_page.locator("#found").get_by_text("seconds of sound").wait_for()
    best = expected.loc[clip.name]
    assert browser_page.locator("#found").text_content().startswith(f"{best.idxmax()} {best.max():.2f}, in ")
    assert browser_page.locator("#tag-bars tbody th").first.text_content() == best.idxmax()
    assert shown_clip(browser_page, "tag") == clip.name and plays(browser_page, "tag")
    # waveform, spectrogram and timeline begin and end together
    edges = browser_page.evaluate("""[...document.querySelectorAll('#tag .lanes canvas, #tag .lanes .mel')]
        .filter(lane => lane.clientWidth).map(lane => [lane.getBoundingClientRect().left, lane.clientWidth].join())""")
    assert len(edges) > 5 and len(set(edges[:10])) == 1
    # the archive has the sound itself
    assert browser_page.locator("#matches [role=option]").first.text_content() == f"{clip}similarity 1.00"


def test_zoom_shows_a_part_of_the_sound(browser_page):
    browser_page.get_by_label("or an example").select_option(index=1)
    mel = browser_page.locator("#tag .mel").first
    browser_page.wait_for_function("document.querySelector('#tag .mel').naturalWidth > 30")
    whole = mel.get_attribute("alt")
    browser_page.get_by_role("button", name="Zoom in").first.click()
    browser_page.wait_for_function(f"document.querySelector('#tag .mel').alt != {json.dumps(whole)}")
    seconds = [float(number) for number in re.findall(r"from (\S+) to (\S+) seconds", mel.get_attribute("alt"))[0]]
    total = float(re.search(r"to (\S+) seconds", whole)[1])
    assert seconds[1] - seconds[0] == pytest.approx(total / 2, abs=0.1)
    browser_page.get_by_role("button", name="Whole sound").first.click()
    browser_page.wait_for_function(f"document.querySelector('#tag .mel').alt == {json.dumps(whole)}")


def test_a_visitor_works_with_the_keyboard_alone(browser_page, trained):
    keyboard = browser_page.keyboard
    keyboard.press("Tab")           # the colours
    keyboard.press("Tab")           # the tabs
    for _ in range(3):
        keyboard.press("ArrowRight")
    assert browser_page.evaluate("document.activeElement.textContent") == "Mistakes"
    browser_page.locator("#worst [aria-selected=true]").wait_for()
    for _ in range(10):
        keyboard.press("Tab")
        if browser_page.evaluate("document.activeElement.getAttribute('role')") == "listbox":
            break
    table = error_analysis.clip_table(*error_analysis.out_of_fold(StageFolder(trained.stage("first", "curated"))))
    for key, place in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)):
        keyboard.press(key)
        browser_page.wait_for_function("([tab, name]) => document.querySelector(tab).textContent == name",
                                       arg=["#mistakes .sound .name", table.index[place]])
        chosen = browser_page.locator("#worst [aria-selected=true]")
        assert chosen.count() == 1 and table.index[place] in chosen.text_content()
    assert browser_page.evaluate("document.activeElement.getAttribute('role')") == "listbox"
    browser_page.wait_for_function("document.querySelector('#mistakes .save').href.startsWith('blob:')")
    keyboard.press("Enter")
    browser_page.wait_for_function("document.querySelector('#mistakes .play').textContent == 'Pause'")


def test_a_visitor_opens_a_class_and_plays_a_clip(browser_page, trained):
    clips = open_competition(trained.data).clips("curated")
    fnames = list(clips.fnames[clips.targets[:, 1] == 1])
    open_tab(browser_page, "Data")
    browser_page.get_by_label("class", exact=True).select_option("Bird_warble")
    options = browser_page.locator("#clips [role=option]")
    options.first.wait_for()
    assert [option.split(".wav")[0] + ".wav" for option in options.all_text_contents()] == fnames
    options.nth(1).click()
    browser_page.locator("#data .sound .name").get_by_text(fnames[1]).wait_for()
    assert plays(browser_page, "data")
    browser_page.get_by_role("heading", name="Labels by class").wait_for(timeout=90_000)
    assert browser_page.locator("#data .plot").count() == 3


def test_mistakes_are_filtered_by_class_and_by_the_cell_of_a_confusion(browser_page, trained):
    truth, scores = error_analysis.out_of_fold(StageFolder(trained.stage("first", "curated")))
    counts = error_analysis.confusions(truth, scores)
    row, column = np.unravel_index(counts.to_numpy().argmax(), counts.shape)
    label, other = counts.index[row], counts.columns[column]
    open_tab(browser_page, "Mistakes")
    browser_page.get_by_label("label", exact=True).select_option(label)
    browser_page.get_by_text(f"{truth[label].sum()} clips with the label {label}").wait_for()
    cell = browser_page.locator(f".matrix td[title^='{other} outranks {counts.to_numpy().max()} of']").first
    cell.click()
    browser_page.get_by_text(f"clips with the label {label} where {other} outranks it").wait_for()
    assert browser_page.locator("#worst [role=option]").count() == counts.to_numpy().max()
    assert browser_page.evaluate("document.activeElement.getAttribute('role')") == "listbox"
    sizes = browser_page.evaluate("[document.querySelectorAll('.matrix tbody tr').length, "
                                  "document.querySelectorAll('.matrix tbody td').length]")
    assert sizes == [len(counts), len(counts) ** 2]


def test_the_error_of_one_clip_does_not_stay_at_the_next(browser_page):
    open_tab(browser_page, "Mistakes")
    shown_clip(browser_page, "mistakes")
    status, rows = browser_page.locator("#mistakes-status"), browser_page.locator("#worst [role=option]")
    count = status.text_content()
    browser_page.route("**/sound/curated-*", lambda route: route.fulfill(status=422, json={"detail": "no sound"}))
    rows.nth(1).click()
    status.get_by_text("no sound").wait_for()
    browser_page.unroute("**/sound/curated-*")
    rows.nth(2).click()
    browser_page.get_by_role("status").get_by_text(count, exact=True).wait_for()


def test_a_visitor_takes_the_list_of_mistakes_along(browser_page, trained, tmp_path):
    open_tab(browser_page, "Mistakes")
    with browser_page.expect_download() as download:
        browser_page.get_by_text("Export all as csv").click()
    download.value.save_as(tmp_path / "list.csv")
    header, *rows = (tmp_path / "list.csv").read_text().splitlines()
    assert header == "fname,labels,precision,predicted,new_labels"
    assert {row.split(",")[0] for row in rows} == set(open_competition(trained.data).clips("curated").fnames)


def test_a_visitor_compares_runs(browser_page):
    open_tab(browser_page, "Runs")
    browser_page.get_by_role("heading", name="sample, smoke, curated stage").wait_for()
    assert re.search(r"\d{1,2} \w+ 20\d\d, \d\d:\d\d", browser_page.locator("#runs table").first.text_content())
    assert browser_page.locator("#runs .dots").count() == 2 and browser_page.locator("#runs .plot").count() == 4
    browser_page.get_by_label("run", exact=True).select_option("first/noisy")
    browser_page.get_by_label("compared with").select_option("first/curated")
    status = browser_page.locator("#compare-status")
    status.get_by_text("have no clips and classes in common. Choose runs on the same data.").wait_for()
    browser_page.get_by_label("run", exact=True).select_option("first/curated")
    browser_page.get_by_text("a difference of +0.0000").wait_for()
    assert browser_page.locator("#compared .bars tbody tr").count() == 10


@pytest.mark.parametrize("width", [390, 1366])
def test_the_numbers_of_the_live_axis_are_at_their_times(open_page, width):
    page = open_page(width)
    open_tab(page, "Live")
    page.evaluate("document.querySelector('#live-shown').hidden = false")
    centres = page.evaluate("""(() => {
        const box = document.querySelector('#live-timeline').getBoundingClientRect();
        return [...document.querySelectorAll('.rolling-axis span')].slice(1, 4).map(span => {
            const range = document.createRange(); range.selectNodeContents(span);
            const text = range.getBoundingClientRect();
            return (text.left + text.width / 2 - box.left) / box.width; }); })()""")
    assert centres == pytest.approx([0.25, 0.5, 0.75], abs=0.015)


def test_the_microphone_is_tagged_a_second_behind_and_nothing_grows(browser_page):
    open_tab(browser_page, "Live")
    browser_page.get_by_role("button", name="Start").click()
    browser_page.wait_for_function("live.moments >= 6")
    state = browser_page.evaluate("live")
    assert state["lag"] < 2 and state["kept"] <= 122
    assert re.fullmatch(r"\w+ \d\.\d\d", browser_page.locator("#now").text_content())
    assert browser_page.locator("#live-names li").count() == 8
    drawn = "document.querySelector('#live-timeline').getContext('2d').getImageData(0, 4, 9999, 1).data.toString()"
    before = browser_page.evaluate(drawn)
    browser_page.wait_for_function(f"live.moments >= {state['moments'] + 2}")
    assert browser_page.evaluate(drawn) != before
    browser_page.get_by_role("button", name="Stop").click()
    stopped = browser_page.evaluate("live.moments")
    browser_page.wait_for_timeout(1200)
    assert browser_page.evaluate("live.moments") <= stopped + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_tab(open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.base").AXE_SCRIPT
    page = open_page(scheme=scheme)
    page.evaluate(axe)
    for name in tabs_with_content(page):
        # The dark mode differs by its colours only.
        rules = "" if scheme == "light" else ", runOnly: ['color-contrast']"
        found = page.evaluate(f"axe.run({{resultTypes: ['violations']{rules}}})")
        assert not [(name, each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


def test_the_page_is_readable_on_a_phone_and_has_no_white_picture_in_the_dark(open_page):
    page = open_page(390, "dark")
    for name in tabs_with_content(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        small = page.evaluate("""[...document.querySelectorAll('body *')].filter(element => element.offsetParent
            && [...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())
            && parseFloat(getComputedStyle(element).fontSize) < 11).map(element => element.outerHTML)""")
        assert not small, name
        assert page.evaluate("getComputedStyle(document.querySelector('main > div:not([hidden])')).backgroundColor"
                             ".match(/[0-9]+/g).slice(0, 3).every(value => value < 60)")
        assert page.locator("img:visible").count() == page.locator("img.mel:visible").count()    # all else is drawn


def test_the_colours_can_be_chosen(browser_page):
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser_page.evaluate(background)
    browser_page.get_by_label("Colours").select_option("dark")
    assert browser_page.evaluate(background) != light
    browser_page.reload()
    assert browser_page.evaluate(background) != light


def post(address, path, content):
    """Send a request, and return its status and its JSON."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", content)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def upload(address, path):
    return post(address, f"/tag?{urllib.parse.urlencode({'name': path.name})}", path.read_bytes())


def test_ten_visitors_at_once_get_the_answers_of_their_own_sounds(address, trained, expected):
    clips = sorted((trained.data / "test").iterdir())[:10]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda clip: upload(address, clip), clips))
    for clip, (status, answer) in zip(clips, answers):
        best = expected.loc[clip.name]
        assert status == 200 and answer["found"] == f"{best.idxmax()} {best.max():.2f}"
        assert answer["seconds"] == pytest.approx(soundfile.info(clip).duration, abs=0.01)


@pytest.mark.parametrize("name, content, words", [
    ("a.wav", b"", "a.wav cannot be tagged: 0 bytes"),
    ("b.wav", b"hello", "b.wav cannot be tagged: unreadable"),
    ("c.mp3", b"\xff\xfb" * 500, "c.mp3 cannot be tagged")])
def test_what_is_no_sound_gets_a_sentence(address, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    status, answer = upload(address, tmp_path / name)
    assert status == 422 and answer["detail"].startswith(words) and "/tmp" not in answer["detail"]


def test_an_hour_of_sound_gets_a_sentence(address, tmp_path):
    soundfile.write(tmp_path / "hour.flac", np.zeros(3600 * 1000, np.int16), 1000)
    status, answer = upload(address, tmp_path / "hour.flac")
    assert status == 422
    assert answer["detail"] == "hour.flac cannot be tagged: 3600 seconds long, where at most 300 are taken."


@pytest.mark.parametrize("content, rate, status", [
    (b"\0\0" * 4000, 16_000, 200), (b"", 16_000, 422), (b"abc", 16_000, 422), (b"ab" * 900, 1, 422)])
def test_samples_of_a_microphone(address, content, rate, status):
    code, answer = post(address, f"/live?rate={rate}", content)
    assert code == status and (answer == {"probabilities": None} if status == 200 else answer["detail"])


@pytest.mark.parametrize("path", ["{root}/README.md", "/etc/passwd", "{data}/train_curated.csv", "{data}/../../x",
                                  "{data}/test/../train_curated.csv", "{models}/first/curated/fold1.safetensors"])
def test_no_other_file_is_served(address, trained, path):
    path = path.format(root=ROOT, data=trained.data, models=trained.folder / "models")
    for form in (path, path.replace("/", "%2F"), f"..{path}", f"file-{path}"):
        for place in ("sound/{}", "sound/{}/audio.wav", "static/{}", "example/{}", "{}"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(f"{address}/{place.format(form)}")
            assert error.value.code in (403, 404)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_other_pages_get_no_answers(address, headers):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(f"{address}/mistakes", headers=headers))
    assert error.value.code in (400, 403)


def test_the_page_itself_names_no_other_host(address):
    text = html.unescape(urllib.request.urlopen(address).read().decode())
    assert not re.findall(r"(?:src|href)=\"(https?:)?//", text)


@pytest.mark.parametrize("words, parts", [
    (["--run", "nothing"], ["nothing", "train it first"]), (["--run", "first", "--data", "nowhere"], ["nowhere"]),
    (["--run", "first", "--index", "nowhere"], ["nowhere", "no embeddings"])])
def test_what_cannot_be_shown_is_said(trained, expect_error, words, parts):
    options = ["--data", trained.data, "--models", trained.folder / "models", "--device", "cpu"]
    expect_error(trained.call("tools/app.py", *options, *words), *parts)


def test_a_port_in_use_is_said(trained, expect_error, address):
    options = ["--data", trained.data, "--models", trained.folder / "models", "--device", "cpu", "--run", "first"]
    expect_error(trained.call("tools/app.py", *options, "--port", address.rpartition(":")[2]), "--port", "in use")
