"""What of an address and its headers is secret: filled in when asking, shown to nobody."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from .._errors import ModelError

VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def shown(url: str) -> str:
    """A URL without what may be secret: user, password and query."""
    before, _, _ = url.partition("?")
    return re.sub(r"//[^/]*@", "//", before)


def expanded(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str], dict[str, str]]:
    """URL and headers with environment variables filled in, and what must never be shown."""
    secrets: dict[str, str] = {}

    def filled(text: str, key: str, change: Callable[[str], str]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name is None:
                return "$"
            found = os.environ.get(name, "")
            if not found or not found.isprintable() or not found.isascii():
                wrong = "not plain text on one line" if found else "not set"
                raise ModelError(
                    f"{key} needs the environment variable {name}, which is {wrong}; export it"
                )
            secrets[change(found)] = secrets[found] = f"${name}"
            return change(found)

        return VARIABLE.sub(value, text)

    full = {
        name: filled(value, f"model.http.headers.{name}", str) for name, value in headers.items()
    }
    return filled(url, "model.url", lambda text: quote(text, safe="")), full, secrets


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """Text as it may be shown: a server may well repeat our headers in its errors."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, secrets[secret])
        for end in range(len(secret) - 1, 3, -1):
            text = text.replace(f"{secret[:end]}…", f"{secrets[secret]}…")
    return "".join(c if c.isprintable() or c.isspace() else "�" for c in text)
