"""Captions in the font that Pillow bundles, the only one that is always available."""

from __future__ import annotations

import functools
import re
import unicodedata

from PIL import Image, ImageDraw, ImageFont

STRIP = 0.2
"""The height of the caption strip, as a fraction of the picture's height.

It depends only on the height, so the strip of a resized picture covers the earlier one.
"""

MAX_CHARACTERS = 240

_SUBSTITUTES = {"ß": "ss", "\N{MINUS SIGN}": "-", "→": "->", "×": "x", "€": "EUR"}
_CATEGORIES = {
    "Pd": "-",
    **dict.fromkeys(("Pc", "Pe", "Pf", "Pi", "Po", "Ps"), " "),
    **dict.fromkeys(("Cc", "Cf", "Cn", "Co", "Cs", "Mc", "Me", "Mn", "Sk"), ""),
}
"""Substitutes for punctuation, marks and unassigned characters that the font lacks."""

_LANGUAGES = {"HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CJK": "Chinese"}
"""Languages by the first word of their letters' Unicode names; other scripts are shown as that word."""

_LATIN = re.compile(r"LATIN (SMALL|CAPITAL) (?:LETTER|LIGATURE) (?:[A-Z]+ )?([A-Z]{1,2})(?: WITH .*)?")
_MISSING = "\U0010ffff"
_RUNS = re.compile(r"(?P<letters>f(?:[nf]*f)?)|s+")

Box = tuple[int, int, int, int]


def caption_strip(size: tuple[int, int]) -> Box:
    """Return the box of the caption in a picture of this size."""
    width, height = size
    return 0, height - round(height * STRIP), width, height


def write_caption(picture: Image.Image, text: str, signature: str) -> None:
    """Darken the caption strip and write the text into it, with the signature below."""
    box = caption_strip(picture.size)
    strip = picture.crop(box).point([value * 2 // 5 for value in range(256)] * 3)
    side = min(picture.size)
    font, small = _font(max(8, round(side / 28))), _font(max(7, round(side / 48)))
    margin = strip.height // 10
    draw = ImageDraw.Draw(strip)
    draw.text((margin, strip.height - margin), legible(signature), "white", small, anchor="ld")
    bottom, spacing = strip.height - margin - round(small.size * 1.3), round(font.size * 1.25)
    lines = _wrap(legible(text[:MAX_CHARACTERS]), font, strip.width - 2 * margin)
    for index, line in enumerate(reversed(_truncate(lines, (bottom - margin) // spacing))):
        draw.text((margin, bottom - index * spacing), line, "white", font, anchor="ld")
    picture.paste(strip, box)


def legible(text: str) -> str:
    """Return the text in characters that the font has.

    Accents that the font lacks are dropped. Other scripts and emoji become names: `[Chinese text]`, `[emoji]`.
    """
    plain = "".join(map(_substitute, unicodedata.normalize("NFKC", text)))
    parts, end = [], 0
    for run in _RUNS.finditer("".join(map(_kind, plain))):
        replaced = plain[run.start() : run.end()]
        parts += [plain[end : run.start()], _script(replaced) if run["letters"] else _symbol(replaced)]
        end = run.end()
    return "".join([*parts, plain[end:]])


def _substitute(character: str) -> str:
    """Return a character, a simpler form that the font has, or an empty text."""
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
    """Return a Latin letter without its accents, or an empty text for other characters."""
    base = unicodedata.normalize("NFKD", character)[0]
    if _is_drawn(base):
        return base
    found = _LATIN.fullmatch(unicodedata.name(character, ""))
    if found is None:
        return ""
    return found[2] if found[1] == "CAPITAL" else found[2].lower()


def _kind(character: str) -> str:
    """Classify a character: d and n are in the font (d: letter or digit), f is a foreign letter, s anything else."""
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


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _truncate(lines: list[str], room: int) -> list[str]:
    """Return the lines that fit; an ellipsis marks omitted ones."""
    if len(lines) <= room or room < 1:
        return lines[: max(0, room)]
    return [*lines[: room - 1], f"{lines[room - 1]} ..."]
