"""Characters that are not what they look like."""

from __future__ import annotations

import re
import unicodedata

# By the names of letters, each with the Latin one that it looks like in most typefaces.
_SIMILAR = {
    "CYRILLIC SMALL LETTER": {
        "A": "a", "IE": "e", "O": "o", "ER": "p", "ES": "c", "U": "y", "HA": "x",
        "BYELORUSSIAN-UKRAINIAN I": "i", "JE": "j", "DZE": "s", "SHHA": "h", "KOMI DE": "d",
        "WE": "w", "QA": "q", "PALOCHKA": "l", "STRAIGHT U": "v", "IZHITSA": "v",
    },
    "CYRILLIC CAPITAL LETTER": {
        "A": "A", "VE": "B", "IE": "E", "KA": "K", "EM": "M", "EN": "H", "O": "O", "ER": "P",
        "ES": "C", "TE": "T", "U": "Y", "HA": "X", "BYELORUSSIAN-UKRAINIAN I": "I", "JE": "J",
        "DZE": "S", "WE": "W", "QA": "Q", "STRAIGHT U": "Y",
    },
    "CYRILLIC LETTER": {"PALOCHKA": "I"},
    "GREEK SMALL LETTER": {"OMICRON": "o", "NU": "v", "IOTA": "i", "RHO": "p", "ALPHA": "a"},
    "GREEK CAPITAL LETTER": {
        "ALPHA": "A", "BETA": "B", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "IOTA": "I",
        "KAPPA": "K", "MU": "M", "NU": "N", "OMICRON": "O", "RHO": "P", "TAU": "T",
        "UPSILON": "Y", "CHI": "X",
    },
    "ARMENIAN SMALL LETTER": {"OH": "o", "SEH": "u", "HO": "h", "VO": "n", "ZA": "q", "CO": "g"},
    "ARMENIAN CAPITAL LETTER": {"OH": "O", "SEH": "U", "TIWN": "S", "VO": "N"},
    "CHEROKEE LETTER": {
        "GO": "A", "YV": "B", "TLI": "C", "A": "D", "GV": "E", "MI": "H", "V": "i", "GU": "J",
        "TSO": "K", "TLE": "L", "LU": "M", "TLV": "P", "SV": "R", "DU": "S", "I": "T", "DO": "V",
        "LA": "W", "NO": "Z",
    },
}  # fmt: skip

_WORD = re.compile(r"[^\W\d_]+(?:[^\W\d_]|[\u0300-\u036f])*")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


def _named(prefix: str, name: str) -> str:
    try:
        return unicodedata.lookup(f"{prefix} {name}")
    except KeyError:
        return ""


_TABLE = str.maketrans({
    letter: latin
    for prefix, letters in _SIMILAR.items()
    for name, latin in letters.items()
    if (letter := _named(prefix, name))
})  # fmt: skip


HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that are not seen: those that Unicode says to ignore in display, and annotations."""


def lookalikes(text: str) -> str:
    """The text with letters that look like Latin ones replaced by these, in words that have some.

    Words of one script stay as they are, whichever it is; so do other letters in mixed words, such
    as the Greek mu of a unit.
    """
    if text.isascii():
        return text
    return _WORD.sub(_replaced, text)


def _replaced(match: re.Match[str]) -> str:
    word = match[0]
    return word.translate(_TABLE) if not word.isascii() and _LATIN.search(word) else word
