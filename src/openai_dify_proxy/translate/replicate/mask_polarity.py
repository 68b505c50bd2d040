"""Which colour of a mask a model paints anew, read from the words in which its schema describes the mask."""

from __future__ import annotations

import re
from typing import Literal

Colour = Literal["black", "white"]

_NEUTRAL = re.compile(
    r"\b(?:black|white)\s*(?:and|or|&|/|-and-)\s*(?:black|white)\b|\bon an? (?:black|white) background\b", re.IGNORECASE
)
"""Says what masks look like, not what their colours mean."""

_CLAUSE = re.compile(r"[.;,()\n/|]|\b(?:while|whereas|but)\b", re.IGNORECASE)
_COLOUR = re.compile(r"\b(black|white)\b", re.IGNORECASE)
_AND = re.compile(r"\band\b(?=.*\b(?:black|white)\b)", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|never|no|except|cannot|non)\b|n't\b", re.IGNORECASE)

_KEEPS = (
    r"(?:filled|replaced) (?:with|by|from) (?:the )?original|preserv\w*|keep\w*|kept|protect\w*|retain\w*|remain\w*|"
    r"leav\w*|left|ignored?|un(?:changed|touched|affected|modified|edited|altered)"
)
_REPAINTS = (
    r"(?:in-?|re-?)?paint(?:s|ed|ing)?|redraw\w*|modif(?:y|ies|ied|ication)|chang(?:e|es|ed|ing)|edit(?:s|ed|ing)?|"
    r"alter(?:ed)?|fill(?:s|ed|ing)?|replac(?:e|es|ed|ing)|(?:re-?)?generat(?:e|es|ed|ing)"
)
_FATE = re.compile(rf"\b(?:(?P<keeps>{_KEEPS})|{_REPAINTS})\b", re.IGNORECASE)


def repainted_colour(description: str) -> Colour:
    """The colour of the parts that are painted anew. White, as in most models, where the words do not tell.

    The first clause that tells the fate of a colour decides.
    """
    for clause in _CLAUSE.split(_NEUTRAL.sub(" ", description)):
        for part in _of_one_colour(clause):
            colour, fate = _COLOUR.search(part), _FATE.search(part)
            if colour is not None and fate is not None:
                keeps = (fate["keeps"] is not None) is not (_NEGATION.search(part) is not None)
                return "white" if keeps is (colour[1].lower() == "black") else "black"
    return "white"


def _of_one_colour(clause: str) -> list[str]:
    """A clause that speaks of both colours in two, at the conjunction between them, or where the second one begins."""
    colours = list(_COLOUR.finditer(clause))
    if len(colours) < 2:
        return [clause]
    between = _AND.search(clause, colours[0].end())
    cut = between.start() if between is not None else colours[1].start()
    return [clause[:cut], clause[cut:]]
