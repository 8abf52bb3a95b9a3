"""Characters that a reader does not see, or takes for others."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from .._contract import Method, Modality, Needs, Observation, State
from ._features import enough

KINDS = (
    "plain",
    "invisible",
    "direction",
    "control",
    "undefined",
    "compatibility",
    "mark",
    "foreign",
)
"""What a character is: of another form than NFKC has it, a combining mark, or a letter of another
script than the first of its word, among others."""

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_WRITTEN_TOGETHER = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO")


def code_points(texts: Sequence[str], *, length: int | None = None) -> Tensor:
    """Texts as code points (B, L), float32, which holds all of them exactly, 0 behind the end.

    length: texts are cut there; None for the longest one.
    """
    most = max([1, *(len(text) for text in texts)]) if length is None else length
    rows = [[*map(ord, text[:most]), *[0] * (most - len(text))] for text in texts]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(texts), most)


@dataclass(frozen=True, kw_only=True)
class EncodingAnomaly(Method):
    """How unusual the characters of a text are, in nats: its surprise at their kinds.

    Inputs are code points (B, L), as `code_points` gives them. Each character has one of `KINDS`,
    whose rates are learned from benign texts, and costs -log of its kind's rate; plain characters
    cost nothing. Sees bad characters (Boucher et al. 2022) and look-alikes from another script
    within a word; neither a word wholly in look-alikes, nor typing errors, nor other words. No
    gradient. Model-free.
    """

    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("text",)
    reference: ClassVar[str] = "Boucher et al. 2022; Unicode Technical Standard 39"
    differentiable: ClassVar[bool] = False

    def fit(self, seen: Observation) -> State:
        enough(len(seen.x), 10, "rates of characters")
        counts = self.counts(seen.x).double().sum(0)
        # One of each kind more than there was, so that none is impossible.
        surprise = -((counts + 1) / (counts.sum() + len(KINDS))).log()
        surprise[0] = 0
        return {"surprise": surprise.float()}

    def score(self, state: State, seen: Observation) -> Tensor:
        return self.counts(seen.x).float() @ state["surprise"]

    def counts(self, x: Tensor) -> Tensor:
        """How many characters (B, kinds) of each of `KINDS` are in the texts x (B, L)."""
        found = torch.zeros(len(x), len(KINDS), dtype=torch.int64)
        for row, points in enumerate(x.flatten(1).round().long().tolist()):
            for kind in _kinds(points):
                found[row, kind] += 1
        return found.to(x.device)


def _kinds(points: list[int]) -> list[int]:
    while points and points[-1] == 0:
        points.pop()
    kinds, word = [], ""
    for point in points:
        kind, script = _looked_up(point)
        if not script:
            # Marks and what is not seen do not end a word.
            word = "" if kind == 0 else word
        elif kind == 0:
            word = word or script
            kind = 0 if script == word else KINDS.index("foreign")
        kinds.append(kind)
    return kinds


@cache
def _looked_up(point: int) -> tuple[int, str]:
    """A code point's place in `KINDS`, and the script of a letter, empty for others."""
    if not 0 <= point < 0x110000:
        return KINDS.index("undefined"), ""
    character = chr(point)
    kind = KINDS.index(_kind(character, unicodedata.category(character)))
    if not character.isalpha():
        return kind, ""
    script = unicodedata.name(character, "").partition(" ")[0]
    return kind, "CJK" if script in _WRITTEN_TOGETHER else script


def _kind(character: str, category: str) -> str:
    if character in _DIRECTION:
        return "direction"
    if category == "Cf" or character in _BLANK_LETTERS or "\ufe00" <= character <= "\ufe0f":
        return "invisible"
    if category == "Cc":
        return "plain" if character in "\t\n\r" else "control"
    if category in ("Cn", "Co", "Cs") or character == "\ufffd":
        return "undefined"
    if category in ("Mn", "Me"):
        return "mark"
    return "plain" if unicodedata.normalize("NFKC", character) == character else "compatibility"
