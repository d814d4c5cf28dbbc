"""Fonts for names in any script. matplotlib's own font has no Chinese, for example, but a font of the system can."""
import logging
import threading
import unicodedata
from collections.abc import Iterable, Iterator

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

log = logging.getLogger(__name__)

BOXES = "Last Resort High-Efficiency"       # matplotlib's font that has a box for each script
EASTERN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC"}
# kind of characters -> a font that has them, and the package of it
REMEDIES = {"eastern": "Noto Sans CJK (on Debian and Ubuntu the package fonts-noto-cjk)",
            "symbol": "Symbola (on Debian and Ubuntu the package fonts-symbola)",
            "other": "Noto Sans (on Debian and Ubuntu the package fonts-noto-core)"}


class FontFinder:
    """Finds a font for each character, once in a process. Threads can share it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.families: dict[tuple[str, str], str] = {}      # (file of the default font, character) -> family or ""
        self.announced: set[str] = set()                    # kinds of missing characters
        self.complete = False                               # whether fonts that are newer than matplotlib's list count

    def choose(self, text: str, default: str) -> list[str]:
        """Return the families that have the characters of a text which a font does not have.

        Args:
            default: file of the font.
        """
        with self.lock:
            keys = [(default, character) for character in text]
            unknown = {character for _, character in keys if (default, character) not in self.families}
            if unknown:
                found = self.search(unknown, default)
                self.families |= {(default, character): found.get(character, "") for character in unknown}
            return list(dict.fromkeys(family for key in keys if (family := self.families[key])))

    def search(self, characters: Iterable[str], default: str) -> dict[str, str]:
        """Return a family for each character that `default` does not have. Log the characters that no font has."""
        missing = [character for character in sorted(characters) if needs_glyph(character)]
        missing = without(missing, default, 0)
        found: dict[str, str] = {}
        for family, path, face in self.fonts():
            if not missing:
                break
            left = without(missing, path, face)
            found |= dict.fromkeys(set(missing) - set(left), family)
            missing = left
        self.announce(missing)
        return found

    def fonts(self) -> Iterator[tuple[str, str, int]]:
        """Yield family, file and face of the fonts, the plainest first; then those that matplotlib has not listed yet.

        matplotlib keeps its list in a file, and does not look for new fonts again.
        """
        manager = font_manager.fontManager
        listed = [*manager.ttflist]
        yield from plain_fonts(listed)
        if not self.complete:
            self.complete = True
            known = {entry.fname for entry in listed}
            for path in sorted(set(font_manager.findSystemFonts()) - known):
                try:
                    manager.addfont(path)
                except Exception as error:      # of many kinds: the file is no font, or of a kind that is not supported
                    log.debug("%s: %s", path, error)
        yield from plain_fonts(entry for entry in manager.ttflist if entry not in listed)

    def announce(self, missing: list[str]) -> None:
        """Log the characters that no font has, once for each kind of font that would help."""
        kinds: dict[str, list[str]] = {}
        for character in missing:
            kinds.setdefault(kind_of(character), []).append(character)
        for kind, characters in kinds.items():
            if kind not in self.announced:
                self.announced.add(kind)
                log.warning("note: no font of this system has %s, so pictures show boxes. Install a font such as %s.",
                            " ".join(characters[:10]), REMEDIES[kind])


FINDER = FontFinder()


def set_fonts(figure: Figure) -> None:
    """Give each text of a figure the fonts that it needs. A character that no font has is drawn as a box."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        content = text.get_text()
        if not content.isascii():
            default = font_manager.findfont(text.get_fontproperties())
            text.set_fontfamily([*text.get_fontfamily(), *FINDER.choose(content, str(default)), BOXES])


def plain_fonts(entries: Iterable[font_manager.FontEntry]) -> Iterator[tuple[str, str, int]]:
    """Yield family, file and face of each font, sans-serif ones first, upright before italic, and regular before bold.

    Fonts are left out that have a box or nothing for every character.
    """
    def plainness(entry: font_manager.FontEntry) -> tuple:
        weight = entry.weight if isinstance(entry.weight, int) else 400
        return "Sans" not in entry.name, entry.style != "normal", abs(weight - 400), entry.name, entry.fname

    for entry in sorted(entries, key=plainness):
        if not (entry.name.startswith((".", "Last Resort")) or "Blank" in entry.name):
            yield entry.name, entry.fname, getattr(entry, "index", 0)


def without(characters: list[str], path: str, face: int) -> list[str]:
    """Return the characters that a font does not have, or cannot draw."""
    try:
        font = FT2Font(path, face_index=face)
        font.set_size(12, 72)
        return [character for character in characters if not draws(font, character)]
    except Exception:           # the font was removed since matplotlib listed it, or has bitmaps only
        return characters


def draws(font: FT2Font, character: str) -> bool:
    if not font.get_char_index(ord(character)):
        return False
    font.load_char(ord(character))
    return True


def needs_glyph(character: str) -> bool:
    """Whether a character is visible: not a blank, a line break, a joiner or a variation selector."""
    return unicodedata.category(character) not in ("Zs", "Zl", "Zp", "Cc", "Cf") and not (
        "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef")


def kind_of(character: str) -> str:
    """Return the key of `REMEDIES` for a character."""
    if unicodedata.name(character, "").partition(" ")[0].partition("-")[0] in EASTERN:
        return "eastern"
    return "symbol" if unicodedata.category(character).startswith("S") else "other"
