"""Captions in the characters of the font that Pillow bundles, the only one that is always there."""

from __future__ import annotations

import functools
import re
import unicodedata

from PIL import Image, ImageDraw, ImageFont

STRIP = 0.2
"""Height of the strip that holds the caption, as a part of the picture's height.

It depends on the height alone, so that in a picture that was resized, its own strip covers the earlier one.
"""

MAX_CHARACTERS = 240

_SUBSTITUTES = {"ß": "ss", "\N{MINUS SIGN}": "-", "→": "->", "×": "x", "€": "EUR"}
_CATEGORIES = {
    "Pd": "-",
    **dict.fromkeys(("Pc", "Pe", "Pf", "Pi", "Po", "Ps"), " "),
    **dict.fromkeys(("Cc", "Cf", "Cn", "Co", "Cs", "Mc", "Me", "Mn", "Sk"), ""),
}
"""What stands for punctuation, marks and unassigned characters that the font lacks."""

_LANGUAGES = {"HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CJK": "Chinese"}
"""Languages by the first word of their letters' names; other scripts are called by that word."""

_LATIN = re.compile(r"LATIN (SMALL|CAPITAL) (?:LETTER|LIGATURE) (?:[A-Z]+ )?([A-Z]{1,2})(?: WITH .*)?")
_MISSING = "\U0010ffff"
_RUNS = re.compile(r"(?P<letters>f(?:[nf]*f)?)|s+")

Box = tuple[int, int, int, int]


def caption_strip(size: tuple[int, int]) -> Box:
    """Return the part of a picture of this size that holds its caption."""
    width, height = size
    return 0, height - round(height * STRIP), width, height


def write_caption(picture: Image.Image, text: str, signature: str) -> None:
    """Darken the strip and write the text into it, with the signature below; draw nowhere else."""
    box = caption_strip(picture.size)
    strip = picture.crop(box).point([value * 2 // 5 for value in range(256)] * 3)
    side = min(picture.size)
    font, small = _font(max(8, round(side / 28))), _font(max(7, round(side / 48)))
    margin = strip.height // 10
    draw = ImageDraw.Draw(strip)
    draw.text((margin, strip.height - margin), legible(signature), "white", small, anchor="ld")
    bottom, spacing = strip.height - margin - round(small.size * 1.3), round(font.size * 1.25)
    lines = _wrapped(legible(text[:MAX_CHARACTERS]), font, strip.width - 2 * margin)
    for index, line in enumerate(reversed(_shortened(lines, (bottom - margin) // spacing))):
        draw.text((margin, bottom - index * spacing), line, "white", font, anchor="ld")
    picture.paste(strip, box)


def legible(text: str) -> str:
    """Return the text with only those characters that the font has.

    Letters lose accents that the font lacks. Other scripts and pictographs are named: `[Chinese text]`, `[emoji]`.
    """
    plain = "".join(map(_plain, unicodedata.normalize("NFKC", text)))
    parts, end = [], 0
    for run in _RUNS.finditer("".join(map(_kind, plain))):
        replaced = plain[run.start() : run.end()]
        parts += [plain[end : run.start()], _script(replaced) if run["letters"] else _symbol(replaced)]
        end = run.end()
    return "".join([*parts, plain[end:]])


def _plain(character: str) -> str:
    """Return what stands for a character: itself, a simpler form that the font has, or nothing."""
    if character.isspace():
        return " "
    if _is_drawn(character):
        return character
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in _CATEGORIES:
        return _CATEGORIES[category]
    return _SUBSTITUTES.get(character) or _latin(character) or character


def _latin(character: str) -> str:
    """Return a Latin letter without its accents; an empty text for other characters."""
    base = unicodedata.normalize("NFKD", character)[0]
    if _is_drawn(base):
        return base
    found = _LATIN.fullmatch(unicodedata.name(character, ""))
    if found is None:
        return ""
    return found[2] if found[1] == "CAPITAL" else found[2].lower()


def _kind(character: str) -> str:
    """Return d for a letter or digit that is drawn, n for other drawn characters, f for a foreign letter, else s."""
    if _is_drawn(character):
        return "d" if character.isalnum() else "n"
    return "f" if unicodedata.category(character)[0] == "L" else "s"


def _script(run: str) -> str:
    scripts = [unicodedata.name(letter, "foreign").split()[0] for letter in run if _kind(letter) == "f"]
    language = next((name for script, name in _LANGUAGES.items() if script in scripts), scripts[0].capitalize())
    return f"[{language} text]"


def _symbol(run: str) -> str:
    return "[emoji]" if any(unicodedata.category(character) == "So" for character in run) else "[symbol]"


@functools.lru_cache(maxsize=4096)
def _is_drawn(character: str) -> bool:
    font = _font(16)
    return bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    return font


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shortened(lines: list[str], room: int) -> list[str]:
    """Return as many lines as there is room for; dots tell that there are more."""
    if len(lines) <= room or room < 1:
        return lines[: max(0, room)]
    return [*lines[: room - 1], f"{lines[room - 1]} ..."]
