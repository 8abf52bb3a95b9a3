"""Text in inputs of type BYTES: one encoding, one normal form, nothing that is not seen."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from ..._errors import ConfigError
from ..wire import Inference, RequestError
from ._each import each
from ._scripts import HIDDEN, lookalikes

_PLAIN = bytes((9, 10, 13, *range(32, 127)))
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, kw_only=True)
class Text:
    """Each element is UTF-8, and goes on in normal form NFKC (Unicode Standard Annex 15).

    name: of the input, "" for all of type BYTES. characters: the most, before and after. hidden:
    what becomes of characters that are not seen: zero-width and bidirectional ones, tags, variation
    selectors. similar: of letters of other scripts that look like Latin ones, in words with Latin
    letters. Control characters but for tab and line ends are refused. These are the four disguises
    of Boucher et al. (2022). A whole word in look-alikes is not seen, nor is bad spelling. Raises
    RequestError 400, or 413 for too long a text. 200 characters take some 10 microseconds in plain
    ASCII, 50 else.
    """

    name: str = ""
    characters: int = 10_000
    hidden: Literal["remove", "refuse"] = "remove"
    similar: Literal["refuse", "replace", "keep"] = "refuse"

    def __post_init__(self) -> None:
        if self.characters < 1:
            raise ConfigError(f"characters is {self.characters}; give at least 1")

    def __call__(self, asked: Inference) -> Inference:
        """The request with each text in its normal form; raises RequestError."""
        return each(asked, self.name, self._one)

    def _one(self, part: bytes, name: str) -> bytes:
        if len(part) > 4 * self.characters:
            raise self._too_long(name)
        if part.isascii() and not part.translate(None, _PLAIN):
            if len(part) > self.characters:
                raise self._too_long(name)
            return part
        try:
            # Refuses overlong forms and surrogates, which lax decoders read as something else.
            text = part.decode()
        except UnicodeDecodeError:
            raise RequestError(400, "text", f"input {name!r} must be UTF-8") from None
        return self._normal(text, name).encode()

    def _normal(self, text: str, name: str) -> str:
        text = unicodedata.normalize("NFKC", text)
        if _CONTROLS.search(text):
            raise RequestError(400, "text", f"input {name!r} holds control characters")
        seen = HIDDEN.sub("", text)
        if seen != text:
            if self.hidden == "refuse":
                raise RequestError(400, "text", f"input {name!r} holds hidden characters")
            # What stands together now may have one character of its own.
            text = unicodedata.normalize("NFKC", seen)
        if self.similar != "keep":
            plain = lookalikes(text)
            if plain != text and self.similar == "refuse":
                raise RequestError(400, "text", f"input {name!r} mixes scripts within a word")
            text = unicodedata.normalize("NFKC", plain)
        if len(text) > self.characters:
            raise self._too_long(name)
        return text

    def _too_long(self, name: str) -> RequestError:
        return RequestError(
            413, "too_large", f"input {name!r} holds text of over {self.characters} characters"
        )
