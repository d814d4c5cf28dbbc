"""Names in any script in pictures: a font that has the characters, or boxes and one line about it."""
import logging
import threading
import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.text import Text

from tagging_lite import fonts
from tagging_lite.pictures import bars_figure, png, shorten_name


@pytest.fixture(autouse=True)
def finder(monkeypatch):
    """A finder that has seen nothing yet, and only the fonts of matplotlib itself."""
    manager = font_manager.fontManager
    own = [entry for entry in manager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    monkeypatch.setattr(fonts, "FINDER", fonts.FontFinder())
    return fonts.FINDER


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def build_font(path, family, characters):
    """Write a font whose characters are all a square."""
    pen = TTGlyphPen(None)
    for place, draw in (((0, 0), pen.moveTo), ((0, 900), pen.lineTo), ((900, 900), pen.lineTo), ((900, 0), pen.lineTo)):
        draw(place)
    pen.closePath()
    square, names = pen.glyph(), [f"uni{ord(character):04X}" for character in characters]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names)))
    builder.setupGlyf(dict.fromkeys([".notdef", *names], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-100)
    builder.setupPost()
    builder.save(path)
    return str(path)


def families(figure):
    return {text.get_text(): text.get_fontfamily() for text in figure.findobj(Text) if not text.get_text().isascii()}


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_font_that_has_the_characters_is_found_although_it_is_newer_than_the_list(tmp_path, monkeypatch, caplog):
    path = build_font(tmp_path / "east.ttf", "Test East", "犬吠")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path])
    figure = bars_figure([("犬吠 bark", 0.9), ("Птица Möwe", 0.2)])
    assert png(figure).startswith(b"\x89PNG")
    found = families(figure)
    assert found["犬吠 bark"] == ["sans-serif", "Test East", fonts.BOXES]
    assert found["Птица Möwe"] == ["sans-serif", fonts.BOXES]       # matplotlib's own font has them
    assert warned(caplog) == []


def test_the_glyph_is_drawn(tmp_path, monkeypatch):
    before = png(bars_figure([("犬", 0.5)]))
    monkeypatch.setattr(fonts, "FINDER", fonts.FontFinder())
    path = build_font(tmp_path / "east.ttf", "Test East", "犬")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path])
    assert png(bars_figure([("犬", 0.5)])) != before


def test_a_name_of_several_scripts_takes_several_fonts(tmp_path, monkeypatch):
    paths = [build_font(tmp_path / f"{name}.ttf", f"Test {name}", characters)
             for name, characters in (("East", "犬"), ("Thai", "ก"))]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    figure = bars_figure([("犬 ก é", 0.9)])
    png(figure)
    assert families(figure)["犬 ก é"] == ["sans-serif", "Test East", "Test Thai", fonts.BOXES]


@pytest.mark.parametrize(("name", "characters", "package"), [
    ("狗吠", "吠 狗", "fonts-noto-cjk"), ("いぬ", "い ぬ", "fonts-noto-cjk"), ("개", "개", "fonts-noto-cjk"),
    ("ก", "ก", "fonts-noto-core"), ("क", "क", "fonts-noto-core"), ("🦜", "🦜", "fonts-symbola")])
def test_a_missing_font_is_said_once_with_a_remedy(caplog, name, characters, package):
    for _ in range(2):
        assert png(bars_figure([(name, 0.9)])).startswith(b"\x89PNG")
    line, = warned(caplog)
    assert line.startswith(f"note: no font of this system has {characters}, so ") and package in line
    png(bars_figure([(name * 2, 0.9), ("Birds", 0.1)]))
    assert len(warned(caplog)) == 1


def test_scripts_of_matplotlibs_own_font_need_nothing(caplog):
    figure = bars_figure([("Собака", 0.5), ("σκύλος", 0.4), ("כלב", 0.3), ("كلب", 0.2), ("chó sủa №", 0.1)], "Åse")
    png(figure)
    assert warned(caplog) == []
    assert all(family == ["sans-serif", fonts.BOXES] for family in families(figure).values())


def test_blanks_joiners_and_selectors_are_no_missing_characters(caplog):
    png(bars_figure([("a\u00a0b\u200d\ufe0f\u3000c\u2028", 0.5)]))
    assert warned(caplog) == []


def test_a_picture_of_latin_names_is_the_same_as_ever(monkeypatch):
    expected = png(bars_figure([("Bell", 0.5)], "a title"))
    monkeypatch.setattr("tagging_lite.pictures.set_fonts", lambda figure: None)
    assert png(bars_figure([("Bell", 0.5)], "a title")) == expected


def test_fonts_are_searched_once_and_threads_share_the_result(finder, monkeypatch):
    searches = []
    real = finder.search
    monkeypatch.setattr(finder, "search", lambda *words: searches.append(words) or real(*words))
    pictures = []
    threads = [threading.Thread(target=lambda: pictures.append(png(bars_figure([("犬", 0.5)])))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(searches) == 1 and len(set(pictures)) == 1 and len(pictures) == 4


def test_fonts_that_cannot_be_used_are_passed_over(tmp_path, monkeypatch, caplog):
    damaged, gone = tmp_path / "damaged.ttf", tmp_path / "gone.ttf"
    damaged.write_bytes(b"no font")
    font_manager.fontManager.addfont(build_font(gone, "Test Sans", "犬"))       # listed, and then removed
    gone.unlink()
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(damaged), str(tmp_path / "never.ttf")])
    png(bars_figure([("犬", 0.9)]))
    assert len(warned(caplog)) == 1


@pytest.mark.parametrize(("name", "expected"), [
    ("Bell", "Bell"), ("", ""), ("0123456789", "0123456789"), ("0123456789a", "012345678…"), ("犬" * 5, "犬" * 5),
    ("犬" * 6, "犬" * 4 + "…"), ("a" + "犬" * 5, "a" + "犬" * 4 + "…"), ("caf\udce9", "caf\ufffd")])
def test_names_are_shortened_by_their_width(name, expected):
    assert shorten_name(name, 10) == expected
