"""What all pages have in common: one style sheet, one script, one picture."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

_KINDS = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
Found = tuple[int, str, bytes, tuple[tuple[str, str], ...]]


def static(name: str, known: str) -> Found | None:
    """Status, kind, content and headers of a file; known: the mark of what the browser has."""
    if name not in _KINDS:
        return None
    content, mark = _file(name)
    headers = (("etag", mark), ("cache-control", "no-cache"))
    return (304, _KINDS[name], b"", headers) if known == mark else (
        200, _KINDS[name], content, headers
    )  # fmt: skip


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = files(__package__).joinpath("static", name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
