"""Text of unknown origin as text in Markdown."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|<>~&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITIES = frozenset("<>&|`@:$")


def escaped(text: object, most: int = 300) -> str:
    """Text on one line that a renderer shows as it is: no markup, no link, no HTML."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return _SPECIAL.sub(lambda match: _shown(match[0]), line)


def _shown(character: str) -> str:
    # Renderers look for links and HTML before they look for backslashes.
    return f"&#{ord(character)};" if character in _ENTITIES else f"\\{character}"
