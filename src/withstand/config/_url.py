"""The address of a server."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, WithJsonSchema


def without_secrets(text: str) -> str:
    """Text whose addresses tell no user, no password and no query."""
    text = re.sub(r"//[^\s'\"]*@", "//…@", text)
    return re.sub(r"(//[^\s'\"?]*)\?[^\s'\"]*", r"\1?…", text)


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    try:
        sound = parts is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts is None or parts.scheme not in ("http", "https"):
        raise ValueError("give a server's address, such as http://127.0.0.1:8080")
    if parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("give only scheme, host and port, such as http://127.0.0.1:8080")
    return f"{parts.scheme}://{parts.netloc}"


Url = Annotated[
    str, BeforeValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]
